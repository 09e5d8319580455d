"""Every measure takes what NumPy gives, and refuses what cannot be measured in its own words."""

import numpy as np
import pytest
import torch

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.metrics import MEASURES
from aptheory.metrics.inputs import arrays
from tests.metrics.test_registry import sample


def as_numpy(value):
    return value.numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_takes_numpy_arrays(name):
    args, options = sample(MEASURES[name].takes)
    args = args[:1] if MEASURES[name].takes == "attention" else args
    if MEASURES[name].takes != "versions":
        options = {}
    if name == "attention_distance":
        options = {"distances": metrics.grid_distances((1, 7), (4, 4))}
    expected = MEASURES[name].function(*args, **options)
    options = {key: as_numpy(value) for key, value in options.items()}
    given = MEASURES[name].function(*map(as_numpy, args), **options)
    assert np.asarray(given) == pytest.approx(np.asarray(expected), rel=1e-12)


def test_whole_numbers_are_measured_as_the_numbers_they_are():
    numbers = np.random.default_rng(0).integers(0, 255, (20, 6))
    for measure in (metrics.effective_rank, metrics.participation_ratio, metrics.numerical_rank):
        assert measure(numbers) == measure(numbers.astype(float))
        assert measure(torch.as_tensor(numbers).to(torch.uint8)) == measure(numbers)
    assert metrics.cka(numbers, numbers**2) == metrics.cka(numbers * 1.0, numbers**2 * 1.0)
    swapped = numbers.astype(">f4")  # as old files hold them
    assert metrics.effective_rank(swapped) == metrics.effective_rank(numbers.astype("<f4"))
    whole = np.ma.masked_array(numbers, np.zeros_like(numbers))
    assert metrics.effective_rank(whole) == metrics.effective_rank(numbers)
    ranks = metrics.Rank()
    ranks.update(numbers)
    assert float(ranks.compute(("stable_rank",))["stable_rank"].value) == pytest.approx(
        metrics.stable_rank(numbers)
    )
    labels = np.arange(20) % 2
    assert metrics.logme(numbers, labels) == metrics.logme(numbers.astype(float), labels)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (np.zeros((5, 0)), "hold no numbers at all"),
        (torch.zeros(5, 3, 0), "hold no numbers at all"),
        (np.array([["a"], ["b"]]), "expected an array of numbers"),
        (np.ones((5, 2), dtype=complex), "expected an array of numbers"),
        (torch.ones(5, 2, dtype=torch.complex64), "complex numbers"),
        (np.ma.masked_array(np.ones((5, 2)), np.eye(5, 2)), "has masked entries"),
    ],
)
@pytest.mark.parametrize(
    "measure",
    [
        metrics.effective_rank,
        metrics.linear_gram,
        metrics.globality,
        lambda x: metrics.cka(x, x),
        lambda x: metrics.procrustes(x, x),
        lambda x: metrics.probe_accuracy(x, np.arange(len(x))),
        lambda x: metrics.Rank().update(x),
        lambda x: metrics.CKA(1).add(x),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(measure, features, reason):
    with pytest.raises(InputError, match=reason):
        measure(features)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        (lambda: metrics.effective_rank(nested()), "features is a nested tensor"),
        (
            lambda: metrics.cka_map([nested(), torch.ones(5, 2)]),
            r"features\[0\] is a nested tensor",
        ),
        (lambda: metrics.probe_accuracy(torch.ones(5, 2), nested()), "labels is a nested tensor"),
        (
            lambda: metrics.cka_map([torch.tensor(1.0), torch.ones(5, 2)]),
            r"features\[0\] is a single",
        ),
        (lambda: metrics.grams([torch.tensor(1.0)]), r"features\[0\] is a single"),
        (lambda: metrics.grams(torch.tensor(1.0)), r"features\[0\] is a single"),
        (lambda: metrics.grams(torch.ones(5)), r"features\[0\] is a single"),
    ],
)
def test_nested_tensors_and_single_numbers_are_refused(measure, reason):
    with pytest.raises(InputError, match=reason):
        measure()


def nested():
    return torch.nested.nested_tensor([torch.ones(3), torch.ones(4)])


def test_only_arrays_are_read():
    @arrays
    def kinds(first, labels, *, more=None):
        return first.dtype, labels.dtype, more

    bools, longs = np.array([True, False]), np.array([1, 2])
    assert kinds(bools, longs, more="word") == (torch.float64, torch.int64, "word")
    assert kinds(np.ones(2, np.longdouble), labels=longs)[0] == torch.float64
    assert kinds.__name__ == "kinds"


