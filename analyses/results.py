"""The folder of result tables that the claims and the figures read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analyses import evidence
from analyses.evidence import NotMeasured


class Results:
    """The folder of result tables; a table is read once."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._read: dict[str, pd.DataFrame] = {}

    def has(self, name: str) -> bool:
        """Whether the table NAME.csv is there."""
        return (self.folder / f"{name}.csv").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """The table FOLDER/NAME.csv.

        Raises:
            NotMeasured: its analysis has not been run.
        """
        if not self.has(name):
            raise NotMeasured(name)
        if name not in self._read:
            self._read[name] = pd.read_csv(self.folder / f"{name}.csv")
        return self._read[name]

    def gathered(self, name: str) -> pd.DataFrame:
        """NAME.csv of the embedded studies and of all on real weights, pretrained rows only."""
        patterns = (f"real/*/{name}.csv", f"layer_preference/*/{name}.csv")
        return evidence.pretrained(self._together(*patterns, f"layer_preference/{name}.csv"))

    def methods(self) -> pd.DataFrame:
        """Accuracies of the method comparisons, embedded and real."""
        return self._together("methods/accuracy.csv", "methods/*/accuracy.csv")

    def steps(self) -> pd.DataFrame:
        """What training steps cost: the papers' own networks first, where they were timed."""
        return self._together("cost/steps_full.csv", "cost/steps.csv")

    def elsewhere(self, *patterns: str) -> list[pd.DataFrame]:
        """The tables whose paths match the patterns, if there are any."""
        paths = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
        return [pd.read_csv(path) for path in paths]

    def _together(self, *patterns: str) -> pd.DataFrame:
        tables = self.elsewhere(*patterns)
        if not tables:
            raise NotMeasured(patterns[0])
        return pd.concat(tables, ignore_index=True)
