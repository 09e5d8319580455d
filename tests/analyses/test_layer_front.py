"""Ways of choosing a layer, judged on made-up curves: what is planted must come out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses import choice_section
from analyses.choice_curves import Curve, over_draws, unlike, with_other_draws
from analyses.choice_scores import expected
from analyses.choice_ways import Free, Way, by_prior, learnt, race, spread, trials, ways
from analyses.layer_front import BASELINES, judged, summarise
from analyses.results import Results

PLACES, RATES = 9, 4


def made_up(network: str, task: str, *, best: float, noise: float = 0.0, seed: int = 0) -> Curve:
    """Best at one depth; the largest rate's validation sees it, the others see nothing."""
    generator = np.random.default_rng(seed)
    depth = np.arange(PLACES) / PLACES
    test = 60 - 20 * np.abs(depth - best)
    validation = np.full((PLACES, RATES, 1), 50.0)
    validation[:, -1, 0] = test + noise * generator.normal(size=PLACES)
    return Curve(
        network=network,
        task=task,
        kind="cnn" if network < "n2" else "vit",
        last=PLACES,
        layers=np.arange(PLACES),
        rates=(1e-3, 3e-3, 1e-2, 3e-2),
        validation=validation,
        loss=np.ones((PLACES, RATES, 1)),
        test=test,
        prices=np.arange(PLACES, 0, -1.0),
        papers_place=7,
        correct=(generator.random((PLACES, 400)) < test[:, None] / 100).astype(float),
        probe=55.0,
    )


def curves(noise: float = 0.0) -> list[Curve]:
    return [
        made_up(f"n{n}", f"t{t}", best=0.2 + 0.1 * t, noise=noise, seed=10 * n + t)
        for n in range(4)
        for t in range(4)
    ]


def test_a_place_is_worth_the_mean_of_the_draws_and_chosen_on_each():
    first, second = (made_up("n0", "t0", best=best, seed=int(10 * best)) for best in (0.2, 0.6))
    second = replace(second, draw=1, probe=45.0)
    alone = made_up("n0", "t1", best=0.2)
    found = over_draws([first, alone, second])
    assert [one.draw for one in found] == [0, 0, 1]
    both = (first.correct + second.correct) / 2
    for one, validated in zip(found[::2], (first, second), strict=True):
        np.testing.assert_allclose(one.test, 100 * both.mean(1))
        np.testing.assert_array_equal(one.validation, validated.validation)
        assert one.probe == 50
    np.testing.assert_allclose(found[1].test, 100 * alone.correct.mean(1))


def test_both_draws_are_two_seeds_of_one_curve():
    first = made_up("n0", "t0", best=0.2)
    second = replace(made_up("n0", "t0", best=0.6), draw=1)
    alone = made_up("n1", "t0", best=0.2)
    (both,) = with_other_draws([second, alone, first])
    assert both.draw == 0
    np.testing.assert_array_equal(both.validation[..., 0], first.validation[..., 0])
    np.testing.assert_array_equal(both.validation[..., 1], second.validation[..., 0])
    assert both.loss.shape == both.validation.shape


def test_draws_of_a_pair_are_one_pair_and_its_gain_is_paired_by_draw():
    several = [replace(one, draw=draw) for one in curves() for draw in (0, 1)]
    some = [way for way in ways(RATES, 1) if way.name in ("the middle", "5 places, one rate")]
    summary = summarise(judged(several, some, "campaign")).set_index("way")
    assert summary["pairs"].tolist() == [16, 16]
    once = summarise(judged(curves(), some, "campaign")).set_index("way")
    for column in ("regret", "better", "better_low"):
        assert summary[column].to_dict() == pytest.approx(once[column].to_dict(), nan_ok=True)


def test_a_clean_validation_finds_the_place_and_its_rate_is_learnt_elsewhere():
    found = curves()
    way = Way("one", trials, tuple(Free((rate,)) for rate in range(RATES)))
    for curve, (free, (preference, bought)) in zip(found, learnt(way, found), strict=True):
        assert free.rates == (RATES - 1,)
        assert curve.regret(preference) == pytest.approx(0)
        assert bought.sum() == PLACES
        assert curve.cost(bought) == pytest.approx(1 / 12)


