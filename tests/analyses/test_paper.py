"""paper_repro.md is what its tables say, and the judges can tell a claim that fails."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses import evidence, judges
from analyses.claims import CLAIMS, NOT_RUN, judge
from analyses.judges import NOT_REPRODUCED, NOT_WITH_THESE, PARTLY, REPRODUCED, UNDECIDED
from analyses.paper import JUDGED, PAGE, RESULTS, TRAINED, page
from analyses.results import Results


def accuracy(curves: dict[str, list[float]], *, seeds: int = 3, probe: float = 0.5) -> pd.DataFrame:
    """AP curves by network on two tasks, a little noise over seeds, and the probe's accuracy."""
    generator = np.random.default_rng(0)
    rows = []
    for network, curve in curves.items():
        for task in ("a", "b"):
            for seed in range(seeds):
                for layer, value in enumerate(curve):
                    for measure in ("val_accuracy", "test_accuracy"):
                        noisy = value + 0.001 * generator.normal()
                        rows.append((network, task, layer, "ap", seed, measure, noisy))
                rows.append(
                    (network, task, len(curve) - 1, "linear_probe", seed, "test_accuracy", probe)
                )
    columns = ["network", "task", "layer", "method", "seed", "measure", "value"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def results(tmp_path):
    (tmp_path / "layer_preference").mkdir()
    return Results(tmp_path)


def put(results: Results, table: pd.DataFrame, name: str = "layer_preference/accuracy") -> Results:
    path = results.folder / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)
    return Results(results.folder)


def verdict_of(number: str, results: Results) -> str:
    return judge(next(claim for claim in CLAIMS if claim.n == number), results).verdict


SHORT = {
    "7": judges.ap_against_vp(vit=False),
    "11": judges.preference(vit=False),
    "12": judges.preference(vit=True),
    "13": judges.architecture,
    "27": judges.more_than_probe,
}
"""The judges of the older sweeps, whose numbers stand beside the campaign's."""


def short_verdict_of(number: str, results: Results) -> str:
    return SHORT[number](results).verdict


def test_the_page_is_what_its_tables_say():
    assert PAGE.read_text(encoding="utf-8") == page(Results(RESULTS))


def test_every_claim_of_the_fact_sheet_has_a_row():
    text = PAGE.read_text(encoding="utf-8")
    for number in range(1, 28):
        assert f"\n| {number} |" in text


def test_the_readme_prints_the_costs_of_the_tables():
    readme = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    results = Results(RESULTS)
    rows = results.steps().query("method == 'ap'")
    for _, pair in rows.groupby("network"):
        plain, kept = pair[~pair["kept"]].iloc[0], pair[pair["kept"]].iloc[0]
        said = (plain["measured_ratio"], plain["predicted_ratio"], kept["measured_ratio"])
        assert "| " + " | ".join(f"{value:.2f}" for value in said) + " |" in readme
    for name in ("cost/layer_sweep", "cost/layer_sweep_large"):
        said = results.table(name).set_index("network").loc["together"]
        assert "| " + " | ".join(f"{value:.2f}" for value in said) + " |" in readme


def test_the_readme_prints_the_regrets_of_the_table():
    readme = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    ways = Results(RESULTS).table("evidence/choice_summary").set_index(["data", "way"])
    for data, way, sentence in (
        ("campaign", "the middle", "the middle loses {regret:.1f} points [{low:.1f}, {high:.1f}]"),
        ("campaign", "a random place", "a random layer {regret:.1f}"),
        ("campaign", "5 places, one rate", "five layers {regret:.1f} [{low:.1f}, {high:.1f}]"),
        (
            "campaign",
            "all places and rates, 1 seed, pulled to the middle",
            "every layer and rate {regret:.1f} [{low:.1f}, {high:.1f}]",
        ),
        ("campaign", "the middle", "{luck:.1f} of each is only the luck"),
        (
            "both places",
            "read at the best probe, prompt halfway before it",
            "gains {better:.1f} points [{better_low:.1f}, {better_high:.1f}]",
        ),
    ):
        assert sentence.format(**ways.loc[(data, way)]) in readme, way


def test_make_paper_runs_every_analysis_that_a_claim_names():
    commands = [c for claim in CLAIMS for c in claim.experiment.command.split("; ")]
    named = {c.split()[2] for c in commands if c.startswith("python -m ") and "--assets" not in c}
    assert len(named) == 8
    assert named <= {step[1] for step in (*TRAINED, *JUDGED) if step[0] == "-m"}


