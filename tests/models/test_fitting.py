"""How a model's places are chosen where its user does not name them."""

import logging

import pytest
from PIL import Image
from typer.testing import CliRunner

import aptheory as ap
from aptheory.choosing.places import recommend_places
from aptheory.cli import app
from aptheory.errors import InputError
from aptheory.models.fitting import choose_method

RECIPE = ap.Recipe(epochs=1)


@pytest.fixture(scope="module")
def pair():
    return ap.load("aptheory_resnet_mini"), ap.task("digits").subset(train=40, val=20, test=20)


def test_a_model_outlives_its_test_pictures(tmp_path, caplog):
    """They are read last; what was trained is not lost with them."""
    for split in ("train", "val", "test"):
        for name, ink in (("dark", 30), ("light", 220)):
            for number in range(3):
                path = tmp_path / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (ink + number,) * 3).save(path)
    arguments = ["aptheory_resnet_mini", "-t", f"folder:{tmp_path}", "-m", "linear_probe"]
    file = tmp_path / "model.safetensors"
    gone = tmp_path / "test" / "dark" / "0.png"

    def vanish(record):
        if "epoch 2 of 2" in record.getMessage():
            gone.unlink()
        return True

    log = logging.getLogger("aptheory")
    log.addFilter(vanish)
    try:
        result = CliRunner().invoke(app, ["fit", *arguments, "--epochs", "2", "--out", str(file)])
    finally:
        log.removeFilter(vanish)
    assert result.exit_code == 1
    assert f"trained, but not tested: {gone} cannot be read" in result.stderr
    scores = ap.load_model(file).card.scores
    assert "val_accuracy" in scores
    assert "test_accuracy" not in scores


@pytest.mark.slow
def test_both_places_are_those_that_validation_chooses(pair):
    net, task = pair
    options = {"read": "best", "recipe": RECIPE, "seed": 0}
    method, how = choose_method(net, task, "ap", None, **options)
    assert method == recommend_places(net, task, recipe=RECIPE).cell.method(net)
    assert "validation" in how
    with pytest.raises(InputError, match="give method='ap' without settings"):
        choose_method(net, task, "ap:shape=channel", None, **options)
    with pytest.raises(InputError, match="leave layer out"):
        choose_method(net, task, "ap", 3, **options)
