"""The tables of a run's folder, as every part of the page reads them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from aptheory.checked import json_table, read_text
from aptheory.errors import InputError
from aptheory.studies.status import status
from aptheory.studies.tables import check_once, read_csv, records, with_pictures, with_roles

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "profile": ("network", "task", "measure", "layer", "value"),
    "accuracy": ("network", "task", "measure", "method", "layer", "seed", "value"),
    "relation": ("network", "task", "measure", "statistic", "value", "low", "high"),
    "comparison": ("network", "task", "method", "value", "low", "high"),
    "cost": ("network", "method"),
    "map": (
        *("network", "task", "layer", "read", "layer_name", "read_name", "finished", "chosen"),
        *("seeds", "epochs", "val_accuracy", "val_loss", "test_accuracy", "low", "high"),
    ),
}
"""What each table must have; it may have more."""
_TEXTS = (
    *("network", "task", "measure", "method", "statistic", "layer_name", "role", "target"),
    *("recipe", "group", "settings", "note", "split", "features", "read_name", "judge"),
)
_NUMBERS = (
    *("layer", "seed", "value", "low", "high", "depth", "other_layer", "p", "q", "looks"),
    *("parameters", "seeds", "rank", "step_ms", "layers", "smallest_p", "images"),
    *("difference", "difference_low", "difference_high"),
    *("read", "epochs", "val_accuracy", "val_loss", "test_accuracy"),
)
_WHOLE = ("layer", "read", "seed")
_PLACES = ("layer", "read")
_MOST_LAYERS = 10_000
_SHARES = ("depth", "val_accuracy", "test_accuracy")
"""Numbers from 0 to 1; so are the values of the measures that are accuracies."""


@dataclass
class Tables:
    """What stands in a run's folder; a table that is not there is empty.

    ``seconds`` is what all runs took together, 0 where their outcomes are no longer there.
    """

    profile: pd.DataFrame
    accuracy: pd.DataFrame
    relation: pd.DataFrame
    comparison: pd.DataFrame
    cost: pd.DataFrame
    settings: dict[str, object]
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    map: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def read(cls, folder: str | Path) -> "Tables":
        """Read FOLDER's csv files and settings.json.

        Raises:
            InputError: no folder, or one that holds none of profile.csv, accuracy.csv and map.csv;
                a damaged one of them.
        """
        folder = Path(folder)
        if os.path.lexists(folder) and not folder.is_dir():
            raise InputError(f"{folder} is no folder; give the one that a command wrote to.")
        found = {}
        for name in _COLUMNS:
            path = folder / f"{name}.csv"
            table = read_csv(path) if os.path.isfile(path) else pd.DataFrame()
            wanted = _COLUMNS[name]
            if name == "profile" and "measure" in table and (table["measure"] == "cka").any():
                wanted = (*wanted, "other_layer")
            found[name] = _checked(table, wanted, path) if len(table) else table
            if name in ("profile", "accuracy"):
                check_once(found[name], str(path))
            if name == "accuracy" and len(table):
                _check_accuracies(found[name], path)
        if all(found[name].empty for name in ("profile", "accuracy", "map")):
            raise InputError(
                f"{folder} holds neither profile.csv nor accuracy.csv nor map.csv: run `aptheory "
                f"profile`, `aptheory sweep` or `aptheory map` with --out {folder} first"
            )
        for name in ("accuracy", "comparison"):
            found[name] = with_roles(found[name])
        path = folder / "settings.json"
        settings = json_table(read_text(path), name=str(path)) if path.is_file() else {}
        planned = (folder / "plan.json").is_file()
        known = records(folder) if planned else []
        found["accuracy"] = with_pictures(found["accuracy"], known)
        return cls(
            **found,
            settings=settings,
            failed=status(folder).failures if planned else [],
            seconds=sum(float(record.made_by.get("seconds", 0)) for _, record in known),
        )

    def frames(self) -> tuple[pd.DataFrame, ...]:
        """All of its tables."""
        return self.profile, self.accuracy, self.relation, self.comparison, self.cost, self.map


def _checked(table: pd.DataFrame, wanted: tuple[str, ...], path: Path) -> pd.DataFrame:
    """The table with texts as texts and numbers as numbers.

    Raises:
        InputError: a column is missing, or holds what it must not.
    """
    for name in wanted:
        if name not in table:
            raise InputError(f"{path} has no column {name}: write it again.")
    table = table.copy()
    for name in table.columns.intersection(list(_TEXTS)):
        table[name] = table[name].map(lambda v: v if isinstance(v, str) or v != v else str(v))
        if name in wanted and table[name].isna().any():
            raise InputError(f"{path} has rows without a {name}: write it again.")
    for name in table.columns.intersection(list(_NUMBERS)):
        try:
            numbers = pd.to_numeric(table[name])
            values = numbers.to_numpy(float, na_value=np.nan)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{path} holds no numbers in {name} ({error}).") from None
        if (np.abs(values[~np.isnan(values)]) > 1e300).any():
            raise InputError(f"{path} holds numbers without bound in {name}: write it again.")
        if name in wanted and name in _WHOLE and not (values == np.floor(values)).all():
            raise InputError(f"{path} holds a {name} that is no whole number: write it again.")
        if name in _SHARES and (np.abs(values - 0.5) > 0.5).any():
            raise InputError(f"{path} holds a {name} that is not from 0 to 1: write it again.")
        if name == "seed" and (values < 0).any():
            raise InputError(f"{path} holds a seed below 0: write it again.")
        inside = (values >= 0) & (values < _MOST_LAYERS)
        if name in wanted and name in _PLACES and not inside.all():
            raise InputError(f"{path} holds a {name} outside 0 to {_MOST_LAYERS}: write it again.")
        plain = getattr(numbers.dtype, "kind", "O") in "iuf"  # no truth values, no endless numbers
        table[name] = numbers if plain else values
    if {"layer", "depth"} <= {*table}:  # the last place of a network is the one over the other
        beyond = table["layer"] > _MOST_LAYERS * table["depth"]
        if (beyond & (table["depth"] > 0)).any():
            raise InputError(
                f"{path} holds a depth as of a network of more than {_MOST_LAYERS} places: write "
                "it again."
            )
    return table


def _check_accuracies(table: pd.DataFrame, path: Path) -> None:
    """Refuse an accuracy that is no share: InputError names the table."""
    shares = table.loc[table["measure"].str.endswith("_accuracy"), "value"]
    if not shares.between(0, 1).all():
        wrong = shares[~shares.between(0, 1)].iloc[0]
        raise InputError(
            f"{path} holds an accuracy of {wrong:g}, which is not from 0 to 1: write it again."
        )


def pairs(tables: Tables) -> list[tuple[str, str]]:
    """Every (network, task) of the folder, in the order of its tables."""
    both = [t[["network", "task"]] for t in (tables.accuracy, tables.profile) if len(t)]
    if not both:
        return []
    return [(str(n), str(t)) for n, t in pd.concat(both).drop_duplicates().itertuples(index=False)]