def test_a_number_that_changes_changes_the_page(results):
    table = Results(RESULTS).table("evidence/pairs")
    first = page(put(results, table, "evidence/pairs"))
    table.loc[0, "ap_end"] += 0.01
    assert page(put(results, table, "evidence/pairs")) != first


def rising(*networks: str) -> dict[str, list[float]]:
    """A curve for each that rises with depth but for one swap, and the probe's place at the end."""
    curves = {}
    for swap, network in enumerate(networks):
        curve = [0.50, 0.53, 0.56, 0.59, 0.62, 0.65, 0.68, 0.71]
        curve[swap : swap + 2] = curve[swap : swap + 2][::-1] if swap else curve[:2]
        curves[network] = [*curve, 0.5]
    return curves


CNNS = ("resnet56", "mobilenetv2_035", "aptheory_resnet_mini")
VITS = ("vit_tiny_patch16_224", "aptheory_vit_mini", "aptheory_vit_gap_mini")


def falling(*networks: str) -> dict[str, list[float]]:
    return {name: [*curve[-2::-1], 0.5] for name, curve in rising(*networks).items()}


def test_depth_preference_is_judged_both_ways(results):
    as_claimed = put(results, accuracy(rising(*CNNS) | falling(*VITS)))
    assert short_verdict_of("11", as_claimed) == REPRODUCED
    assert short_verdict_of("12", as_claimed) == REPRODUCED
    reversed_ = put(results, accuracy(falling(*CNNS) | rising(*VITS)))
    assert short_verdict_of("11", reversed_) == NOT_REPRODUCED
    assert short_verdict_of("12", reversed_) == NOT_REPRODUCED
    too_few = put(results, accuracy(rising("resnet56")))
    assert short_verdict_of("11", too_few) == UNDECIDED


def test_gap_to_visual_prompting_needs_its_interval(results):
    table = put(results, accuracy({"resnet56": [0.5, 0.6, 0.7, 0.6, 0.5]}))
    assert short_verdict_of("7", table) == REPRODUCED
    flat = put(results, accuracy({"resnet56": [0.5, 0.5, 0.5, 0.5, 0.5]}))
    assert short_verdict_of("7", flat) in (UNDECIDED, NOT_REPRODUCED)


def test_random_networks_do_not_count(results):
    random = {f"{name} (random)": curve for name, curve in falling(*CNNS).items()}
    table = accuracy(rising(*CNNS) | random)
    assert short_verdict_of("11", put(results, table)) == REPRODUCED


def test_a_claim_without_its_table_is_not_run(results):
    assert verdict_of("7", results) == NOT_RUN


def test_gap_pairs_by_seed_and_averages_seeds_before_its_interval():
    a = pd.DataFrame({"network": "n", "task": ["s", "s", "t", "t"], "seed": [0, 1, 0, 1]})
    b = a.assign(value=[0.5, 0.7, 0.4, 0.2])
    a = a.assign(value=[0.6, 0.8, 0.6, 0.4])
    found = evidence.gap(a, b, "a − b")
    assert found.value == pytest.approx(15)
    assert (found.n, found.unit) == (2, "tasks")


def test_the_chosen_layer_never_sees_the_test_split():
    table = accuracy({"resnet56": [0.5, 0.6, 0.7]}, seeds=1)
    cheat = (
        (table["measure"] == "test_accuracy") & (table["layer"] == 0) & (table["method"] == "ap")
    )
    table.loc[cheat, "value"] = 1.0
    assert (evidence.chosen(table)["layer"] == 2).all()


@pytest.mark.parametrize("claim", ["7", "27"])
def test_networks_are_the_units_of_a_gain(claim, results):
    """One network that gains and one that does not decide nothing, however often each was run."""
    gains, loses = [0.4, 0.5, 0.7, 0.6, 0.5], [0.49, 0.45, 0.4, 0.35, 0.3]
    one_way = accuracy({"resnet56": gains, "mobilenetv2_035": gains})
    probes = one_way.query("method == 'ap'").assign(method="layer_probe", value=0.3)
    assert short_verdict_of(claim, put(results, pd.concat([one_way, probes]))) == REPRODUCED
    mixed = accuracy({"resnet56": gains, "mobilenetv2_035": loses})
    probes = mixed.query("method == 'ap'").assign(method="layer_probe", value=0.3)
    assert short_verdict_of(claim, put(results, pd.concat([mixed, probes]))) == UNDECIDED


