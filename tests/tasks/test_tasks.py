"""Tasks: splits, subsets, digests, the loader, and names that are not known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import aptheory as ap
from aptheory import tasks
from aptheory.errors import InputError
from aptheory.preprocessing import Transform
from aptheory.tasks.augmenting import Augmented
from aptheory.tasks.splits import balanced_indices, stratified_cut
from aptheory.tasks.views import Joined


class Taker:
    """The part of a network that the loader uses."""

    name = "taker"
    input_shape = (3, 16, 24)
    transform = Transform(size=(16, 24), mean=(0.5,) * 3, std=(1.0,) * 3)

    def parameters(self):
        return iter(())

    def normalize(self, images):
        return images.float() / 255 - 0.5


def made(count: int = 30, classes: int = 3, side: int = 8, seed: int = 0) -> tasks.Task:
    generator = np.random.default_rng(seed)

    def split() -> tasks.ArraySplit:
        pixels = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        return tasks.ArraySplit(pixels, np.arange(count) % classes)

    names = tuple(f"class {n}" for n in range(classes))
    return tasks.Task("made", names, split(), split(), split())


def test_digits_are_the_real_ones_and_their_splits_do_not_meet():
    from sklearn.datasets import load_digits

    task = ap.task("digits")
    assert [len(s) for s in (task.train, task.val, task.test)] == [800, 200, 797]
    seen = [s.images(range(len(s)), (8, 8)) for s in (task.train, task.val, task.test)]
    rows = torch.cat(seen)[:, 0].reshape(1797, -1)
    real = np.rint(load_digits().images * 255 / 16).astype(np.uint8).reshape(1797, -1)
    assert sorted(map(bytes, rows.numpy())) == sorted(map(bytes, real))
    assert np.bincount(task.train.labels).tolist() == [80] * 10
    assert ap.task("digits", seed=1).digest != task.digest


def test_subset_is_balanced_seeded_and_nested():
    task = made(300)
    small, large = task.subset(train=31, seed=5), task.subset(train=90, val=10, seed=5)
    assert sorted(np.bincount(small.train.labels)) == [10, 10, 11]
    assert set(small.train.indices) < set(large.train.indices)
    assert len(large.val) == 10
    assert large.test is task.test
    assert small.digest == task.subset(train=31, seed=5).digest
    assert small.digest != task.subset(train=31, seed=6).digest
    assert "seed 5" in small.provenance
    assert task.subset(train=10_000) is task
    again = large.subset(train=30)
    x = again.train.images([3], (8, 8))
    assert torch.equal(x, task.train.images([again.train.indices[3]], (8, 8)))
    with pytest.raises(InputError, match="one a class"):
        task.subset(train=2)


def test_balanced_indices_leave_a_small_class_its_all():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50)
    counts = np.bincount(labels[balanced_indices(labels, 43, seed=0)])
    assert counts[1] == 3
    assert sorted(counts)[1:] == [20, 20]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_balanced_indices_for_any_labels(values, count, seed):
    labels = np.array(values)
    count = min(count, len(labels))
    chosen = balanced_indices(labels, count, seed=seed)
    assert len(set(chosen.tolist())) == count
    if count:
        assert set(balanced_indices(labels, count - 1, seed=seed)) < set(chosen)
    total, taken = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    # A class with fewer than another's, by more than the round's one, has none left.
    assert (taken[taken < taken.max() - 1] == total[taken < taken.max() - 1]).all()


def test_stratified_cut_is_a_partition_with_every_class_in_every_part():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 10, 3]))
    parts = stratified_cut(labels, (0.6, 0.2, 0.2), seed=1)
    assert sorted(np.concatenate(parts)) == list(range(113))
    assert [np.bincount(labels[p]).tolist() for p in parts] == [[60, 6, 1], [20, 2, 1], [20, 2, 1]]
    with pytest.raises(InputError, match="class 1 has 2"):
        stratified_cut(np.array([0, 0, 0, 1, 1]), (0.6, 0.2, 0.2), seed=0)


def test_train_and_val_are_one_after_the_other():
    task = made()
    both = task.train_and_val
    assert len(both) == 60
    x = both.images([29, 30, 0, -1], (8, 8))
    expected = [task.train.images([29, 0], (8, 8)), task.val.images([0, 29], (8, 8))]
    assert torch.equal(x[[0, 2, 1, 3]], torch.cat(expected))


def test_digest_depends_on_pixels_labels_and_classes_but_not_on_the_name():
    task = made()
    pixels = task.train.pixels.copy()
    assert tasks.ArraySplit(pixels, task.train.labels).digest == task.train.digest
    pixels[4, 3, 2, 1] ^= 1
    assert tasks.ArraySplit(pixels, task.train.labels).digest != task.train.digest
    labels = task.train.labels.copy()
    labels[0] = 2
    assert tasks.ArraySplit(task.train.pixels, labels).digest != task.train.digest
    renamed = tasks.Task("other", task.classes, task.train, task.val, task.test)
    assert renamed.digest == task.digest
    relabelled = tasks.Task("made", ("a", "b", "c"), task.train, task.val, task.test)
    assert relabelled.digest != task.digest


def test_resize_ignores_the_aspect_ratio_and_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    x = tasks.ArraySplit(stripes, np.zeros(1, dtype=np.int64)).images([0], (16, 8))
    assert x.shape == (1, 3, 16, 8)
    assert x.dtype == torch.uint8
    assert (x.float() - 127.5).abs().max() < 20  # without antialiasing it would be 0 or 255


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_loader_gives_every_image_once_in_order(ahead):
    task = made(23)
    batches = list(tasks.loader(task.train, Taker(), 5, ahead=ahead))
    assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
    x = torch.cat([x for x, _ in batches])
    assert x.shape == (23, 3, 16, 24)
    assert torch.equal(x, task.train.images(range(23), (16, 24)).float() / 255 - 0.5)
    assert torch.cat([y for _, y in batches]).tolist() == task.train.labels.tolist()
    picked = list(tasks.loader(task.train, Taker(), 2, indices=[7, 1, 4], ahead=ahead))
    assert torch.equal(torch.cat([x for x, _ in picked]), x[[7, 1, 4]])


def test_loader_passes_on_an_error_and_can_be_left():
    class Broken(tasks.ArraySplit):
        def images(self, indices, size):
            if 6 in indices:
                raise InputError("picture 6 is broken")
            return super().images(indices, size)

    task = made(20)
    broken = Broken(task.train.pixels, task.train.labels)
    with pytest.raises(InputError, match="picture 6"):
        list(tasks.loader(broken, Taker(), 4))
    batches = tasks.loader(task.train, Taker(), 4)
    next(batches)
    batches.close()


def test_loader_refuses_what_it_cannot_serve():
    bands = Taker()
    bands.input_shape = (4, 16, 16)
    with pytest.raises(InputError, match="takes 4 channels, but the pictures have 3"):
        next(tasks.loader(made().train, bands, 4))
    with pytest.raises(InputError, match="batch size"):
        tasks.loader(made().train, Taker(), 0)


def test_unknown_names_are_told_the_near_ones():
    with pytest.raises(InputError, match="did you mean digits"):
        ap.task("digts")
    with pytest.raises(InputError, match="names nothing"):
        ap.task("npz:")


def test_a_task_refuses_an_empty_split_and_labels_out_of_range():
    task = made()
    empty = tasks.ArraySplit(task.train.pixels[:0], task.train.labels[:0])
    with pytest.raises(InputError, match="no image in its val split"):
        tasks.Task("made", task.classes, task.train, empty, task.test)
    with pytest.raises(InputError, match="expected 0 to 1"):
        tasks.Task("made", ("a", "b"), task.train, task.val, task.test)
    with pytest.raises(InputError, match="expected uint8"):
        tasks.ArraySplit(task.train.pixels.astype(np.float32), task.train.labels)


def test_a_class_is_called_by_a_name_and_no_text():
    pixels, labels = np.zeros((30, 4, 4, 3), np.uint8), np.arange(30) % 2
    pixels[:] = np.arange(30, dtype=np.uint8)[:, None, None, None]
    task = ap.Task.from_arrays(pixels, labels, names=["a", "b" * 1000])
    assert len(task.classes[1]) == 1000
    with pytest.raises(ap.InputError, match="two classes are called 'a'; give each its own name"):
        ap.Task("twins", ("a", "a"), task.train, task.val, task.test)
    with pytest.raises(ap.InputError, match="'b+'... has 1,001 letters; expected at most 1,000"):
        ap.Task.from_arrays(pixels, labels, names=["a", "b" * 1001])


class Missing:
    """A split of the user's own that forgets to return its images."""

    labels = np.arange(20) % 2

    def __len__(self):
        return 20

    def images(self, indices, size):
        return None


