"""The zoo: registration, packaged weights, the upstream generator, and the training script."""

import json
import math
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open

import aptheory.networks.zoo as zoo
from aptheory.errors import InputError
from aptheory.networks.zoo import models
from weights import evaluate, train, upstream
from weights.shapes import SHAPES, segments
from weights.textures import TEXTURES, draw_textures

ALL = zoo.NAMES
PACKAGED = zoo.names()
DEFAULTS = ("aptheory_vit_mini", "aptheory_resnet_mini")


def _blocks(network: torch.nn.Module) -> int:
    kinds = ("Block", "BasicBlock", "ConvNeXtBlock")
    return sum(type(module).__name__ in kinds for module in network.modules())


def test_the_two_defaults_are_packaged() -> None:
    assert set(DEFAULTS) <= set(PACKAGED)


@pytest.mark.parametrize("name", ALL)
def test_registered_with_timm_for_small_images(name: str) -> None:
    network = timm.create_model(name, num_classes=7).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert timm.data.resolve_model_data_config(network)["input_size"] == (3, 32, 32)
    assert name in timm.list_models("aptheory_*")


def test_defaults_are_what_the_issue_asks() -> None:
    vit = timm.create_model("aptheory_vit_mini")
    assert vit.cls_token is not None
    assert vit.num_prefix_tokens == 1
    assert _blocks(vit) >= 8
    resnet = timm.create_model("aptheory_resnet_mini")
    assert _blocks(resnet) >= 8
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in resnet.modules())