def test_the_share_of_variance_between_networks_is_that_of_analysis_of_variance():
    depths = pd.DataFrame({"network": list("aabbcc"), "depth": [0.1, 0.2, 0.5, 0.6, 0.8, 0.9]})
    ratio = stats.f_oneway(*(g["depth"] for _, g in depths.groupby("network"))).statistic
    share = evidence.share_between_networks(depths)
    assert share.value == pytest.approx((ratio - 1) / (ratio + 1))
    assert share.low < share.value < share.high <= 1


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ({"a": [0, 0, 0, 0], "b": [6, 6, 6, 5], "c": [3, 3, 3, 3], "d": [8, 8, 8, 8]}, REPRODUCED),
        ({name: [0, 3, 6, 9] * 2 for name in "abcd"}, NOT_REPRODUCED),
        ({"a": [0, 3], "b": [6, 2]}, UNDECIDED),
    ],
)
def test_the_architecture_is_judged_by_its_share_of_the_variance(best, expected, results):
    rows = [
        (network, str(task), layer, "ap", 0, measure, float(layer == layers[task]))
        for network, layers in best.items()
        for task in range(len(layers))
        for layer in range(11)
        for measure in ("val_accuracy", "test_accuracy")
    ]
    columns = ["network", "task", "layer", "method", "seed", "measure", "value"]
    assert short_verdict_of("13", put(results, pd.DataFrame(rows, columns=columns))) == expected


def test_similarity_is_judged_per_task(results):
    """On one task the deep layers match the middle, on the other the end: half of the claim."""
    rows = [
        ("resnet56", task, i, "vit_tiny_patch16_224", j, -abs(j - match))
        for task, match in (("a", 5), ("b", 10))
        for i in range(7)
        for j in range(11)
    ]
    columns = ["network", "task", "layer", "other_network", "other_layer", "value"]
    table = pd.DataFrame(rows, columns=columns)
    assert verdict_of("14", put(results, table, "cka_between/cka")) == PARTLY
    assert verdict_of("14", put(results, table.query("task == 'a'"), "cka_between/cka")) == (
        REPRODUCED
    )


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ({"a": [5, 4, 3, 2, 1], "b": [9, 7, 5, 3, 4]}, REPRODUCED),
        ({"a": [1, 2, 3, 4, 5], "b": [3, 2, 3, 3, 2]}, NOT_REPRODUCED),
        ({"a": [1, 2, 3, 4, 5], "b": [5, 4, 3, 2, 1]}, PARTLY),
        ({"a": [3, 2, 3, 3, 2]}, UNDECIDED),
    ],
)
def test_attention_distance_is_judged_network_by_network(curves, expected, results):
    rows = [
        (network, "a", layer, "attention_distance", value)
        for network, curve in curves.items()
        for layer, value in enumerate(curve)
    ]
    columns = ["network", "task", "layer", "measure", "value"]
    table = pd.DataFrame(rows, columns=columns)
    assert verdict_of("15", put(results, table, "layer_preference/profile")) == expected


@pytest.mark.parametrize(
    ("time", "memory", "expected"),
    [(0.5, 0.5, REPRODUCED), (0.5, 2.0, NOT_REPRODUCED), (0.9, 0.5, NOT_REPRODUCED)],
)
def test_cheaper_means_in_time_and_in_memory(time, memory, expected, results):
    row = {"kind": "cnn", "network": "resnet50", "method": "ap", "predicted_ratio": 0.6}
    row |= {"measured_ratio": time, "measured_ratio_low": time, "measured_ratio_high": time}
    table = pd.DataFrame([row | {"memory_ratio": memory, "kept": kept} for kept in (False, True)])
    assert verdict_of("19", put(results, table, "cost/steps")) == expected


def test_what_these_runs_cannot_decide_is_not_judged():
    results = Results(RESULTS)
    undecided = ("7", "8", "9", "10", "11", "12", "13", "23", "25", "26", "27", "V5")
    for number in undecided:
        finding = judge(next(claim for claim in CLAIMS if claim.n == number), results)
        assert finding.verdict == NOT_WITH_THESE
        assert finding.why


def test_every_figure_of_the_page_is_there():
    text = PAGE.read_text(encoding="utf-8")
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(figures) == len(set(figures)) > 8
    assert all((PAGE.parent / figure).is_file() for figure in figures)
