"""The tables of a run's folder, as every part of the page reads them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aptheory.errors import InputError
from aptheory.studies.tables import with_roles


@dataclass
class Tables:
    """What stands in a run's folder; a table that is not there is empty."""

    profile: pd.DataFrame
    accuracy: pd.DataFrame
    relation: pd.DataFrame
    comparison: pd.DataFrame
    cost: pd.DataFrame
    settings: dict[str, object]

    @classmethod
    def read(cls, folder: str | Path) -> "Tables":
        """Read FOLDER's csv files and settings.json.

        Raises:
            InputError: the folder holds neither profile.csv nor accuracy.csv, or one is damaged.
        """
        folder = Path(folder)
        found = {}
        for name in ("profile", "accuracy", "relation", "comparison", "cost"):
            path = folder / f"{name}.csv"
            try:
                found[name] = pd.read_csv(path) if path.is_file() else pd.DataFrame()
            except pd.errors.EmptyDataError:  # too few layers to relate leave a table without rows
                found[name] = pd.DataFrame()
            except (pd.errors.ParserError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{path} is not a readable table ({error}): write it again"
                ) from error
        if found["profile"].empty and found["accuracy"].empty:
            raise InputError(
                f"{folder} holds neither profile.csv nor accuracy.csv: run `aptheory profile` or "
                f"`aptheory sweep` with --out {folder} first"
            )
        for name in ("accuracy", "comparison"):
            found[name] = with_roles(found[name])
        path = folder / "settings.json"
        settings = json.loads(path.read_text()) if path.is_file() else {}
        return cls(**found, settings=settings)


def pairs(tables: Tables) -> list[tuple[str, str]]:
    """Every (network, task) of the folder, in the order of its tables."""
    both = [t[["network", "task"]] for t in (tables.accuracy, tables.profile) if len(t)]
    return [(str(n), str(t)) for n, t in pd.concat(both).drop_duplicates().itertuples(index=False)]


def at(table: pd.DataFrame, network: str, task: str) -> pd.DataFrame:
    """The rows of one network on one task."""
    if table.empty:
        return table
    return table[(table["network"] == network) & (table["task"] == task)]
