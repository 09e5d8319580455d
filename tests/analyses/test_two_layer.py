"""The experiment on floors and rates, on five steps of tiny networks."""

import pandas as pd
import pytest

from analyses import theory_verdicts, two_layer
from analyses import two_layer_findings as found
from tests.figures.figure_tables import write


def test_the_experiment_writes_one_row_a_place_and_repetition_and_resumes(tmp_path, monkeypatch):
    form = two_layer.Form(
        tokens=(8,), sizes=(2, 8, 64), rates=(0.04,), repetitions=2, steps=5,
        models=("softmax, linear",), prompts=("shared",), wide=8, local=1.0, fractions_at=(8,),
        ranges=(1.5,), listening=(1.5,), trained=0, widths=(3,),
    )  # fmt: skip
    monkeypatch.setitem(two_layer.FORMS, "short", form)
    chosen = [
        next(setting for setting in two_layer.settings(form) if setting.question == question)
        for question in ("floor and rate", "ranges", "cnn")
    ]
    monkeypatch.setattr(two_layer, "settings", lambda form: iter(chosen))
    table = two_layer.main(tmp_path)
    assert (table.groupby([*list(table.columns[:9]), "place"]).size() == 2).all()
    assert table[["n2", "n8", "n64"]].to_numpy().max() <= two_layer.TEST_SAMPLES
    monkeypatch.setattr(two_layer, "measure", None)  # nothing is measured a second time
    pd.testing.assert_frame_equal(two_layer.main(tmp_path), table)
    (next((tmp_path / "parts").iterdir())).unlink()
    assert len(two_layer.main(tmp_path, minutes=-1)) < len(table)


def test_every_setting_of_every_form_can_be_built():
    for form in two_layer.FORMS.values():
        every = list(two_layer.settings(form))
        assert {setting.question for setting in every} >= {"floor and rate", "kinds", "cnn"}
        for setting in every:
            if setting.model != "trained":
                assert setting.build().places[-2:] == ("layer 1", "layer 2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Tables in which layer 1 errs less by 10 points wherever it alone is global."""
    return write(tmp_path_factory.mktemp("tables")) / "theory"


def test_planted_floors_rates_and_turns_come_back(runs):
    table = theory_verdicts.two_layers(runs)
    for (_, _, _), each in found.by_tokens(table):
        for one in each:
            assert one.verdict == "layer 1"
            assert one.advantage == pytest.approx((9.85, 9.7, 10.0), abs=0.15)
            assert one.floors[0][0] == pytest.approx(0.3)
            assert one.doublings == (0.0, 0.0, 0.0)  # one excess above two floors
        grown = found.growth(each, [one.labels["tokens"] for one in each])
        assert grown.difference == pytest.approx((0.0, 0.0, 0.0))
    assert set(found.flips(table)["turn"]) == {"reversal"}
    dose = found.dose(table).set_index(["range_1", "range_2"])["advantage"]
    assert dose[8, 1] > 9 > dose[8, 8] > dose[1, 8]
    assert found.rank_interval(*found.mechanism(table)[["more", "advantage"]].to_numpy().T)[1] > 0
    assert found.floor_words((0.0, 0.0, 0.0)) == "no error in any repetition (at most 0.3 %)"


def test_what_the_full_form_lacks_the_others_answer(runs):
    table = theory_verdicts.two_layers(runs)
    full = table[table["question"] == "floor and rate"].drop(columns="n2").assign(n3=500)
    middle = pd.concat([full, full.assign(prompt="token")]).assign(n6=400)
    both = found.joined({"short": table, "full": full, "middle": middle})
    forms = both.groupby(["question", "prompt"])["form"].unique().map(list)
    assert forms.pop(("floor and rate", "shared")) == ["full"]
    assert forms.pop(("floor and rate", "token")) == ["middle"]
    assert set(forms.explode()) == {"short"}
    assert len(both) == len(table) + len(full)
    one = next(each for _, each in found.by_tokens(both))[0]
    assert sorted(one.curves[0].sizes) == [3, 8, 32, 128, 4096]  # other forms' sizes left out
    assert found.joined({"short": table})["form"].eq("short").all()


def test_verdicts_follow_from_the_tables(runs):
    number, judged, why = theory_verdicts.shallow_needs_fewer(runs)
    assert judged == "partly reproduced"  # a lower floor everywhere, no steeper growth anywhere
    assert "lower floor (N → ∞) in 3, the higher in 0" in why
    assert "reversal 2" in why
    assert "1/P discriminative" in number
    number, judged, _ = theory_verdicts.removes_the_nuisance(runs)
    assert judged == "reproduced"
    assert "convolutions (5 settings)" in number
    _, judged, why = theory_verdicts.steps_grow(runs)
    assert judged == "reproduced"  # planted: T = P / η for shared prompts too
    assert "identity" in why
