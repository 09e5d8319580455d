"""Folders of tables as pages, and the words of the command line."""

from __future__ import annotations

import contextlib
import json
import random
import shlex
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fuzz_targets.registry import Case, target
from benchmarks.mutations import (
    encoded,
    harm_bytes,
    harm_cells,
    harm_text,
    harm_value,
)


def _tables(folder: Path) -> dict[str, str]:
    import pandas as pd

    methods = {"ap": (0, 1, 2, 3, 4), "linear_probe": (4,), "layer_probe": (0, 1, 2, 3)}
    accuracy = [
        {"network": "n", "task": "t", "group": "user", "method": method, "layer": layer,
         "layer_name": f"b{layer}", "depth": layer / 4, "recipe": "quick", "seed": seed,
         "measure": f"{split}_accuracy", "value": 0.5 + 0.01 * layer + 0.001 * seed}
        for method, layers in methods.items() for layer in layers for seed in range(3)
        for split in ("val", "test")
    ]  # fmt: skip
    profile = [
        {"network": "n", "task": "t", "layer": layer, "layer_name": f"b{layer}", "depth": layer / 4,
         "measure": measure, "other_layer": other, "value": 0.5, "low": 0.4, "high": 0.6}
        for layer in range(5)
        for measure, other in (("globality", None), ("cka", 0), ("cka", 1))
    ]  # fmt: skip
    return {
        "accuracy.csv": pd.DataFrame(accuracy).to_csv(index=False),
        "profile.csv": pd.DataFrame(profile).to_csv(index=False),
        "settings.json": json.dumps({"study": "x", "seeds": [0], "networks": {"n": "0"}}),
    }


@target
def reports(folder: Path) -> Case:
    """The tables of a folder as a page; the plots are drawn from the same tables."""
    from aptheory.reporting.page import html
    from aptheory.reporting.report import findings
    from aptheory.reporting.run_folder import Tables

    good = _tables(folder)

    def case(draw: random.Random) -> Any:
        name = draw.choice(list(good))
        for other, text in good.items():
            (folder / other).write_text(text)
        if name == "settings.json":
            harmed = encoded(harm_value(json.loads(good[name]), draw))
        else:
            harmed = harm_cells(good[name], draw)
        data = harmed.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(harm_bytes(data, draw) if draw.random() < 0.3 else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tables = Tables.read(folder)
            return findings(tables), html(tables)

    return case


@target
def command_line(folder: Path) -> Case:
    from aptheory.cli import app

    (folder / "accuracy.csv").write_text(_tables(folder)["accuracy.csv"])
    commands = (
        "layers aptheory_resnet_mini --granularity stage", "status x", "relate x", "report x",
        "sweep x.toml --dry-run", "sweep -n nowhere -t digits --layers 0,3 --seeds 2 --dry-run",
        "cost nowhere ap:layer=3 --batch-size 2 --classes 3", "tasks check nowhere",
        "profile nowhere -t digits -o out --subset 1,2,3 --images 3", "tasks",
        "recommend nowhere -t digits --images 20 --budget 0.1",
    )  # fmt: skip

    def case(draw: random.Random) -> Any:
        text = harm_text(draw.choice(commands), draw)
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        words = [word.replace("\0", "") for word in words]
        if any(word.split(".")[0].startswith(("vit", "resnet")) for word in words):
            return None  # a name of timm's asks the network for its weights
        with contextlib.chdir(folder), contextlib.suppress(SystemExit):
            app(words)
        return None

    return case
