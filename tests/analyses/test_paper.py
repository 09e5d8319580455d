"""paper_repro.md is what its tables say, and the judges can tell a claim that fails."""

import numpy as np
import pandas as pd
import pytest

from analyses import evidence
from analyses.claims import CLAIMS, NOT_RUN, judge
from analyses.judges import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from analyses.paper import PAGE, RESULTS, STEPS, page
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


def put(results: Results, table: pd.DataFrame) -> Results:
    table.to_csv(results.folder / "layer_preference" / "accuracy.csv", index=False)
    return Results(results.folder)


def verdict_of(number: str, results: Results) -> str:
    return judge(next(claim for claim in CLAIMS if claim.n == number), results).verdict


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
    ways = Results(RESULTS).table("layer_choice/summary").set_index("way")
    for way, said in (
        ("rule", "loses {regret:.1f} accuracy points [{low:.1f}, {high:.1f}]"),
        ("best on validation (the sweep)", "chooses by validation loses {regret:.1f}"),
        ("paper's place", "the papers' fixed places {regret:.1f}"),
        ("random layer", "a random layer {regret:.1f}"),
        ("middle layer", "taking the middle layer loses {regret:.1f}"),
        ("successive halving, 2%", "loses {regret:.1f} for 2 % of a sweep"),
        ("successive halving, 10%", "and {regret:.1f} for 10 %"),
        ("rule, then trials, 10%", "the loss is {regret:.1f} [{low:.1f}, {high:.1f}]"),
    ):
        assert said.format(**ways.loc[way]) in readme, way


def test_make_paper_runs_every_analysis_that_a_claim_names():
    commands = [c for claim in CLAIMS for c in claim.experiment.command.split("; ")]
    named = {c.split()[2] for c in commands if c.startswith("python -m ") and "--assets" not in c}
    assert len(named) > 8
    assert named <= {step[1] for step in STEPS if step[0] == "-m"}


def test_a_number_that_changes_changes_the_page(results):
    rising = put(results, accuracy({"resnet": [0.5, 0.6, 0.7, 0.8, 0.5]}))
    first = page(rising)
    falling = put(results, accuracy({"resnet": [0.8, 0.7, 0.6, 0.5, 0.5]}))
    assert page(falling) != first


def test_depth_preference_is_judged_both_ways(results):
    rising, falling = [0.5, 0.6, 0.7, 0.8, 0.5], [0.8, 0.7, 0.6, 0.5, 0.5]
    as_claimed = put(results, accuracy({"resnet": rising, "vit": falling}))
    assert verdict_of("11", as_claimed) == REPRODUCED
    assert verdict_of("12", as_claimed) == REPRODUCED
    reversed_ = put(results, accuracy({"resnet": falling, "vit": rising}))
    assert verdict_of("11", reversed_) == NOT_REPRODUCED
    assert verdict_of("12", reversed_) == NOT_REPRODUCED


def test_gap_to_visual_prompting_needs_its_interval(results):
    table = put(results, accuracy({"resnet": [0.5, 0.6, 0.7, 0.6, 0.5]}))
    assert verdict_of("7", table) == REPRODUCED
    flat = put(results, accuracy({"resnet": [0.5, 0.5, 0.5, 0.5, 0.5]}))
    assert verdict_of("7", flat) in (UNDECIDED, NOT_REPRODUCED)


def test_random_networks_do_not_count(results):
    table = accuracy(
        {"resnet": [0.5, 0.6, 0.7, 0.8, 0.5], "resnet (random)": [0.9, 0.5, 0.4, 0.3, 0.2]}
    )
    assert verdict_of("11", put(results, table)) == REPRODUCED


def test_a_claim_without_its_table_is_not_run(results):
    assert verdict_of("7", results) == NOT_RUN


def test_gap_pairs_by_seed_and_averages_seeds_before_its_interval():
    a = pd.DataFrame({"network": "n", "task": ["s", "s", "t", "t"], "seed": [0, 1, 0, 1]})
    b = a.assign(value=[0.5, 0.7, 0.4, 0.2])
    a = a.assign(value=[0.6, 0.8, 0.6, 0.4])
    found = evidence.gap(a, b, "a − b")
    assert found.value == pytest.approx(15)
    assert found.count == 2


def test_the_chosen_layer_never_sees_the_test_split():
    table = accuracy({"n": [0.5, 0.6, 0.7]}, seeds=1)
    cheat = (
        (table["measure"] == "test_accuracy") & (table["layer"] == 0) & (table["method"] == "ap")
    )
    table.loc[cheat, "value"] = 1.0
    assert (evidence.chosen(table)["layer"] == 2).all()
