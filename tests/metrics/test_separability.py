"""Probe, class distances and LogME against independent definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from aptheory import metrics
from aptheory.errors import InputError


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n, count=3, width=5, apart=0.0, seed=0):
    labels = torch.arange(n) % count
    return noise(n, width, seed=seed) + apart * noise(count, width, seed=seed + 1)[labels], labels


def test_probe_on_separate_and_on_mixed_classes():
    x, y = classes(90, apart=20)
    probe = metrics.probe_accuracy(x, y)
    assert probe.accuracy == 1
    assert 0.9 < probe.low < 1  # Wilson: certainty is not reached with 90 images
    mixed = torch.tensor([metrics.probe_accuracy(*classes(60, seed=s)).accuracy for s in range(20)])
    assert abs(mixed.mean() - 1 / 3) < 0.05


def test_probe_of_wide_features_is_the_probe_of_their_rotation():
    """The rotation to n columns changes nothing: compare with scikit-learn on all columns."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = classes(60, width=150, apart=0.5)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_score(model, x.numpy(), y.numpy(), cv=folds).mean()
    assert metrics.probe_accuracy(x, y).accuracy == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_a_probe_of_many_classes_is_not_taken_for_a_regression():
    labels = torch.arange(44) % 22  # scikit-learn guesses so of more than twenty rows
    assert metrics.probe_accuracy(torch.eye(22)[labels], labels, folds=2).accuracy == 1


def test_probe_with_constant_columns_and_refusals():
    x, y = classes(60, apart=20)
    padded = torch.cat([x, torch.full((60, 2), 0.1)], 1)
    assert metrics.probe_accuracy(padded, y).accuracy == 1
    assert metrics.probe_accuracy(torch.ones(60, 3), y).accuracy == pytest.approx(1 / 3, abs=0.01)
    with pytest.raises(InputError, match="at least two classes"):
        metrics.probe_accuracy(x, torch.zeros(60, dtype=torch.int64))
    with pytest.raises(InputError, match="fewer than the 5 folds"):
        metrics.probe_accuracy(x[:9], y[:9])
    with pytest.raises(InputError, match="NaN"):
        metrics.probe_accuracy(x * float("nan"), y)
    with pytest.raises(InputError, match="one label an image"):
        metrics.logme(x, y[:5])


def slow_ratio(x, y):
    """Average squared distances over all pairs of images, class by class."""
    within, between = [], []
    for a in y.unique():
        mine = x[y == a]
        n = len(mine)
        within.append(float((torch.cdist(mine, mine) ** 2).sum() / (n * (n - 1))))
    for a in y.unique():
        for b in y.unique():
            if a < b:
                between.append(float((torch.cdist(x[y == a], x[y == b]) ** 2).mean()))
    return np.mean(between) / np.mean(within) - 1


def test_class_distance_ratio_equals_pairs_of_images():
    x, y = classes(60, apart=1.0)  # equal class sizes: both forms agree exactly
    assert metrics.class_distance_ratio(x, y) == pytest.approx(slow_ratio(x, y), rel=1e-9)


def test_class_distance_ratio_is_zero_on_average_for_meaningless_labels():
    values = torch.tensor(
        [metrics.class_distance_ratio(*classes(30, seed=3 * s)) for s in range(200)]
    )
    assert abs(values.mean()) < 3 * values.std() / 200**0.5


def test_class_distance_ratio_streams_merges_and_refuses():
    x, y = classes(97, count=7, apart=1.0)
    whole = metrics.class_distance_ratio(x + 1e4, y)
    first, second = metrics.ClassDistanceRatio(), metrics.ClassDistanceRatio()
    order = y.argsort(stable=True)  # classes arrive one after another
    for number, start in enumerate(range(0, 97, 10)):
        part = order[start : start + 10]
        (first if number % 2 else second).update(x[part] + 1e4, y[part])
    first.merge(second)
    assert float(first.compute().value) == pytest.approx(whole, rel=1e-8)
    with pytest.raises(InputError, match="two classes"):
        metrics.class_distance_ratio(x, torch.zeros(97, dtype=torch.int64))
    with pytest.raises(InputError, match="two classes"):
        metrics.class_distance_ratio(x[:7], y[:7])
    with pytest.raises(InputError, match="counting from 0"):
        metrics.class_distance_ratio(x, y - 3)


def dense_evidence(parameters, x, target):
    """log N(y; 0, F Fᵀ / α + I / β) / n: the evidence as one Gaussian, maximised by scipy."""
    alpha, beta = np.exp(np.clip(parameters, -20, 27))
    n = len(target)
    covariance = x @ x.T / alpha + np.eye(n) / beta
    _, determinant = np.linalg.slogdet(covariance)
    quadratic = target @ np.linalg.solve(covariance, target)
    return -(n * math.log(2 * math.pi) + determinant + quadratic) / 2 / n


@pytest.mark.parametrize("width", [4, 40])
def test_logme_is_the_maximum_of_the_evidence(width):
    x, y = classes(25, width=width, apart=1.0)
    best = []
    for each in range(3):
        target = (y == each).double().numpy()
        tries = [
            minimize(
                lambda p, t=target: -dense_evidence(p, x.numpy(), t),
                start,
                method="Nelder-Mead",
                options={"xatol": 1e-6, "fatol": 1e-10, "maxiter": 2000},
            )
            for start in ([0.0, 1.0], [6.0, 7.0], [6.0, 26.0])  # wide features: β may be infinite
        ]
        best.append(max(-found.fun for found in tries))
    assert metrics.logme(x, y) == pytest.approx(np.mean(best), abs=1e-5)


def test_logme_ranks_and_refuses():
    near, y = classes(90, apart=0.3)
    far, _ = classes(90, apart=5.0)
    assert metrics.logme(far, y) > metrics.logme(near, y)
    assert metrics.logme(1000 * near, y) == pytest.approx(metrics.logme(near, y), rel=1e-6)
    with pytest.raises(InputError, match="all zero"):
        metrics.logme(torch.zeros(90, 4), y)
    with pytest.raises(InputError, match="at least two classes"):
        metrics.logme(near, torch.zeros(90, dtype=torch.int64))