@pytest.mark.parametrize("size", [1e-150, 1e-20, 1e20, 1e120])
def test_alignment_does_not_depend_on_the_size_of_float64_features(size):
    x, y = np.random.default_rng(0).normal(size=(2, 80, 5))
    for how in ("unbiased", "biased"):
        value = metrics.cka(size * x, y, estimator=how)
        assert value == pytest.approx(metrics.cka(x, y, estimator=how), rel=1e-9)


@pytest.mark.parametrize(
    "measure", [metrics.logme, metrics.probe_accuracy, metrics.class_distance_ratio]
)
def test_labels_are_whole_numbers_of_any_kind(measure):
    x, labels = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    for same in (labels.astype(bool), labels * 1.0, labels * 10**12):
        assert measure(x, same) == measure(x, labels)
    for wrong in (labels + 0.5, np.where(labels, np.nan, 0.0)):
        with pytest.raises(InputError, match="no whole number"):
            measure(x, wrong)


def test_a_large_label_takes_no_room_while_streaming():
    with pytest.raises(InputError, match="classes count from 0 and are at most"):
        metrics.ClassDistanceRatio().update(np.ones((2, 3)), np.array([0, 10**12]))


def test_attention_is_what_comes_out_of_the_softmax():
    scores = np.random.default_rng(0).normal(size=(1, 2, 7, 7))
    with pytest.raises(InputError, match="negative"):
        metrics.attention_entropy(scores)
    with pytest.raises(InputError, match="negative"):
        metrics.attention_distance(scores, metrics.grid_distances((1, 7), (4, 4)))


X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
GRAM = X @ X.T


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: metrics.cka(None, X), "x holds object"),
        (lambda: metrics.effective_rank(X.to("meta")), "meta tensor"),
        (lambda: metrics.effective_rank(X.to_sparse()), "sparse tensor"),
        (lambda: metrics.cka_of_grams(GRAM[:4]), "expected .layers, images, images."),
        (lambda: metrics.chance_level(GRAM, GRAM[:3, :3]), "with the 12 images of x"),
        (lambda: metrics.moment_shift(X, X[:, :2]), "with the 4 channels of features"),
        (lambda: metrics.cka_map([X, 5]), "features of cka_map"),
        (lambda: metrics.cka_map([]), "Features of"),
        (lambda: metrics.linear_gram([]), "there are no features"),
        (lambda: metrics.procrustes(X, X, splits=10**12), "splits of procrustes"),
        (lambda: metrics.probe_accuracy(X, np.arange(12) % 2, folds=1), "folds of"),
        (lambda: metrics.probe_accuracy(X, np.arange(12) % 2, seed=2**40), "seed of"),
        (lambda: metrics.grid_distances((9999, 9999), (1, 1)), "too many distances"),
        (lambda: metrics.Rank(groups=0), "groups of Rank"),
        (lambda: metrics.RunningMean().compute(level=2), "level of RunningMean.compute"),
        (lambda: metrics.bootstrap(lambda i: "x", 5), "statistic gave no number"),
        (lambda: metrics.group_jackknife(torch.ones(1), [torch.ones(2)] * 3, images=3), "shape"),
        (
            lambda: metrics.position_gradient(X[None], torch.ones(1, 3, 4, 4), position=0),
            "requires gradients",
        ),
    ],
)
def test_an_argument_that_is_not_as_declared_is_refused(wrong, reason):
    with pytest.raises(InputError, match=reason) as refusal:
        wrong()
    assert "\n" not in str(refusal.value)


def test_lists_of_numbers_are_arrays_of_them():
    assert metrics.effective_rank(X.tolist()) == pytest.approx(metrics.effective_rank(X), rel=1e-6)
    labels = [0, 1] * 6
    assert metrics.logme(X, labels) == metrics.logme(X, np.array(labels))


@pytest.mark.parametrize(
    "measure",
    [
        metrics.effective_rank,
        metrics.stable_rank,
        lambda x: metrics.probe_accuracy(x, np.arange(len(x)) % 2),
    ],
)
def test_numbers_whose_squares_overflow_are_refused(measure):
    features = np.random.default_rng(0).normal(size=(20, 3))
    measure(features * 1e130)
    with pytest.raises(InputError, match=r"beyond 1e\+140, whose squares overflow"):
        measure(features * 1e200)


@pytest.mark.parametrize("moments", [torch.zeros(0, 8), []])
def test_no_moments_are_put_together(moments):
    with pytest.raises(InputError, match="give a list of ChannelMoments"):
        metrics.side_by_side(moments)