@pytest.mark.parametrize("name", ALL)
def test_features_only_names_the_true_reductions(name: str) -> None:
    network = timm.create_model(name, features_only=True).eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 32, 32))
    assert [32 // m.shape[-1] for m in maps] == network.feature_info.reduction()
    assert [m.shape[1] for m in maps] == network.feature_info.channels()


@pytest.mark.parametrize("name", PACKAGED)
def test_weights_are_small_finite_and_load_in_single_precision(name: str) -> None:
    path = zoo.weights_file(name)
    assert path.stat().st_size <= (3_000_000 if name in DEFAULTS else 1_900_000)
    network = timm.create_model(name, pretrained=True)
    state = network.state_dict()
    assert all(v.dtype in (torch.float32, torch.int64) for v in state.values())
    assert all(v.isfinite().all() for v in state.values())
    with safe_open(path, "pt") as saved:
        assert set(saved.keys()) == set(state)
        assert all(torch.equal(saved.get_tensor(k).to(v.dtype), v) for k, v in state.items())


@pytest.mark.parametrize("name", sorted(set(ALL) - set(PACKAGED)))
def test_a_network_without_packaged_weights_says_so(name: str) -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model(name, pretrained=True)


@pytest.mark.parametrize("name", PACKAGED)
def test_another_number_of_classes_keeps_the_features(name: str) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = timm.create_model(name, pretrained=True).eval()
    other = timm.create_model(name, pretrained=True, num_classes=5).eval()
    with torch.no_grad():
        assert torch.equal(whole.forward_features(x), other.forward_features(x))
        assert other(x).shape == (2, 5)


@pytest.mark.parametrize(
    "name", [n if n in DEFAULTS else pytest.param(n, marks=pytest.mark.slow) for n in PACKAGED]
)
def test_packaged_classifier_answers_far_above_chance(name: str) -> None:
    found = evaluate.upstream_accuracy(timm.create_model(name, pretrained=True).eval(), 256)
    assert found["main"] > 10 / upstream.MAIN_CLASSES
    if name in DEFAULTS:
        assert found["main"] > 80 / upstream.MAIN_CLASSES
        assert found["shape"] > 10 / len(SHAPES)
        assert found["texture"] > 7 / len(TEXTURES)


def test_weights_load_without_a_network(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    timm.create_model("aptheory_resnet_mini", pretrained=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULTS)
def test_features_transfer_to_real_digits(name: str) -> None:
    table = evaluate.transfer(name, sizes=(100,)).set_index("features")["accuracy"]
    assert table["pretrained"] > table["random"] + 0.05


def test_generator_is_decided_by_its_seed() -> None:
    one, same, other = (upstream.generate(16, seed) for seed in (5, 5, 6))
    assert torch.equal(one.pixels, same.pixels)
    assert all(torch.equal(one.answers[k], same.answers[k]) for k in one.answers)
    assert not torch.equal(one.pixels, other.pixels)


def test_answers_are_in_range_and_agree() -> None:
    images = upstream.generate(512, 0)
    assert images.pixels.shape == (512, 3, 32, 32)
    assert images.pixels.dtype == torch.uint8
    assert set(images.answers) == set(upstream.QUESTIONS)
    for name, answers in upstream.QUESTIONS.items():
        label = images.answers[name]
        asked = label[label != upstream.NO_ANSWER]
        assert asked.min() >= 0
        assert asked.max() == answers - 1 or name == "main"
    main = images.answers["shape"] * len(TEXTURES) + images.answers["texture"]
    assert torch.equal(images.answers["main"], main)
    assert (images.answers["cell"] != upstream.NO_ANSWER).equal(images.answers["count"] == 0)
    unoriented = ~segments()[2][images.answers["shape"]]
    assert (images.answers["angle"] == upstream.NO_ANSWER).equal(unoriented)


def test_the_held_out_seeds_are_not_trained_on() -> None:
    longest = max(t.epochs * t.epoch_images for t in train.TRAININGS.values())
    assert longest < 1 << 40  # runs with different seeds draw different images
    assert min(train.HELD_OUT_SEED.values()) > (1000 << 40) + longest
    assert len(set(train.HELD_OUT_SEED.values())) == 2


def test_moments_fit_the_normalisation() -> None:
    pixels = upstream.generate(512, 1).pixels.float() / 255
    assert (pixels.mean((0, 2, 3)) - torch.tensor(models.MEAN)).abs().max() < 0.15
    assert (pixels.std((0, 2, 3)) - torch.tensor(models.STD)).abs().max() < 0.06


def test_distance_and_inside_of_a_square() -> None:
    """A square of half-side 4 on a grid of 16: both are known in closed form."""
    corners = torch.tensor([[-4.0, -4], [4, -4], [4, 4], [-4, 4], [-4, -4]])
    ends = torch.stack([corners[:-1], corners[1:]], 1)[None]
    distance, inside = upstream._distance(ends, 16)
    axis = torch.linspace(-7.5, 7.5, 16)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    assert torch.equal(inside[0], (x.abs() < 4) & (y.abs() < 4))
    outward = torch.hypot((x.abs() - 4).clamp(min=0), (y.abs() - 4).clamp(min=0))
    inward = torch.minimum(4 - x.abs(), 4 - y.abs())
    expected = torch.where(inside[0], inward, outward)
    torch.testing.assert_close(distance[0], expected, atol=1e-5, rtol=0)


def test_colours_are_those_of_the_standard_library() -> None:
    import colorsys

    hue, saturation, value = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    ours = upstream._colour(hue, saturation, value)
    theirs = [
        colorsys.hsv_to_rgb(*hsv)
        for hsv in zip(hue.tolist(), saturation.tolist(), value.tolist(), strict=True)
    ]
    torch.testing.assert_close(ours, torch.tensor(theirs), atol=1e-5, rtol=0)


def test_placed_copies_can_be_counted() -> None:
    """A single bright pixel, placed: as many bright pixels as the answer says."""
    copies = torch.tensor([0, 1, 2, 3] * 8)
    figure = torch.zeros(32, 32, 32)
    figure[:, 16, 16] = 1
    placed, cell = upstream._place(figure, copies, 32, torch.Generator().manual_seed(0))
    assert torch.equal(placed.sum((1, 2)), copies + 1.0)
    for picture, answer in zip(placed[copies == 0], cell[copies == 0], strict=True):
        row, column = (picture == 1).nonzero()[0].tolist()
        third = 2 * 32 * 0.22 / 3
        expected = [min(int((i - 16 + 32 * 0.22) // third), 2) for i in (row, column)]
        # The answer is told before rounding could matter: moves are whole pixels.
        assert answer == expected[0] * 3 + expected[1]


def test_textures_fill_their_range() -> None:
    classes = torch.arange(len(TEXTURES)).repeat_interleave(8)
    drawn = draw_textures(classes, 32, torch.Generator().manual_seed(0))
    assert drawn.isfinite().all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    spread = drawn.unflatten(0, (len(TEXTURES), 8)).std((2, 3)).mean(1)
    assert (spread[1:] > 0.08).all()


def test_shapes_have_unique_names_and_no_digit() -> None:
    names = [shape.name for shape in SHAPES]
    assert len(set(names)) == len(names) == 24
    assert not any(name.isdigit() for name in names)
    ends, closed, _ = segments()
    assert ends.abs().max() <= 1.01
    for index, shape in enumerate(SHAPES):
        if closed[index]:
            assert len(shape.strokes) == 1
            start, end = torch.tensor(shape.strokes[0][0]), torch.tensor(shape.strokes[0][-1])
            assert torch.allclose(start, end, atol=1e-6)


def test_positions_start_as_waves_that_differ_everywhere() -> None:
    vit = timm.create_model("aptheory_vit_mini")
    train.know_positions(vit)
    places = vit.pos_embed[0, 1:]
    likeness = torch.nn.functional.cosine_similarity(places[:, None], places[None], dim=-1)
    assert likeness.fill_diagonal_(0).max() < 0.99
    # Neighbours are more alike than opposite corners.
    assert likeness[0, 1] > likeness[0, 63]
    assert likeness[0, 8] > likeness[0, 63]


def test_loss_ignores_questions_without_an_answer() -> None:
    images = upstream.Images(
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        {
            "main": torch.tensor([1, 2]),
            "shape": torch.tensor([0, 0]),
            "angle": torch.tensor([upstream.NO_ANSWER] * 2),
        },
        torch.zeros(2, 32, 32),
    )
    logits = {"main": torch.zeros(2, 384), "angle": torch.full((2, 5), 3.0, requires_grad=True)}
    loss = train.loss_of(logits, images, places=0.0)
    assert loss.item() == pytest.approx(math.log(384), rel=1e-6)
    loss.backward()
    assert torch.equal(logits["angle"].grad, torch.zeros(2, 5))
    everywhere = {"places": torch.zeros(2, len(SHAPES) + 1, 8, 8)}
    loss = train.loss_of(everywhere, images, places=2.0)
    assert loss.item() == pytest.approx(2 * math.log(len(SHAPES) + 1), rel=1e-6)
    assert train.loss_of(everywhere, images, places=0.0).item() == 0


def test_where_names_the_figure_of_each_covered_place() -> None:
    cover = torch.zeros(1, 32, 32)
    cover[0, :4, 4:8] = 0.2  # one 4x4 place, a fifth covered
    cover[0, 31, 31] = 1.0  # a sixteenth of the last place: too little
    images = upstream.Images(
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8), {"shape": torch.tensor([7])}, cover
    )
    expected = torch.full((1, 8, 8), len(SHAPES))
    expected[0, 0, 1] = 7
    assert torch.equal(images.where((8, 8)), expected)


@pytest.mark.slow
def test_training_stops_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Two epochs at once, and one epoch, a stop, another epoch: the same exported weights."""
    name, cpu = "aptheory_resnet_mini", torch.device("cpu")
    recipe = replace(
        train.TRAININGS[name], epochs=2, epoch_images=16, batch_size=8, warmup_epochs=0.5
    )
    held_out = train.accuracies

    def stop_after_two(*args, **kwargs):
        if len(calls := stop_after_two.calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return {"main": 0.0, "shape": 0.0}

    stop_after_two.calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "accuracies", lambda *a: {"main": 0.0, "shape": 0.0})
        train.train(name, recipe, folder=tmp_path / "a", device=cpu, out=tmp_path / "a.safetensors")
        patch.setattr(train, "accuracies", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train.train(name, recipe, folder=tmp_path / "b", device=cpu, out=tmp_path / "b.st")
        patch.setattr(train, "accuracies", lambda *a: {"main": 0.0, "shape": 0.0})
        train.train(name, recipe, folder=tmp_path / "b", device=cpu, out=tmp_path / "b.safetensors")
        with pytest.raises(InputError, match="another recipe"):
            train.train(name, replace(recipe, lr=1.0), folder=tmp_path / "b", device=cpu)
    assert train.accuracies is held_out
    with (
        safe_open(tmp_path / "a.safetensors", "pt") as whole,
        safe_open(tmp_path / "b.safetensors", "pt") as resumed,
    ):
        assert whole.metadata()["seed"] == "0"
        for key in whole.keys():  # noqa: SIM118 (not a dict)
            assert torch.equal(whole.get_tensor(key), resumed.get_tensor(key)), key
    assert json.loads((tmp_path / "a/result.json").read_text())["epochs"] == 2