class Failing(Missing):
    def images(self, indices, size):
        raise KeyError("no such file")


@pytest.mark.parametrize(("split", "reason"), [(Missing(), "TypeError"), (Failing(), "KeyError")])
def test_a_split_that_gives_no_images_is_refused(split, reason):
    task = ap.Task("mine", ("a", "b"), split, split, split)
    with pytest.raises(
        InputError, match=f"its images cannot be read .{reason}: .*expected an array"
    ):
        task.train.images([0, 1], (8, 8))


@pytest.mark.parametrize(
    ("indices", "size", "said"),
    [
        ([9999], (8, 8), "go beyond the 30 images"),
        ([-31], (8, 8), "go beyond the 30 images"),
        (np.array([0.5]), (8, 8), "expected a list of whole numbers"),
        (np.array([[0]]), (8, 8), "expected a list of whole numbers"),
        ([0], (0, 8), "expected .height, width. from 1"),
        ([0], (10**6, 8), "expected .height, width. from 1"),
    ],
)
@pytest.mark.parametrize(
    "view",
    [
        lambda split: split,
        lambda split: tasks.Selection(split, np.arange(len(split))),
        lambda split: Joined(split.rows(np.arange(10)), split.rows(np.arange(10, 30))),
        lambda split: Augmented(split, lambda image: image),
    ],
)
def test_every_split_refuses_images_that_it_cannot_give(view, indices, size, said):
    with pytest.raises(InputError, match=said):
        view(made().train).images(indices, size)


def test_an_index_below_zero_counts_from_the_end():
    split = made().train
    joined = Joined(split.rows(np.arange(10)), split.rows(np.arange(10, 30)))
    for view in (split, joined):
        assert torch.equal(view.images([-1, -30], (8, 8)), split.images([29, 0], (8, 8)))


def test_pictures_without_a_side_are_no_pictures():
    with pytest.raises(InputError, match="expected uint8 of shape"):
        tasks.ArraySplit(np.zeros((2, 0, 8, 3), np.uint8), [0, 1])


def test_a_grouping_that_cannot_be_compared_is_the_functions_fault(tmp_path):
    for name in ("a", "b"):
        for number in range(8):
            path = tmp_path / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 8 * number, np.uint8)).save(path)
    with pytest.raises(InputError, match="given as group returned"):
        tasks.task(f"folder:{tmp_path}", group=lambda path: [1])
