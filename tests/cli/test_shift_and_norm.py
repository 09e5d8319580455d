"""The verbs about the shift from the pretraining, and about prompts and norms."""

import pandas as pd
import pytest

from tests.cli.test_verbs import NETWORK, TASK, done, refused


def test_the_shift_is_printed_layer_by_layer_and_needs_moments_or_a_reference(tmp_path):
    said = done("shift", NETWORK, *TASK, "--images", 20, "--out", tmp_path)
    assert "BatchNorm's running moments" in said
    table = pd.read_csv(tmp_path / "shift.csv")
    assert set(table["measure"]) == {"moment_shift"}
    assert (table["value"] > 0).all()
    assert len(said.splitlines()) == len(table) + 2
    vit = "aptheory_vit_mini"
    assert "has no BatchNorm" in refused("shift", vit, *TASK, "--images", 20)
    against = done("shift", vit, *TASK, "--images", 20, "--reference", "digits")
    assert "the images of digits" in against


@pytest.mark.slow
def test_prompts_and_norms_are_compared_with_one_command(tmp_path):
    words = ["--layers", "3,7", "--epochs", 1, "--lr", 0.01, "--out", tmp_path]
    said = done("compare-norm", NETWORK, *TASK, *words)
    assert "imitate plus" in said
    table = pd.read_csv(tmp_path / "table.csv")
    assert {"prompt", "prompt, channels", "all beta", "all norms"} <= set(table["method"])
    assert len(pd.read_csv(tmp_path / "parts.csv")) == 4
    assert (tmp_path / "backwards.csv").is_file()
