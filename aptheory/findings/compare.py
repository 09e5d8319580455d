"""A comparison that is fair: the same budget for every method, and differences seed by seed.

All methods of a study share its recipes (epochs, batches), its search and its seeds; with
``equal = "parameters"`` also, as nearly as their sizes allow, their number of parameters. Whatever
is chosen, a learning rate or a layer, is chosen on validation data; ``looks`` says among how many
layers a method could choose, because a choice among many is a budget too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.arguments import RESULTS, checked_arguments
from aptheory.errors import InputError
from aptheory.findings.chosen import chosen_layer, tested
from aptheory.findings.gaps import mean_share, share_gap
from aptheory.findings.statistics import mean_interval
from aptheory.methods import role_of
from aptheory.studies.tables import check_once

if TYPE_CHECKING:
    import pandas as pd


_GROUP = ["network", "task", "recipe"]


@checked_arguments
def compare(
    results: pd.DataFrame | str | Path,
    *,
    against: str | None = None,
    over_tasks: bool = False,
    pictures: bool = False,
) -> pd.DataFrame:
    """Every method of a sweep side by side, best first, one block a network, task and recipe.

    Columns: network, task, recipe, method, layer (`chosen_layer`: on validation data), looks (how
    many layers there were to choose from), parameters (without the head, where ``results`` tells
    them), seeds, value with low and high (mean test accuracy in [0, 1] and its
    95 % t interval over seeds), difference with difference_low and difference_high (the method
    minus ``against``, paired by seed; nan for ``against`` itself), rank (1 the best; equal values
    share one; the controls have none). A table with a column ``correct`` has intervals that hold
    the test pictures as well (`aptheory.findings.gaps`).

    Probes are methods like any other: that of the layer which validation chooses, which costs less
    than a prompt, is its strongest rival. A prompt swept over layers also appears at layer 0 alone,
    as ``vp``: that is visual prompting.

    Args:
        results: a sweep's folder or its tidy table.
        against: the method to take differences from; ``"ap"`` where it is among them.
        over_tasks: average over the tasks, seed by seed, before anything else; only methods that
            were run on every task stay.
        pictures: read from a folder's outcomes which test pictures each run knew.

    Raises:
        InputError: there is no test accuracy, or none of ``against``.
    """
    import pandas as pd

    per_seed = _per_seed(_frame(results, pictures=pictures))
    methods = sorted(set(per_seed["method"]))
    if against is not None and against not in methods:
        raise InputError(
            f"there is no method {against!r} to compare with; there are {', '.join(methods)}"
        )
    if over_tasks:
        per_seed = _averaged(per_seed, "mean of tasks")
    rows: list[dict[str, Any]] = []
    for key, block in per_seed.groupby(_GROUP, sort=True):
        rows += _ranked(dict(zip(_GROUP, key, strict=True)), block, against or "ap")
    frame = pd.DataFrame(rows)
    return frame


def group_means(results: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Mean test accuracy over the tasks of each group, and of all tasks, with intervals over seeds.

    As VTAB reports it: natural, specialized, structured, and the mean of all tasks alike (not of
    the groups). Columns: network, recipe, method, group, tasks, seeds, value, low, high.
    """
    import pandas as pd

    per_seed = _per_seed(_frame(results))
    blocks = [(name, rows) for name, rows in per_seed.groupby("group", sort=True)]
    rows = []
    for name, block in [*blocks, ("all", per_seed)]:
        for key, one in _averaged(block, "").groupby(["network", "recipe", "method"], sort=True):
            low, high = mean_interval(one["value"], within=(0, 1))
            rows.append(
                {
                    **dict(zip(("network", "recipe", "method"), key, strict=True)),
                    "group": name,
                    "tasks": int(one["tasks"].iloc[0]),
                    "seeds": one["seed"].nunique(),
                    "value": one["value"].mean(),
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def check_controls(results: pd.DataFrame | str | Path) -> pd.DataFrame:
    """What the controls of a layer sweep say: differences in test accuracy, paired by seed.

    One row for the prompt at the last layer minus the linear probe (it must be zero up to
    training), and one a layer for the prompt minus the random perturbation of its norm, and minus
    the linear classifier on that layer's features. Columns: network, task, recipe, layer, check,
    seeds, difference, low, high.
    """
    import pandas as pd

    frame = _frame(results)
    if "recipe" not in frame:
        frame = frame.assign(recipe="")
    test = frame[frame["measure"] == "test_accuracy"]
    rows = []
    for key, block in test.groupby(_GROUP, sort=True):
        values = block.pivot_table(index=["layer", "seed"], columns="method", values="value")
        if "ap" not in values:
            continue
        for other in ("linear_probe", "layer_probe", "random_perturbation"):
            if other not in values:
                continue
            paired = (values["ap"] - values[other]).dropna()
            for layer, differences in paired.groupby(level="layer"):
                low, high = mean_interval(differences, within=(-1, 1))
                rows.append(
                    {
                        **dict(zip(_GROUP, key, strict=True)),
                        "layer": int(str(layer)),
                        "check": f"ap - {other}",
                        "seeds": len(differences),
                        "difference": differences.mean(),
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(rows)


def _frame(results: pd.DataFrame | str | Path, *, pictures: bool = False) -> pd.DataFrame:
    if isinstance(results, str | Path):
        from aptheory.studies.tables import records, table, with_pictures

        # val_loss breaks the ties between layers, as wherever a layer is chosen
        measures = ("val_accuracy", "val_loss", "test_accuracy", "parameters_without_head")
        frame = table(results, measures=measures)
        return with_pictures(frame, records(results)) if pictures else frame
    if not RESULTS.holds(results):
        raise InputError(f"the results to compare are no table {RESULTS}.")
    check_once(results, "the results to compare")
    return results


def _per_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a network, task, recipe, method and seed: its test accuracy at the chosen layer."""
    import pandas as pd

    if "recipe" not in frame:
        frame = frame.assign(recipe="")
    if "group" not in frame:
        frame = frame.assign(group="")
    kept = []
    known = set(frame["method"])
    for key, block in frame.groupby([*_GROUP, "group", "method"], sort=True):
        about: dict[str, Any] = dict(zip([*_GROUP, "group", "method"], key, strict=True))
        for name, rows in _versions(about["method"], block, known):
            rows = tested(rows)
            if rows.empty:
                continue
            chosen = chosen_layer(rows)
            one = rows[rows["layer"] == chosen].set_index("seed")
            test = one[one["measure"] == "test_accuracy"]
            size = one.loc[one["measure"] == "parameters_without_head", "value"]
            for seed, run in test.iterrows():
                kept.append(
                    {
                        **about,
                        "method": name,
                        "layer": chosen,
                        "looks": rows["layer"].nunique(),
                        "parameters": size.max() if len(size) else float("nan"),
                        "seed": seed,
                        "value": run["value"],
                        "correct": run.get("correct"),
                    }
                )
    if not kept:
        raise InputError("there is no test accuracy to compare; run a sweep first")
    return pd.DataFrame(kept)


def _versions(
    method: str, block: pd.DataFrame, known: set[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    yield method, block
    at_image = block[block["layer"] == 0]
    if method == "ap" and "vp" not in known and len(at_image) and block["layer"].nunique() > 1:
        yield "vp", at_image


def _averaged(per_seed: pd.DataFrame, task: str) -> pd.DataFrame:
    """Mean over tasks of each method and seed that has them all."""
    import pandas as pd

    everything = per_seed["task"].nunique()
    rows = []
    for key, block in per_seed.groupby(["network", "recipe", "method", "seed"], sort=True):
        if block["task"].nunique() < everything:
            continue
        network, recipe, method, seed = key
        rows.append(
            {
                "network": network,
                "task": task,
                "recipe": recipe,
                "method": method,
                "layer": float("nan"),
                "looks": block["looks"].max(),
                "parameters": block["parameters"].mean(),
                "tasks": everything,
                "seed": seed,
                "value": block["value"].mean(),
            }
        )
    return pd.DataFrame(
        rows, columns=[*_GROUP, "method", "layer", "looks", "parameters", "tasks", "seed", "value"]
    )


def _ranked(about: dict[str, Any], block: pd.DataFrame, against: str) -> list[dict[str, Any]]:
    reference = block[block["method"] == against]
    rows = []
    for method, one in block.groupby("method", sort=True):
        accuracy = mean_share(one)
        difference = share_gap(one, reference if method != against else None)
        rows.append(
            {
                **about,
                "method": method,
                "layer": one["layer"].iloc[0],
                "looks": int(one["looks"].iloc[0]),
                "parameters": one["parameters"].iloc[0],
                "seeds": len(one),
                "value": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "difference": difference.value,
                "difference_low": difference.low,
                "difference_high": difference.high,
            }
        )
    rows.sort(key=lambda row: -row["value"])
    ranked = [row["value"] for row in rows if role_of(str(row["method"])) != "control"]
    for row in rows:
        control = role_of(str(row["method"])) == "control"
        row["rank"] = None if control else 1 + sum(value > row["value"] for value in ranked)
    return rows
