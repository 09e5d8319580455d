"""Claim V4: its judge on planted tables, and its experiment on a tiny network."""

import pandas as pd
import pytest

from analyses import few_pictures, token_count
from tests.quarters import small_task, small_vit


def planted(folder, gaps, draws=4, spread=1.0):
    """VPT at 10 %, VAPT ``gap`` points above it at each p, less and more by turns."""
    rows = [
        {"method": method, "tokens": tokens, "seed": seed, "classes": 10}
        | {"test_accuracy": 0.1 + (method == "VAPT") * (gap + spread * (-1) ** seed) / 100}
        for tokens, gap in gaps.items()
        for method in ("VPT", "VAPT")
        for seed in range(draws)
    ]
    (folder / "token_count").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "token_count" / "token_count.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("gaps", "settings", "verdict"),
    [
        ({5: 2.0, 50: 50.0}, {}, "reproduced"),
        ({5: 5.0, 50: 8.0}, {}, "partly reproduced"),
        ({5: 0.0, 50: -3.0}, {}, "not reproduced"),
        ({5: 10.0, 50: 18.0}, {"spread": 30.0}, "undecided"),
        ({5: 50.0, 50: 50.0}, {"draws": 2}, "undecided"),  # too few
    ],
)
def test_the_verdict_follows_from_the_gap(tmp_path, gaps, settings, verdict):
    number, judged, why = few_pictures.few_pictures(planted(tmp_path, gaps, **settings))
    assert judged == verdict
    assert f"VAPT − VPT {gaps[50]:.1f} [" in number
    assert "published: 56.5" in why


def test_without_the_published_setting_nothing_is_judged(tmp_path):
    (tmp_path / "low_data").mkdir()
    pd.DataFrame(
        {"task": "digits", "method": method, "seed": seed, "images_a_class": 1, "fraction": 0.01}
        | {"measure": "test_accuracy", "value": value + 0.01 * seed}
        for method, value in (("VPT", 0.2), ("VAPT", 0.21), ("AP", 0.2), ("linear probe", 0.2))
        for seed in range(3)
    ).to_csv(tmp_path / "low_data" / "low_data.csv", index=False)
    number, judged, why = few_pictures.few_pictures(tmp_path)
    assert (number, judged) == (few_pictures.little_data(tmp_path), "not testable with these runs")
    assert "20 optimiser steps" in why
    planted(tmp_path, {5: 50.0})
    assert "our small ViT, AdamW: digits" in few_pictures.few_pictures(tmp_path)[0]


def test_the_experiment_trains_both_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(token_count, "load_network", lambda name, assets: small_vit())
    monkeypatch.setattr(token_count, "load_task", lambda name, seed, assets: small_task())
    plan = token_count.Plan(
        draws={1: 2}, rates=(2.5, 0.25), epochs=2, validation=8, test=8, tokens=(1,), starts=1
    )
    table = token_count.main(tmp_path, tmp_path, plan=plan)
    assert table.groupby(["tokens", "method"]).size().to_dict() == {
        (1, "VAPT"): 2, (1, "VPT"): 2,
    }  # fmt: skip
    assert set(table["lr"]) <= {2.5, 0.25}
    start = pd.read_csv(tmp_path / "untrained.csv")
    assert list(start["method"]) == ["no prompt", "VPT", "VAPT"]
    monkeypatch.setattr(token_count, "one_draw", None)  # nothing is trained a second time
    pd.testing.assert_frame_equal(token_count.main(tmp_path, tmp_path, plan=plan), table)
