"""The experiment on floors and rates, on five steps of tiny networks."""

import pandas as pd

from analyses import two_layer


def test_the_experiment_writes_one_row_a_place_and_repetition_and_resumes(tmp_path, monkeypatch):
    form = two_layer.Form(
        tokens=(8,), sizes=(2, 8, 64), rates=(0.04,), repetitions=2, steps=5,
        models=("softmax, linear",), prompts=("shared",), wide=8, fractions_at=(8,),
        ranges=(1.5,), listening=(1.5,), trained=0, widths=(3,),
    )  # fmt: skip
    monkeypatch.setattr(two_layer, "SHORT", form)
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


def test_every_setting_of_both_forms_can_be_built():
    for form in (two_layer.SHORT, two_layer.FULL):
        every = list(two_layer.settings(form))
        assert {setting.question for setting in every} >= {"floor and rate", "kinds", "cnn"}
        for setting in every:
            if setting.model != "trained":
                assert setting.build().places[-2:] == ("layer 1", "layer 2")
