"""The comparison table, on numbers whose answer is known, and the tracker."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import aptheory as ap
from aptheory.errors import InputError
from aptheory.findings.cases import cases
from aptheory.findings.compare import check_controls, compare, group_means
from aptheory.methods.sizing import sized


def frame(entries, *, task="t", group="natural", network="net"):
    """Rows from {(method, layer): (validation accuracies, test accuracies)}."""
    rows = []
    for (method, layer), (val, test) in entries.items():
        for measure, values in (("val_accuracy", val), ("test_accuracy", test)):
            rows += [
                {
                    "network": network,
                    "task": task,
                    "group": group,
                    "recipe": "quick",
                    "method": method,
                    "layer": layer,
                    "seed": seed,
                    "measure": measure,
                    "value": value,
                }
                for seed, value in enumerate(values)
            ]
    return pd.DataFrame(rows)


ENTRIES = {
    ("ap", 0): ([0.5, 0.5, 0.5], [0.99, 0.99, 0.99]),
    ("ap", 3): ([0.8, 0.7, 0.9], [0.6, 0.7, 0.8]),
    ("ap", 5): ([0.7, 0.7, 0.9], [0.9, 0.9, 0.9]),
    ("linear_probe", 5): ([0.6, 0.6, 0.6], [0.5, 0.65, 0.65]),
    ("random_perturbation", 3): ([0.9, 0.9, 0.9], [0.75, 0.75, 0.75]),
    ("vpt", 1): ([0.1, 0.1, 0.1], [0.7, 0.8, 0.9]),
}


def test_layer_is_chosen_on_validation_and_reported_on_test():
    rows = compare(frame(ENTRIES)).set_index("method")
    assert rows.loc["ap", "layer"] == 3
    assert rows.loc["ap", "looks"] == 3
    assert rows.loc["ap", "value"] == pytest.approx(0.7)  # not 0.99 and not 0.9
    assert rows.loc["vp", "value"] == pytest.approx(0.99)
    assert rows.loc["vp", "looks"] == 1


def test_intervals_and_paired_differences_against_scipy():
    rows = compare(frame(ENTRIES)).set_index("method")
    test = np.array([0.6, 0.7, 0.8])
    low, high = stats.t.interval(0.95, 2, test.mean(), stats.sem(test))
    assert rows.loc["ap", ["low", "high"]].tolist() == pytest.approx([low, high])
    # vpt is 0.1 above ap with every seed: a paired difference has no spread at all
    assert rows.loc["vpt", "difference"] == pytest.approx(0.1)
    assert np.isnan(rows.loc["vpt", "difference_low"])  # 0.1 for every seed: no spread is known
    paired = np.array([0.5, 0.65, 0.65]) - test
    result = stats.ttest_1samp(paired, 0).confidence_interval(0.95)
    told = rows.loc["linear_probe", ["difference_low", "difference_high"]].tolist()
    assert told == pytest.approx([result.low, result.high])
    assert np.isnan(rows.loc["ap", "difference"])


def test_rank_counts_methods_and_not_controls():
    rows = compare(frame(ENTRIES)).set_index("method")
    assert rows["rank"].dropna().to_dict() == {"vp": 1, "vpt": 2, "ap": 3, "linear_probe": 4}


def test_differences_need_common_seeds_only():
    one = frame(ENTRIES)
    one = one[~((one["method"] == "vpt") & (one["seed"] == 2))]
    rows = compare(one).set_index("method")
    assert rows.loc["vpt", "seeds"] == 2
    assert rows.loc["vpt", "difference"] == pytest.approx(0.1)


def test_over_tasks_leaves_out_what_is_not_everywhere():
    other = {key: value for key, value in ENTRIES.items() if key[0] != "vpt"}
    both = pd.concat([frame(ENTRIES), frame(other, task="u", group="structured")])
    rows = compare(both, over_tasks=True).set_index("method")
    assert "vpt" not in rows.index
    assert rows.loc["ap", "value"] == pytest.approx(0.7)


def test_group_means_and_the_mean_of_all_tasks():
    def flat(value):
        return {("ap", 0): ([0.5, 0.5], [value - 0.01, value + 0.01])}

    tasks = [
        frame(flat(0.2), task="a", group="natural"),
        frame(flat(0.4), task="b", group="natural"),
        frame(flat(0.9), task="c", group="structured"),
    ]
    rows = group_means(pd.concat(tasks)).set_index("group")
    assert rows["value"].to_dict() == pytest.approx({"natural": 0.3, "structured": 0.9, "all": 0.5})
    assert rows["tasks"].to_dict() == {"natural": 2, "structured": 1, "all": 3}
    half = stats.t.ppf(0.975, 1) * 0.01  # two seeds, 0.01 either side of the mean
    assert rows.loc["all", "low"] == pytest.approx(0.5 - half)


def test_controls_are_told_layer_by_layer():
    rows = check_controls(frame(ENTRIES)).set_index(["check", "layer"])
    assert rows.loc[("ap - linear_probe", 5), "difference"] == pytest.approx(0.3)
    assert rows.loc[("ap - random_perturbation", 3), "difference"] == pytest.approx(-0.05)
    assert len(rows) == 2
    nameless = check_controls(frame(ENTRIES).drop(columns="recipe")).set_index(["check", "layer"])
    assert nameless["difference"].to_dict() == rows["difference"].to_dict()


def test_where_pictures_are_known_intervals_are_those_of_the_sentences():
    table, draw = frame(ENTRIES), np.random.default_rng(0)
    of_test = table["measure"] == "test_accuracy"
    known = [
        draw.random(40) < v if test else None
        for v, test in zip(table["value"], of_test, strict=True)
    ]
    table = table.assign(correct=pd.Series(known, dtype=object))
    table.loc[of_test, "value"] = [one.mean() for one in known if one is not None]
    (case,) = cases(table)
    rows = compare(table).set_index("method")
    assert 100 * rows.loc["ap", "low"] == pytest.approx(case.prompt.accuracy.low)
    gap = -1 * rows.loc["linear_probe", ["difference_high", "difference_low"]].astype(float)
    assert (100 * gap).tolist() == pytest.approx([case.gain.low, case.gain.high])


def test_equal_accuracies_share_a_rank():
    rows = compare(frame({**ENTRIES, ("norm_tuning", 0): ([0.5] * 3, [0.6, 0.7, 0.8])}))
    rank = rows.set_index("method")["rank"]
    assert (rank["ap"], rank["norm_tuning"], rank["linear_probe"]) == (3, 3, 5)


def test_no_differences_where_there_is_no_prompt():
    probe = {key: value for key, value in ENTRIES.items() if key[0] == "linear_probe"}
    rows = compare(frame(probe))
    assert rows["rank"].tolist() == [1]
    assert rows["difference"].isna().all()


def test_comparison_with_nothing_is_refused():
    with pytest.raises(InputError, match="there is no method 'lora'"):
        compare(frame(ENTRIES), against="lora")
    with pytest.raises(InputError, match="no test accuracy"):
        compare(frame({("ap", 0): ([0.5], [])}))


def test_sized_comes_as_near_as_the_size_allows():
    net = ap.load("aptheory_vit_mini", weights=None)
    width = net.layers[1].shape[1]
    depth = len(net.block_layers)
    method = sized(ap.VPT(tokens=1, deep=True), net, classes=3, parameters=5 * width * depth + 7)
    assert method.tokens == 5
    assert sized(ap.VPT(tokens=9), net, classes=3, parameters=1).tokens == 1
    assert sized(ap.LinearProbe(), net, classes=3, parameters=99) == ap.LinearProbe()
    adapter = sized(ap.Adapter(), net, classes=3, parameters=20_000)
    counts = [
        ap.Adapter(bottleneck=size).attach(net, classes=3).count(head=False)
        for size in range(1, 3 * adapter.bottleneck)
    ]
    best = min(counts, key=lambda count: abs(count - 20_000))
    assert adapter.attach(net, classes=3).count(head=False) == best


def test_a_folder_breaks_ties_between_layers_as_its_table_does(monkeypatch):
    tied = frame({("ap", 2): ([0.8, 0.8], [0.7, 0.8]), ("ap", 5): ([0.8, 0.8], [0.6, 0.9])})
    losses = tied[tied["measure"] == "val_accuracy"].assign(measure="val_loss")
    losses["value"] = losses["layer"].map({2: 0.4, 5: 0.5})
    whole = pd.concat([tied, losses], ignore_index=True)
    monkeypatch.setattr(
        "aptheory.studies.tables.table",
        lambda folder, measures: whole[whole["measure"].isin(measures)],
    )
    assert compare("folder")["layer"].tolist() == compare(whole)["layer"].tolist() == [2]
    flipped = whole.assign(value=whole["value"].where(whole["measure"] != "val_loss", 1))
    flipped.loc[(flipped["measure"] == "val_loss") & (flipped["layer"] == 5), "value"] = 0.1
    monkeypatch.setattr(
        "aptheory.studies.tables.table",
        lambda folder, measures: flipped[flipped["measure"].isin(measures)],
    )
    assert compare("folder")["layer"].tolist() == [5]


@pytest.mark.parametrize("change", [lambda t: t, lambda t: t.assign(value=0.5)])
def test_a_run_that_stands_twice_is_no_more_evidence(change):
    table = frame(ENTRIES)
    doubled = pd.concat([table, change(table.iloc[:3])], ignore_index=True)
    with pytest.raises(InputError, match="holds 3 rows twice, network net, task t"):
        compare(doubled)


@pytest.mark.parametrize(
    ("column", "value"),
    [("layer", "x"), ("layer", np.nan), ("layer", 0.5), ("seed", None), ("value", np.inf)],
)
def test_columns_hold_what_belongs_there(column, value):
    with pytest.raises(InputError, match="layer and seed whole numbers; value holds numbers"):
        compare(frame(ENTRIES).assign(**{column: value}))


def test_rows_are_gathered_by_labels_alone():
    table = frame(ENTRIES)
    with pytest.raises(InputError, match="no table with the columns network"):
        compare(table.assign(network=[["a"]] * len(table)))
