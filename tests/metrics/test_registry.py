"""Every measure is held to what the registry says of it."""

import contextlib
import math

import pytest
import torch

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.metrics import MEASURES
from aptheory.profiling import watchers

DISTANCES = metrics.grid_distances((2, 3), (4, 4))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(takes, seed=0):
    """What a measure of this kind is given: (arguments, keyword arguments), 24 images."""
    x = noise(24, 6, seed=seed) * torch.arange(1, 7)
    y = 0.5 * noise(24, 6, seed=seed + 1)
    y[:, :3] += x[:, :3]
    labels = torch.arange(24) % 3
    if takes == "features":
        return [x], {}
    if takes in ("pair", "reference"):
        return [x, y], {}
    if takes == "labelled":
        return [x + noise(3, 6, seed=seed + 2)[labels], labels], {}
    if takes == "tokens":
        return [noise(24, 6, 5, seed=seed) + noise(24, 1, 5, seed=seed + 1)], {}
    if takes == "versions":
        return [noise(24, 3, 6, seed=seed)], {"share": 0.25}
    if takes == "maps":
        return [noise(24, 5, 4, 4, seed=seed) + 1], {}
    if takes == "gradient":
        return [noise(24, 3, 5, 7, seed=seed), (2.5, 3.5)], {}
    return [noise(24, 2, 7, 7, seed=seed).softmax(-1)], {"prefix": 1}


def call(measure, arguments, options):
    if measure.name == "attention_distance":
        arguments = [*arguments, DISTANCES]
    if measure.name == "prefix_share":
        options = {}
    value = measure.function(*arguments, **options)
    value = value.accuracy if isinstance(value, metrics.Probe) else value
    return torch.as_tensor(value, dtype=torch.float64)


def feature_axis(takes):
    return 1 if takes == "maps" else -1


def rotate(x, takes):
    axis = feature_axis(takes)
    turn = torch.linalg.qr(noise(x.shape[axis], x.shape[axis], seed=5))[0]
    return torch.movedim(torch.movedim(x, axis, -1) @ turn, -1, axis)


def shuffle_channels(x, takes):
    order = torch.randperm(x.shape[feature_axis(takes)], generator=torch.Generator().manual_seed(3))
    return x.index_select(feature_axis(takes), order)


def translate(x, takes):
    shape = [1] * x.ndim
    shape[feature_axis(takes)] = -1
    return x + 10 * noise(x.shape[feature_axis(takes)], seed=6).reshape(shape)


MOVES = {
    "rotation": rotate,
    "channel order": shuffle_channels,
    "translation": translate,
    "scaling": lambda x, takes: 7.3 * x,
}


def pairs(move):
    return [name for name, measure in MEASURES.items() if move in measure.unchanged_by]


@pytest.mark.parametrize("name", MEASURES)
def test_range(name):
    measure = MEASURES[name]
    for seed in range(3):
        value = call(measure, *sample(measure.takes, seed))
        assert value.isfinite().all()
        assert bool(((value >= measure.low - 1e-9) & (value <= measure.high + 1e-9)).all())


@pytest.mark.parametrize("name", [n for n, m in MEASURES.items() if m.takes == "pair"])
def test_pairs_are_symmetric_and_greatest_for_themselves(name):
    measure = MEASURES[name]
    (x, y), options = sample("pair")
    value = call(measure, [x, y], options)
    assert measure.symmetric
    assert torch.allclose(value, call(measure, [y, x], options), atol=1e-7)
    assert measure.greater_means == "more similar"
    own = call(measure, [x, x], options)
    assert float(own) == pytest.approx(1, abs=1e-6)
    unrelated = call(measure, [x, noise(24, 6, seed=50)], options)
    assert own > value > unrelated


@pytest.mark.parametrize("move", MOVES)
def test_what_changes_nothing(move):
    names = pairs(move)
    assert names
    for name in names:
        measure = MEASURES[name]
        arguments, options = sample(measure.takes)
        value = call(measure, arguments, options)
        moved = [MOVES[move](arguments[0], measure.takes), *arguments[1:]]
        assert torch.allclose(call(measure, moved, options), value, rtol=1e-5, atol=1e-6), name


def test_the_order_of_images_changes_nothing():
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    for name in pairs("image order"):
        measure = MEASURES[name]
        arguments, options = sample(measure.takes)
        value = call(measure, arguments, options)
        moved = [each[order] if isinstance(each, torch.Tensor) else each for each in arguments]
        after = call(measure, moved, options)
        expected = value[order] if value.ndim else value  # one number an image, or one in all
        assert torch.allclose(after, expected, rtol=1e-7, atol=1e-9), name


def test_what_is_not_claimed_does_change():
    """A claim left out is left out for a reason: the test would otherwise hold for a constant."""
    for move, names in {
        "translation": ["effective_rank", "stable_rank", "logme", "relative_log_amplitude"],
        "rotation": ["relative_log_amplitude"],
    }.items():
        for name in names:
            measure = MEASURES[name]
            assert move not in measure.unchanged_by
            changed = False
            for seed in range(6):
                arguments, options = sample(measure.takes, seed)
                moved = [MOVES[move](arguments[0], measure.takes), *arguments[1:]]
                before, after = call(measure, arguments, options), call(measure, moved, options)
                changed |= not torch.allclose(before, after, rtol=1e-4)
            assert changed, (move, name)


@pytest.mark.parametrize("name", MEASURES)
def test_non_finite_input_is_an_error_and_never_a_silent_nan(name):
    measure = MEASURES[name]
    arguments, options = sample(measure.takes)
    arguments[0] = arguments[0].clone()
    arguments[0][..., -1, :] = float("nan")
    with pytest.raises(InputError):
        call(measure, arguments, options)


@pytest.mark.parametrize("name", MEASURES)
def test_a_single_image_is_a_number_or_an_error(name):
    measure = MEASURES[name]
    arguments, options = sample(measure.takes)
    one = [each[:1] if isinstance(each, torch.Tensor) else each for each in arguments]
    with contextlib.suppress(InputError):
        assert call(measure, one, options).isfinite().all()


@pytest.mark.parametrize("name", MEASURES)
def test_half_precision_is_raised_before_anything_is_computed(name):
    measure = MEASURES[name]
    arguments, options = sample(measure.takes)
    half = [arguments[0].to(torch.bfloat16), *arguments[1:]]
    exact = [half[0].to(torch.float64), *arguments[1:]]
    found, expected = call(measure, half, options), call(measure, exact, options)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_every_measure_is_told_apart_and_attributed():
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.source
        assert measure.greater_means.startswith("more")
        assert measure.low < measure.high or math.isinf(measure.high)
    known = set(watchers.known_measures())
    assert set(MEASURES) - known == {"procrustes_biased"}  # an opinion not offered by a profile
