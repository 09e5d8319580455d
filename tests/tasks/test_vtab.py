"""The VTAB protocol's splits, and the means over its groups."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import aptheory as ap
from aptheory import tasks
from aptheory.errors import InputError
from aptheory.tasks.registry import VTAB_GROUPS

NAMES = [name for names in VTAB_GROUPS.values() for name in names]


def results(values: dict[str, list[float]], **more: object) -> pd.DataFrame:
    rows = [
        {"task": task, "seed": seed, "measure": "test_accuracy", "value": value, **more}
        for task, column in values.items()
        for seed, value in enumerate(column)
    ]
    return pd.DataFrame(rows)


def test_splits_of_the_protocol():
    task = ap.task("textures")
    splits = tasks.vtab_splits(task)
    assert [len(s) for s in (splits.train800, splits.val200, splits.train1000, splits.test)] == [
        800,
        200,
        1000,
        1000,
    ]
    assert splits.train1000.labels.tolist() == [*task.train.labels, *task.val.labels]
    with pytest.raises(InputError, match="400 training"):
        tasks.vtab_splits(task.subset(train=400))
    assert len(tasks.vtab_splits(task.subset(train=400), strict=False).train1000) == 600


def test_group_means_and_the_mean_of_19():
    generator = np.random.default_rng(0)
    values = {name: list(generator.uniform(0.2, 0.9, 5)) for name in NAMES}
    table = tasks.vtab_summary(results(values)).set_index(["scope", "name"])
    for group, names in VTAB_GROUPS.items():
        expected = np.mean([values[name] for name in names])
        assert table.loc[("group", group), "mean"] == pytest.approx(expected)
    overall = table.loc[("mean of tasks", "19 tasks")]
    assert overall["mean"] == pytest.approx(np.mean([values[name] for name in NAMES]))
    assert (overall["tasks"], overall["expected"], overall["seeds"]) == (19, 19, 5)
    groups = [np.mean([values[n] for n in names]) for names in VTAB_GROUPS.values()]
    assert table.loc[("mean of groups", "3 groups"), "mean"] == pytest.approx(np.mean(groups))
    one = stats.ttest_1samp(values["dtd"], 0).confidence_interval()
    row = table.loc[("task", "dtd")]
    assert (row["low"], row["high"]) == pytest.approx((one.low, one.high))


def test_the_interval_of_two_tasks_is_welchs():
    """For two tasks the mean is half a sum, whose interval scipy's Welch test gives."""
    first, second = [0.5, 0.6, 0.55, 0.52], [0.3, 0.9, 0.6]
    table = tasks.vtab_summary(
        results({"a": first, "b": second}), groups={"both": ["a", "b"]}
    ).set_index("scope")
    welch = stats.ttest_ind(first, [-v for v in second], equal_var=False).confidence_interval()
    row = table.loc["group"]
    assert (row["low"], row["high"]) == pytest.approx((welch.low / 2, welch.high / 2))
    assert row["seeds"] == 3


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(120):
        values = {n: list(0.5 + 0.1 * generator.standard_normal(3)) for n in ("a", "b", "c")}
        table = tasks.vtab_summary(results(values), groups={"g": ["a", "b", "c"]}, confidence=0.9)
        row = table[table["scope"] == "group"].iloc[0]
        hits += bool(row["low"] <= 0.5 <= row["high"])
    assert 0.82 < hits / 120 < 0.97


def test_missing_tasks_are_counted_and_one_seed_has_no_interval():
    table = tasks.vtab_summary(results({"dtd": [0.5], "svhn": [0.7], "digits": [0.9]}))
    overall = table[table["scope"] == "mean of tasks"].iloc[0]
    assert overall["mean"] == pytest.approx(0.6)
    assert (overall["tasks"], overall["expected"]) == (2, 19)
    assert np.isnan(overall["low"])
    same = tasks.vtab_summary(results({"dtd": [0.5, 0.5]}))
    assert same["low"].tolist() == same["high"].tolist() == [0.5] * 4


def test_methods_and_layers_are_summed_up_apart():
    table = pd.concat(
        [
            results({"dtd": [0.1 * layer]}, network="vit", method="ap", layer=layer)
            for layer in (1, 2)
        ]
        + [results({"dtd": [0.9]}, network="vit", method="linear_probe", layer=9)]
    )
    summary = tasks.vtab_summary(table)
    rows = summary[summary["scope"] == "group"].set_index(["method", "layer"])
    assert rows["mean"].to_dict() == pytest.approx(
        {("ap", 1): 0.1, ("ap", 2): 0.2, ("linear_probe", 9): 0.9}
    )


def test_tables_that_cannot_be_summed_up():
    table = results({"dtd": [0.5, 0.6]})
    with pytest.raises(InputError, match=r"lacks the column\(s\) seed"):
        tasks.vtab_summary(table.drop(columns="seed"))
    with pytest.raises(InputError, match="twice"):
        tasks.vtab_summary(pd.concat([table, table]))
    with pytest.raises(InputError, match="has no 'val_accuracy'"):
        tasks.vtab_summary(table, measure="val_accuracy")
