"""Scores of a model against their definitions, written out slowly."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

import aptheory as ap
from aptheory.models.evaluation import Evaluation, _scores, calibration_error, evaluate
from aptheory.reporting.evaluation_page import evaluation_page
from aptheory.tasks import ArraySplit
from tests.quarters import RECIPE, small_cnn, small_task


def answers(count=60, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = tuple(f"{i}.png" for i in range(count))
    classes = tuple("abc"[:classes])
    return Evaluation("m", "t", "test", classes, labels, shares, names, resamples=20)


def test_scores_are_their_definitions():
    e = answers()
    predicted = [max(range(3), key=lambda k, row=row: row[k]) for row in e.shares]
    pairs = list(zip(e.labels.tolist(), predicted, strict=True))
    recalls, f1 = [], []
    for k in range(3):
        both = sum(y == p == k for y, p in pairs)
        true, said = sum(y == k for y, _ in pairs), sum(p == k for _, p in pairs)
        recalls.append(both / true)
        f1.append(2 * both / (true + said))
    scores = e.scores.set_index("measure")["value"]
    assert scores["accuracy"] == pytest.approx(sum(y == p for y, p in pairs) / 60)
    assert scores["balanced accuracy"] == pytest.approx(sum(recalls) / 3)
    assert scores["macro F1"] == pytest.approx(sum(f1) / 3)
    loss = -sum(math.log(e.shares[i, y]) for i, y in enumerate(e.labels)) / 60
    assert scores["log loss"] == pytest.approx(loss)
    assert "AUROC" not in scores
    assert (e.scores["low"] <= e.scores["value"]).all() or "calibration" in str(e.scores)
    assert e.by_class["recall"].tolist() == pytest.approx(recalls)
    assert e.by_class["f1"].tolist() == pytest.approx(f1)
    assert Counter(pairs)[(0, 1)] == e.confusion.loc["a", "b"]


@pytest.mark.parametrize(
    ("classes", "said"),
    [(101, "fall on 101 pairs of classes: the 100 of most"), (2000, "fall on 1 pair of classes")],
)
def test_a_page_of_many_classes_grows_with_them_and_not_with_their_square(classes, said):
    labels = np.arange(classes)
    shares = np.eye(classes)[np.roll(labels, 1) if classes == 101 else np.maximum(labels, 1)]
    labels, shares = np.append(labels, 0), np.vstack([shares, shares[:1]])
    names, called = [str(i) for i in range(len(labels))], [f"<{i}>" for i in range(classes)]
    e = Evaluation("m", "t", "test", tuple(called), labels, shares, tuple(names), resamples=2)
    assert e.confused.iloc[0].tolist() == ["<0>", e.classes[shares[0].argmax()], 2]
    assert e.confused["images"].sum() == (e.predicted != labels).sum()
    page = evaluation_page(e, ArraySplit(np.zeros((len(labels), 8, 8, 3), np.uint8), labels))
    assert said in page
    assert len(page) < 500 * classes + 200_000
    assert "confusion" not in page.partition("<body>")[2]


def test_no_interval_has_no_width_where_every_answer_is_right():
    e = answers()
    right = replace(e, shares=np.eye(3)[e.labels])
    scores = right.scores.set_index("measure")
    assert scores.loc["accuracy", ["value", "high"]].tolist() == [1.0, 1.0]
    assert 0.9 < scores.loc["accuracy", "low"] < 0.96  # Wilson, 60 of 60
    assert np.isnan(scores.loc["macro F1", "low"])
    assert "macro F1: 1.000 (interval unknown" in str(right)


def test_auroc_is_the_share_of_ordered_pairs():
    e = answers(classes=2)
    positive = e.shares[e.labels == 1, 1]
    negative = e.shares[e.labels == 0, 1]
    share = np.mean([float(p > n) for p in positive for n in negative])
    assert e.scores.set_index("measure")["value"]["AUROC"] == pytest.approx(share)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_scikit_learns(classes):
    """Resampled: classes go missing, among the true ones and among the predicted; shares tie."""
    rng = np.random.default_rng(classes)
    shares = rng.multinomial(10, rng.dirichlet(np.full(classes, 0.3), 30)) / 10
    labels = rng.integers(0, classes, 30)
    every = range(classes)
    for _ in range(50):
        index = rng.integers(0, 30, 8)
        y, p = labels[index], shares[index]
        said, occur = p.argmax(1), np.unique(y)
        ours = {name: score(y, p) for name, score in _scores(classes).items()}
        recall = metrics.recall_score(y, said, labels=occur, average="macro", zero_division=0)
        f1 = metrics.f1_score(y, said, labels=np.union1d(occur, said), average="macro")
        assert ours["balanced accuracy"] == pytest.approx(recall)
        assert ours["macro F1"] == pytest.approx(f1)
        assert ours["log loss"] == pytest.approx(metrics.log_loss(y, p, labels=every))
        if classes == 2:
            both = len(occur) == 2
            area = metrics.roc_auc_score(y, p[:, 1]) if both else np.nan
            assert ours["AUROC"] == pytest.approx(area, nan_ok=True)


def test_wilson_interval_of_a_recall():
    e = answers()
    row = e.by_class.iloc[0]
    n, p, z = row["images"], row["recall"], 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (row["recall_low"], row["recall_high"]) == pytest.approx((centre - half, centre + half))


def test_calibration_error_of_cases_that_are_known():
    certain = np.array([[1.0, 0.0]] * 10)
    labels = np.array([0] * 7 + [1] * 3)
    assert calibration_error(labels, certain) == pytest.approx(0.3)
    honest = np.array([[0.7, 0.3]] * 10)
    assert calibration_error(labels, honest) == pytest.approx(0)
    slow, confidence = 0.0, answers().shares.max(1)
    e = answers()
    for b in range(15):
        inside = (confidence >= b / 15) & (confidence < (b + 1) / 15)
        if inside.any():
            gap = (e.predicted == e.labels)[inside].mean() - confidence[inside].mean()
            slow += inside.mean() * abs(gap)
    assert calibration_error(e.labels, e.shares) == pytest.approx(slow)


def test_mistakes_are_the_surest_first():
    table = answers().mistakes
    e = answers()
    assert (np.diff(table["probability"]) <= 0).all()
    assert len(table) == int((e.predicted != e.labels).sum())
    assert (table["class"] != table["predicted"]).all()


@pytest.fixture(scope="module")
def model():
    return ap.fit_model(small_cnn(), small_task(), layer=2, recipe=RECIPE)


def test_a_model_is_judged_as_it_was_tested(model):
    e = evaluate(model, small_task(), resamples=20)
    accuracy = e.scores.set_index("measure")["value"]["accuracy"]
    assert accuracy == pytest.approx(model.card.scores["test_accuracy"])
    loss = e.scores.set_index("measure")["value"]["log loss"]
    assert loss == pytest.approx(model.card.scores["test_loss"], abs=1e-5)


def test_classes_are_matched_by_name(model):
    task = small_task()
    turned = ap.Task("turned", task.classes[::-1], task.train, task.val, task.test)
    labels = 3 - evaluate(model, turned).labels
    assert (labels == task.test.labels).all()
    other = ap.Task("other", ("a", "b", "c", "z"), task.train, task.val, task.test)
    with pytest.raises(ap.InputError, match="'z'"):
        evaluate(model, other)
    with pytest.raises(ap.InputError, match="split"):
        evaluate(model, task, split="testing")


def test_the_page_is_whole_and_escapes_names(model):
    task = small_task()
    e = evaluate(model, task, resamples=20)
    page = evaluation_page(e, task.test, command="<script>")
    assert page.count("<figure>") == min(24, len(e.mistakes))
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for number in e.confusion.to_numpy().diagonal():
        assert f">{number or ''}</td>" in page


def of_counts(right, true):
    """Answers of which so many a class are right; the others name the next class."""
    labels = np.repeat(np.arange(len(true)), true)
    is_right = np.concatenate([np.arange(n) < k for k, n in zip(right, true, strict=True)])
    shares = np.eye(len(true))[np.where(is_right, labels, (labels + 1) % len(true))]
    names = tuple(str(number) for number in range(len(labels)))
    return Evaluation("m", "t", "test", tuple("abcdefghij"[: len(true)]), labels, shares, names)


@pytest.mark.parametrize(
    ("true", "recalls", "covered"),
    [
        ((40, 40), (0.9, 0.6), 0.93),
        ((40, 1), (0.9, 0.5), 0.95),
        ((20, 20), (0.98, 0.98), 0.92),
        ((5, 5, 5, 5), (0.9, 0.6, 0.3, 0.95), 0.93),
        ((50,) * 10, (0.9,) * 10, 0.93),
        ((1,) * 10, (0.7,) * 10, 0.80),
    ],
)
def test_the_interval_of_the_balanced_accuracy_covers(true, recalls, covered):
    draws = np.random.default_rng(0).binomial(true, recalls, size=(1000, len(true)))
    truth, hits, known = np.mean(recalls), 0, {}
    for right in map(tuple, draws):
        if right not in known:
            known[right] = of_counts(right, true)._of_recalls(np.mean(np.divide(right, true)))
        low, high = known[right]
        hits += low <= truth <= high
    assert hits / len(draws) >= covered


def test_a_class_of_one_picture_makes_intervals_wide_or_unknown():
    scores = of_counts((39, 0), (40, 1)).scores.set_index("measure")
    assert scores.loc["balanced accuracy", "high"] < 0.95  # draws without it would say 1
    assert scores.loc["balanced accuracy", "low"] < 0.4
    assert np.isnan(scores.loc["macro F1", "low"])
    assert np.isfinite(
        of_counts((39, 3), (40, 5)).scores.set_index("measure").loc["macro F1", "low"]
    )


def test_the_mean_f1_is_drawn_within_each_class():
    """A class that is never right has an F1 of 0 in every draw."""
    row = of_counts((30, 0), (40, 5)).scores.set_index("measure").loc["macro F1"]
    assert row["low"] <= row["value"] <= row["high"] < 0.5


@pytest.mark.parametrize(
    ("task", "options", "reason"),
    [
        ("quarters.zip", {}, "quarters.zip"),
        (None, {"batch_size": 0}, "batch_size of evaluate is 0"),
        (None, {"batch_size": 2.5}, "batch_size of evaluate is 2.5"),
        (None, {"resamples": 1}, "resamples of evaluate is 1"),
        (None, {"split": "all"}, "split is 'all'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(task, options, reason):
    model = ap.fit_model(small_cnn(), small_task(), method="linear_probe", recipe=RECIPE)
    with pytest.raises(ap.InputError, match=reason):
        evaluate(model, task or small_task(), **options)
    with pytest.raises(ap.InputError, match="model of evaluate is"):
        evaluate(small_cnn(), small_task())
