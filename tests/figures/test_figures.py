"""Every figure says what was planted in its table, and one without a table is passed over."""

from importlib import import_module

import matplotlib.pyplot as plt
import pytest

from analyses.claims import CLAIMS
from analyses.results import Results
from aptheory.reporting import plots
from figures.__main__ import FIGURES, draw_all
from tests.figures.figure_tables import write

PLANTED = {
    "where_to_read": "+3.0 points [-9.7, +15.7] over the best layer's probe",
    "law_of_the_layer": "CNNs +0.50",
    "shift_law": "slope over depth -0.99",
    "norm_and_prompt": "more than the prompt at any place on 2 of 2 networks",
    "campaign_methods": "has 5.0 points [2.5, 7.5] on all norms, and at the middle place",
    "more_pictures": "by: gtsrb32 +6.2 [+5.5, +7.0], fer7 +6.2 [+5.5, +7.0], cifar10_jpeg",
    "dialled": "towards the image in 6 of 6 cases and away in 0; gains change by",
    "norm_cost": "takes 1.20 times that of γ and β (quartiles 1.20 and 1.20 over places)",
    "norm_shares": "miss 80% to 80% of a full prompt, and 10% to 10%",
    "pretraining_seeds": "100 % and 100 % lies between tasks, 0 % and 0 % between pretraining",
    "norm_part_by_layer": "what γ and β imitate of it 2.0 points [-10.7, 14.7]",
    "layer_preference": "CNNs 0.71 (no spread: the 2 tasks agree",
    "accuracy_by_layer": "A prompt gains over the linear probe in 4 of 4 cases",
    "cka_within": "ResNet-mini 0.88 and 0.12",
    "cka_between": "ResNet-mini matches ViT-mini at 0.43",
    "attention_distance": "attention distance with depth: ViT-mini +1.00",
    "cost": "0.60 (ResNet-50), 0.90 (ViT-Small)",
    "method_comparison": "2 of 3 on ResNet-56, 2 of 3 on ResNet-mini, 2 of 3 on ViT-mini",
    "low_data": "With 1 image a class: VAPT − VPT +10.0",
    "prompt_views": "ViT-mini: maps agree at 1.00, accuracy 50 to 75 %",
    "relation": "of 2 metrics correlate clearly",
    "planted": "by validation: random 1 of 2 at size 0.5, 2 of 2 at size 1",
    "layer_choice": "rule 0.5 [0.1, 0.9], paper's place 2.0 [1.0, 3.0], random layer 3.0 [2.0",
    "layer_front": "Older sweeps: 1.00 by the best way, 1.50 by the middle, told apart",
    "predicted_curves": "over 4 pairs, median R² 1.00",
    "predicted_campaign": "rank correlation: all +0.99",
    "token_prompts": "layer 1 in 3, layer 2 in 0; a prompt a token: layer 1 in 0, layer 2 in 3",
    "token_count": "from 70 % to 30 % (VPT) and 60 % (VAPT) VAPT − VPT",
    "flip_test": "a reversal in 2 of 2 networks (0 without",
    "sample_complexity": "layer 1 errs less than layer 2 in 3 of 3 settings",
    "steps_to_zero_error": "token prompt P^1.0 to P^1.0",
    "experts_rate": "constant 0.00 to 0.00; exact -0.50 to -0.50",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("results"), token_prompts=True)


def test_every_figure_is_in_the_list_of_planted_findings():
    assert set(FIGURES) == set(PLANTED)


@pytest.mark.parametrize("name", FIGURES)
def test_the_title_says_the_planted_finding_and_nothing_leaves_the_page(folder, name):
    sheet = import_module(f"figures.{name}").draw(Results(folder))
    said = sheet.get_suptitle().replace("\n", " ").replace("\u00a0", " ").replace("  ", " ")
    assert PLANTED[name] in said
    sheet.canvas.draw()  # in inches
    drawn, (width, height) = sheet.get_tightbbox(), sheet.get_size_inches()
    assert width <= plots.PAGE
    assert (drawn.x0, drawn.y0) >= (-0.03, -0.03)
    assert drawn.x1 <= width + 0.03
    assert drawn.y1 <= height + 0.03
    plt.close("all")


def test_a_figure_is_written_twice_and_one_without_a_table_is_passed_over(tmp_path, capsys):
    folder = write(tmp_path)
    (folder / "layer_choice" / "summary.csv").unlink()
    written = draw_all(folder, folder / "figures", ["cost", "layer_choice"])
    assert [path.name for path in written] == ["cost.pdf", "cost.png"]
    assert all(path.stat().st_size > 1000 for path in written)
    said = capsys.readouterr().out
    assert "layer_choice: not drawn" in said
    assert "python -m analyses.layer_choice" in said
    assert not plt.get_fignums()


def test_every_figure_that_a_claim_names_is_drawn_here():
    assert {claim.experiment.figure for claim in CLAIMS if claim.experiment.figure} <= set(FIGURES)