def test_what_a_way_learns_does_not_feel_the_networks_and_tasks_that_it_is_judged_on():
    found = curves(noise=2.0)
    way = Way("pulled", trials, tuple(Free((RATES - 1,), pull) for pull in (0.0, 4.0, 40.0)))
    before = learnt(way, found)[0][0]
    spoilt = [
        made_up(c.network, c.task, best=0.9, noise=9.0, seed=k)
        if c.network == "n0" or c.task == "t0"
        else c
        for k, c in enumerate(found)
    ]
    assert learnt(way, spoilt)[0][0] == before


def scored(curve: Curve, *, sign: float, shift: float, seed: int) -> Curve:
    """With scores: the shift, one that says nothing, and one that says all, with a sign."""
    noise = np.random.default_rng(seed).normal(size=PLACES)
    scores = np.column_stack([np.full(PLACES, shift), noise, sign * curve.test])
    return replace(curve, scores=scores)


def test_scores_are_read_as_other_pairs_teach_it_and_the_shift_turns_their_sign():
    """Near tasks (small shift) want the place of the highest score, far ones that of the lowest."""
    near = {"t0", "t1"}
    found = [
        scored(
            c, sign=1.0 if c.task in near else -1.0, shift=0.1 if c.task in near else 0.9, seed=k
        )
        for k, c in enumerate(curves())
    ]
    lost = {}
    for by_shift in (False, True):
        way = Way("scores", by_prior, prior=expected(by_shift))
        judgements = [judged for _, judged in learnt(way, found)]
        assert not any(bought.any() for _, bought in judgements)
        lost[by_shift] = [c.regret(p) for c, (p, _) in zip(found, judgements, strict=True)]
    assert max(lost[True]) == pytest.approx(0)
    assert np.mean(lost[False]) > 2
    spoilt = [
        replace(c, test=c.test[::-1].copy()) if c.network == "n0" or c.task == "t0" else c
        for c in found
    ]
    prior = expected(True)
    first = [unlike(spoilt[0], among) for among in (found, spoilt)]
    np.testing.assert_array_equal(prior(found[0], first[0]), prior(found[0], first[1]))


def test_places_are_spread_inside_and_cost_what_they_cost():
    curve = made_up("n0", "t0", best=0.5)
    assert spread(curve, 2).tolist() == [3, 6]
    preference, bought = trials(curve, Free((0,)), np.zeros(PLACES), places=2)
    assert np.isinf(preference).sum() == PLACES - 2
    assert curve.cost(bought) == pytest.approx((6 + 3) / (45 * 12))
    steadied, _ = trials(curve, Free((0,)), np.zeros(PLACES), neighbours=True)
    alone, _ = trials(curve, Free((0,)), np.zeros(PLACES))
    assert steadied[0] == pytest.approx(alone[:2].mean())
    assert steadied[4] == pytest.approx(alone[3:6].mean())
    _, raced = race(curve, Free((RATES - 1,)), np.zeros(PLACES))
    assert raced.sum() == PLACES + 3 * (RATES - 1)


def test_regret_is_what_is_lost_and_luck_is_no_fault_of_the_choice():
    curve = made_up("n0", "t0", best=0.5)
    middle = -curve.off_centre
    assert curve.regret(middle) == pytest.approx(curve.test.max() - curve.test[[4, 5]].mean())
    flat = made_up("n0", "t0", best=0.5)
    object.__setattr__(flat, "test", 100 * flat.correct.mean(1))
    assert 0 < flat.luck < 5
    assert flat.fresh_regret(flat.test) < flat.regret(-flat.test)
    assert curve.probe_is_better(curve.test) == 0.0
    assert curve.probe_is_better(-curve.test) == 1.0


def test_the_summary_and_the_page_say_what_was_planted(tmp_path):
    found = curves()
    table = judged(found, ways(RATES, 1), "campaign")
    older = table.assign(data="older sweeps")
    summary = summarise(pd.concat([table, older]))
    rows = summary[summary["data"] == "campaign"].set_index("way")
    assert rows.loc["all places, one rate", "regret"] == pytest.approx(0)
    assert rows.loc["the middle", "cost"] == 0
    assert rows.loc["all places and rates, 1 seed", "cost"] == pytest.approx(1 / 3)
    assert rows.loc["all places, one rate", "better"] == pytest.approx(
        rows.loc[BASELINES["campaign"], "regret"]
    )
    (tmp_path / "evidence").mkdir()
    assert choice_section.section(Results(tmp_path)) == ""
    summary.to_csv(tmp_path / "evidence" / "choice_summary.csv", index=False)
    said = choice_section.section(Results(tmp_path))
    assert "Goal of 0.5 points at 10%: campaign: reached" in said
    assert "| the image (VP) | 0 % |" in said
