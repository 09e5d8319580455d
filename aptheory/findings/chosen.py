"""The layer that validation data choose: the one choice that findings, pages and claims share."""

from __future__ import annotations

import math

import pandas as pd

from aptheory.choosing.ranking import ranking
from aptheory.errors import InputError
from aptheory.findings.statistics import mean_interval
from aptheory.studies.tables import with_roles


def chosen_layer(rows: pd.DataFrame, *, seed: int = 0) -> int:
    """The layer of one method, network and task with the best mean validation accuracy over seeds.

    Layers that tie are told apart by their mean validation loss, where the table has one for each
    of them (measure ``val_loss``), and then drawn with ``seed``; see
    `aptheory.choosing.ranking.ranking`. Test data are never looked at.

    Args:
        rows: tidy rows with ``layer, seed, measure, value``; others of its columns are not read,
            but for ``network``, ``task`` and ``method``, which the draw depends on.

    Raises:
        InputError: several layers, and no validation accuracy to choose by.
    """
    layers = rows["layer"].unique()
    if len(layers) == 1:
        return int(layers[0])
    means = rows.pivot_table(index="layer", columns="measure", values="value", aggfunc="mean")
    if "val_accuracy" not in means:
        raise InputError("a layer must be chosen, but there is no validation accuracy to do it.")
    means = means.dropna(subset=["val_accuracy"]).sort_index()
    losses = means["val_loss"].to_numpy() if "val_loss" in means else None
    about = [str(rows[name].iloc[0]) for name in ("network", "task", "method") if name in rows]
    order = ranking(means["val_accuracy"].to_numpy(), losses, key="|".join(about), seed=seed)
    return int(means.index[order[0]])


def tested(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of layers that have a test accuracy: a layer whose runs failed is no choice."""
    known = rows[(rows["measure"] == "test_accuracy") & rows["value"].notna()]
    return rows[rows["layer"].isin(known["layer"])]


def swept_prompt(accuracy: pd.DataFrame) -> str:
    """The prompt that a table is about: "ap" where it is there, else the first of that role."""
    names = accuracy["method"] if len(accuracy) else pd.Series(dtype=str)
    if not (names == "ap").any():
        prompts = names[with_roles(accuracy)["role"] == "prompt"] if len(names) else names
        if len(prompts):
            return str(prompts.iloc[0])
    return "ap"


def best_layers(
    accuracy: pd.DataFrame, *, method: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """The layer with the best validation accuracy, and the test accuracy that it brings.

    ``method`` is the prompt that the table is about, where it is not given.
    The choice is `chosen_layer` and never sees the test split. ``low`` and ``high`` are Student's
    t interval of the mean test accuracy over seeds (95 %), nan where the seeds agree; ``regret`` is
    what the layer best on *test* would have brought more. ``depth`` is nan where the table does not
    tell how many places the network has.
    """
    rows = []
    method = method or swept_prompt(accuracy)
    of_method = accuracy[accuracy["method"] == method]
    for key, group in of_method.groupby(["network", "task"]):
        network, task = key
        if not {"val_accuracy", "test_accuracy"} <= set(group["measure"]):
            continue
        group = tested(group)
        layer = chosen_layer(group, seed=seed)
        test = group[group["measure"] == "test_accuracy"].pivot_table(
            index="layer", columns="seed", values="value", aggfunc="mean"
        )
        values = test.loc[layer].dropna().to_numpy()
        low, high = mean_interval(values, within=(0, 1))
        rows.append(
            {
                "network": network,
                "task": task,
                "method": method,
                "layer": layer,
                "layer_name": layer_name(group, layer),
                "depth": depth_of(layer, last_place(accuracy[accuracy["network"] == network])),
                "value": float(values.mean()),
                "low": low,
                "high": high,
                "seeds": len(values),
                "regret": float(test.mean(axis=1).max() - test.loc[layer].mean()),
            }
        )
    return pd.DataFrame(rows)


def last_place(rows: pd.DataFrame) -> int | None:
    """The index of a network's last place, the classifier's input; None where no row tells it.

    A row's ``depth`` tells it, else the linear probe, which always stands there: layers that were
    not swept are not forgotten.
    """
    if "depth" in rows:
        within = rows[rows["depth"] > 0]
        if len(within):
            deepest = within.sort_values("depth").iloc[-1]
            last = float(deepest["layer"]) / float(deepest["depth"])
            return round(last) if math.isfinite(last) else None
    at_end = rows.loc[rows["method"] == "linear_probe", "layer"]
    return int(at_end.max()) if len(at_end) else None


def depth_of(layer: int, last: int | None) -> float:
    """The share of the network that lies before a layer; nan where its last place is unknown."""
    return layer / last if last else float("nan")


def layer_name(rows: pd.DataFrame, layer: int) -> str:
    """The name of a layer as the table spells it, else its index."""
    at_layer = rows[rows["layer"] == layer]
    named = at_layer["layer_name"].dropna() if "layer_name" in rows else at_layer["layer"]
    return str(named.iloc[0]) if len(named) else str(layer)
