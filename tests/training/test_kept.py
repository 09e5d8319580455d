"""Kept activations: the same values wherever they are kept, and never a silent change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.tasks import ArraySplit, Task
from aptheory.training import kept as kept_module
from aptheory.training.augmentation import apply, draw
from aptheory.training.fit import Recipe, fit
from aptheory.training.kept import Kept
from tests.quarters import small_cnn, small_vit, split


@pytest.fixture(scope="module")
def task():
    return Task("quarters", ("a", "b", "c", "d"), split(70, 4, 0), split(12, 4, 1), split(9, 4, 2))


@pytest.fixture(scope="module", params=["vit", "cnn"])
def net(request):
    return small_vit(depth=2, embed_dim=16) if request.param == "vit" else small_cnn()


def truth(net, task, name, layer, rows=None):
    part = getattr(task, name)
    rows = torch.arange(len(part)) if rows is None else rows
    with torch.no_grad():
        return net.run(net.normalize(part.images(rows.numpy(), (16, 16))), stop=layer)


@pytest.mark.parametrize("keep", ["memory", "disk", "recompute", "auto"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_it_is_what_enters_the_place_wherever_it_is_kept(keep, channels_last, net, task, tmp_path):
    kept = Kept.start(net, task, keep=keep, scratch=tmp_path, channels_last=channels_last)
    rows = torch.tensor([5, 60, 5, 0])
    for layer in range(len(net.layers)):
        kept.advance(layer)
        for _ in range(2):
            z = kept.batch("train", rows)
            torch.testing.assert_close(
                z, truth(net, task, "train", layer, rows), rtol=1e-4, atol=1e-5
            )
        assert z.dtype == torch.float32
        assert not list(tmp_path.iterdir())  # no name: nothing would be left after a kill
    assert kept.describe()["train"].startswith("disk") == (keep == "disk")


def test_a_sweep_runs_every_piece_once(net, task, monkeypatch):
    pieces = {}
    run = net.run

    def counted(x, *, start=0, stop=None):
        for piece in range(start, stop):
            pieces[piece] = pieces.get(piece, 0) + len(x)
        return run(x, start=start, stop=stop)

    monkeypatch.setattr(net, "run", counted)
    kept = Kept.start(net, task)
    for layer in range(len(net.layers)):
        kept.advance(layer)
        for name in ("train", "val", "test"):
            for _ in range(3):
                kept.batch(name, torch.arange(9))
    everything = 70 + 12 + 9
    assert pieces == dict.fromkeys(range(len(net.layers) - 1), everything)


def test_going_back_starts_from_the_images_and_says_so(net, task):
    said = []
    kept = Kept.start(net, task, layer=2, log=said.append)
    kept.batch("val", torch.arange(3))
    kept.advance(1)
    assert any("from the images" in text for text in said)
    torch.testing.assert_close(
        kept.batch("val", torch.arange(12)), truth(net, task, "val", 1), rtol=1e-4, atol=1e-5
    )


def test_where_validation_stands_in_for_the_test_images_the_log_says_so(net, task):
    said = []
    blind = Kept.start(net, replace(task, test=task.val), layer=2, log=said.append)
    blind.batch("test", torch.arange(3))
    blind.advance(1)
    assert [text for text in said if text.startswith("val once more")]
    assert not [text for text in said if text.startswith("test")]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_half_precision_halves_the_room_and_rounds(dtype, keep, net, task, tmp_path):
    kept = Kept.start(net, task, layer=2, keep=keep, keep_dtype=dtype, scratch=tmp_path)
    z = kept.batch("train", torch.arange(70))
    exact = truth(net, task, "train", 2)
    torch.testing.assert_close(z, exact, rtol=1e-2, atol=1e-2)
    assert not torch.equal(z, exact)
    assert kept._stores["train"].data.nbytes == 2 * exact.numel()


def test_the_choice_is_automatic_and_stated(net, task, monkeypatch, tmp_path):
    def choice(**options):
        said = []
        kept = Kept.start(net, task, layer=2, log=said.append, scratch=tmp_path, **options)
        kept.batch("train", torch.arange(3))
        assert any("place 2" in text for text in said)
        return kept.describe()["train"]

    assert choice().startswith("memory")
    monkeypatch.setattr(kept_module, "_FLOPS_PER_SECOND", {"cpu": 1.0})
    assert choice(memory_limit=1000).startswith("disk")
    monkeypatch.setattr(kept_module, "_DISK_SHARE", 0.0)
    assert choice(memory_limit=1000).startswith("recompute")
    monkeypatch.setattr(kept_module, "_FLOPS_PER_SECOND", {"cpu": 1e30})
    assert "cheaper" in choice(memory_limit=1000)
    assert "once" in choice(passes={"train": 1})
    assert "as asked" in choice(keep="recompute")


def test_features_are_clean_and_remembered(net, task):
    kept = Kept.start(net, task, augment="crop_flip")
    last = len(net.layers) - 1
    features = kept.features("train")
    torch.testing.assert_close(features, truth(net, task, "train", last), rtol=1e-4, atol=1e-5)
    kept.advance(2)
    assert kept.features("train") is features


# ---- augmentation


def test_flips_and_crops_are_permutations_of_what_is_there():
    images = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).remainder(251).byte()
    still = torch.zeros(2, 3, dtype=torch.int64)
    assert torch.equal(apply(images, still), images)
    flip = torch.tensor([[0, 0, 1], [0, 0, 0]])
    flipped = apply(images, flip)
    assert torch.equal(flipped[0], images[0].flip(-1))
    assert torch.equal(flipped[1], images[1])
    moved = apply(images, torch.tensor([[2, 0, 0], [0, -1, 0]]))
    assert torch.equal(moved[0, :, :14], images[0, :, 2:])
    assert torch.equal(moved[0, :, 14], images[0, :, 14])  # reflected, the border not repeated
    assert torch.equal(moved[1, :, :, 1:], images[1, :, :, :-1])


def test_draws_are_seeded_and_bounded():
    def drawn(how):
        return draw(how, 500, (16, 32), torch.Generator().manual_seed(0))

    assert torch.equal(drawn("crop_flip"), drawn("crop_flip"))
    both = drawn("crop_flip")
    assert (both[:, 0].min(), both[:, 0].max()) == (-2, 2)
    assert (both[:, 1].min(), both[:, 1].max()) == (-4, 4)
    assert 200 < both[:, 2].sum() < 300
    assert not drawn("none").any()
    assert not drawn("flip")[:, :2].any()


def test_views_are_kept_and_fresh_augmentation_turns_keeping_off(net, task):
    kept = Kept.start(net, task, layer=1, augment="crop_flip", views=3)
    z = kept.batch("train", torch.arange(210))
    assert kept.describe()["train"].startswith("memory")
    assert z.shape[0] == 210
    assert not torch.equal(z[:70], z[70:140])
    assert torch.equal(kept.batch("train", torch.tensor([75])), z[75:76])
    torch.testing.assert_close(
        kept.batch("val", torch.arange(12)), truth(net, task, "val", 1), rtol=1e-4, atol=1e-5
    )

    said = []
    fresh = Kept.start(net, task, layer=1, augment="crop_flip", log=said.append)
    assert any("cannot be kept" in text for text in said)
    generator = torch.Generator().manual_seed(0)
    first = fresh.batch("train", torch.arange(20), [generator])
    second = fresh.batch("train", torch.arange(20), [generator])
    assert not torch.equal(first, second)
    assert "recompute" in fresh.describe()["train"]


@pytest.mark.parametrize("views", [0, 2])
def test_training_with_augmentation_differs_from_training_without(views, net, task):
    def losses(**changes):
        adapted = ap.ActivationPrompt(layer=1).attach(net, classes=4)
        outcome = fit(adapted, task, recipe=Recipe(epochs=2, batch_size=35, **changes))
        return [entry["train_loss"] for entry in outcome.curve]

    augmented = losses(augment="crop_flip", views=views)
    assert augmented != losses()
    assert augmented == losses(augment="crop_flip", views=views)


def test_images_of_another_size_are_decoded_once(net):
    big = {name: split(20, 4, seed, side=24) for seed, name in enumerate(("train", "val", "test"))}
    task = Task("large", ("a", "b", "c", "d"), **big)
    calls = []
    images = ArraySplit.images

    class Counting(ArraySplit):
        def images(self, indices, size):
            calls.append(len(indices))
            return images(self, indices, size)

    counting = Counting(big["train"].pixels, big["train"].labels)
    object.__setattr__(task, "train", counting)
    kept = Kept.start(net, task)
    for _ in range(4):
        z = kept.batch("train", torch.arange(20))
    assert sum(calls) == 20
    assert tuple(z.shape[1:]) == net.input_shape


def test_bad_places_and_types_are_refused(net, task):
    with pytest.raises(InputError, match="no place 99"):
        Kept.start(net, task, layer=99)
    with pytest.raises(InputError, match="keep"):
        Kept.start(net, task, keep="cloud")
    with pytest.raises(InputError, match="float32"):
        Kept.start(net, task, keep_dtype="int8")


def test_labels_follow_the_images(net, task):
    kept = Kept.start(net, task)
    assert np.array_equal(kept.labels("test").numpy(), task.test.labels)
    assert kept.number("val") == 12
