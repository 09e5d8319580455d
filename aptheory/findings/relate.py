"""Do global features explain where an activation prompt works best?

The paper answers by eye: two curves over depth, side by side. Here the answer is a rank
correlation over layers with an interval and a p-value that respect three facts about such
curves:

- *They are smooth.* Neighbouring layers are not independent observations, so the textbook
  p-value is far too small. The null distribution used here rotates one curve, followed by its
  mirror image, against the other (circular shift): it keeps each curve's smoothness and breaks
  only their alignment. With n layers p is never below 1/(2n): with the dozen of layers that
  networks have, no single curve survives a correction for many looks. Evidence comes from
  several networks (`across`).
- *They are noisy.* Accuracy has seeds; the interval resamples seeds and blocks of layers together.
- *Depth may be the whole story.* Anything that rises with depth correlates with anything else
  that does; the partial correlation given depth says what is left.

Every table that goes in or comes out is tidy: one observation a row (network, task, layer,
method, seed, measure, value).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from aptheory.errors import InputError

Curve = Float[np.ndarray, " layers"]

TARGETS = ("ap", "ap - linear_probe", "ap - layer_probe")
"""What a metric may explain: AP's accuracy, or its gain over one of the two probes."""


def spearman(x: Curve, y: Curve) -> float:
    """Spearman's rank correlation, with ties at their mean rank; nan when a curve is constant."""
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def partial_spearman(x: Curve, y: Curve, given: Curve) -> float:
    """Rank correlation of x and y with the rank of a third curve held fixed.

    r(xy|d) = (r_xy − r_xd·r_yd) / √((1 − r_xd²)(1 − r_yd²)). It is nan when x or y is a monotone
    function of the third curve: then the two cannot be told apart, whatever the data.
    """
    r_xy, r_xd, r_yd = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = (1 - r_xd**2) * (1 - r_yd**2)
    return float("nan") if not rest > 1e-12 else float((r_xy - r_xd * r_yd) / np.sqrt(rest))


def circular_shift_p(x: Curve, y: Curve, statistic: Callable[[Curve, Curve], float]) -> float:
    """Two-sided p-value of a statistic under all circular shifts of the reflected curve y.

    y is followed by its mirror image before it is rotated, and the first n values of each of the
    2n rotations count. A layer curve does not end where it began: plain rotation tears it, the
    torn copies correlate less with a smooth x than an untorn independent curve would, and the
    test rejects up to four times too often. The reflected curve has no tear; on Gaussian
    processes and random walks the level is then close to nominal (tests/test_relate.py).
    The identity is one of the rotations, so p is at least 1/(2n).
    """
    observed = abs(statistic(x, y))
    if np.isnan(observed):
        return float("nan")
    ring = np.concatenate([y, y[::-1]])
    turned = [abs(statistic(x, np.roll(ring, shift)[: len(y)])) for shift in range(len(ring))]
    return float(np.mean([not value < observed - 1e-12 for value in turned]))


def block_bootstrap(
    x: Curve,
    y: Float[np.ndarray, "seeds layers"],
    statistic: Callable[[Curve, Curve], float],
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of statistic(x, mean over seeds of y), seeds and layers resampled.

    Layers are drawn in runs of ⌈n^(1/3)⌉ + 1 neighbours (moving blocks, Künsch 1989), because a
    resample of single layers would treat a smooth curve as independent points.
    """
    generator = np.random.default_rng(seed)
    seeds, layers = y.shape
    length = min(layers, int(np.ceil(layers ** (1 / 3))) + 1)
    values = []
    for _ in range(draws):
        starts = generator.integers(0, layers - length + 1, size=-(-layers // length))
        places = (starts[:, None] + np.arange(length)).ravel()[:layers]
        rows = generator.integers(0, seeds, size=seeds)
        values.append(statistic(x[places], y[rows].mean(0)[places]))
    kept = np.asarray(values)[~np.isnan(values)]
    if len(kept) < draws / 2:
        return float("nan"), float("nan")
    tail = 50 * (1 - confidence)
    low, high = np.percentile(kept, [tail, 100 - tail])
    return float(low), float(high)


def relate(
    profile: pd.DataFrame,
    accuracy: pd.DataFrame,
    *,
    measures: Sequence[str] | None = None,
    target: str = "ap",
    on: str = "test_accuracy",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of every metric with the accuracy of AP over layers.

    The linear probe is one number a seed, the same for all layers: against
    ``"ap - linear_probe"`` the correlation and its p are by construction those against ``"ap"``,
    and only the interval differs, by the seeds.

    Args:
        profile: tidy metrics, one row per (network, task, layer, measure); rows that differ only
            in head are averaged, and pairwise measures (those with an ``other_layer``) left out.
        accuracy: tidy accuracies, one row per (network, task, layer, method, seed, measure).
        measures: the metrics to look at; all in the profile by default.
        target: ``"ap"``, ``"ap - linear_probe"`` or ``"ap - layer_probe"``.
        on: the accuracy that is explained.
        draws: resamples behind each interval.
        seed: seed of the resampling.

    Returns:
        One row per (network, task, measure, statistic) with ``value, low, high, p, q, layers,
        looks, note``. ``statistic`` is ``spearman`` or ``spearman_given_depth``; p comes from
        circular shifts, q corrects it over all ``looks`` rows of the table (Benjamini and
        Hochberg 1995).

    Raises:
        InputError: no (network, task) has four layers or more in both tables.
    """
    rows = []
    for network, task, x_of, y, layers in _pairs(profile, accuracy, measures, target, on):
        depth = layers.astype(float)
        for measure, x in x_of.items():
            present = ~np.isnan(x)
            if present.sum() < 4:
                continue
            for statistic in ("spearman", "spearman_given_depth"):
                rows.append(
                    {"network": network, "task": task, "measure": measure, "target": target}
                    | _one(statistic, x[present], y[:, present], depth[present], draws, seed)
                )
    if not rows:
        raise InputError(
            "nothing to relate: no network and task has at least four layers with both a metric "
            "and an accuracy; profile and sweep the same network on the same task first"
        )
    return corrected(pd.DataFrame(rows))


def across(relation: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """The mean correlation over networks and tasks, networks as the units.

    A random-effects model with an intercept for each network, in its balanced form: ``value`` is
    the mean of the networks' means over tasks, and ``low, high, p`` are Student's t over those
    means, with networks − 1 degrees of freedom (``p`` for a mean of 0). Tasks on one network
    share its metrics and are not independent evidence, and a network's own smooth curve, however
    strongly it correlates by chance, is one observation here. With a single network there is no
    such interval: all three are nan and ``note`` says so. ``q`` corrects p over all ``looks`` rows
    (Benjamini and Hochberg 1995).

    ``without_network_low/high`` and ``without_task_low/high`` are the extremes of the mean when
    any one network or task is left out: a finding that hangs on one of them shows it here.
    ``verdict`` is in words; a null result says "no relation shown".
    """
    rows = []
    for key, group in relation.dropna(subset=["value"]).groupby(["target", "measure", "statistic"]):
        target, measure, statistic = key
        means = group.groupby("network")["value"].mean().to_numpy(float)
        low, high = mean_interval(means, confidence=confidence)
        row = {
            "target": target,
            "measure": measure,
            "statistic": statistic,
            "value": float(means.mean()),
            "low": max(-1.0, low) if low == low else low,
            "high": min(1.0, high) if high == high else high,
            "p": _mean_p(means),
            "networks": len(means),
            "tasks": group["task"].nunique(),
            "note": "" if len(means) > 1 else "one network: nothing can be said of others",
        }
        for name in ("network", "task"):
            left = [_mean_of_networks(group[group[name] != one]) for one in group[name].unique()]
            left = [value for value in left if not np.isnan(value)] or [float("nan")]
            row |= {f"without_{name}_low": min(left), f"without_{name}_high": max(left)}
        rows.append(row)
    table = corrected(pd.DataFrame(rows)) if rows else pd.DataFrame(rows)
    if rows:
        table["verdict"] = [_verdict(row.value, row.q) for row in table.itertuples()]
    return table


def best_layers(accuracy: pd.DataFrame, *, method: str = "ap") -> pd.DataFrame:
    """The layer with the best validation accuracy, and the test accuracy that it brings.

    The choice is made on the mean validation accuracy over seeds and never sees the test split.
    ``low`` and ``high`` are Student's t interval of the mean test accuracy over seeds (95 %);
    ``regret`` is what the layer best on *test* would have brought more.
    """
    rows = []
    chosen = accuracy[accuracy["method"] == method]
    for key, group in chosen.groupby(["network", "task"]):
        network, task = key
        table = group.pivot_table(
            index="layer", columns=["measure", "seed"], values="value", aggfunc="mean"
        )
        if "val_accuracy" not in table or "test_accuracy" not in table:
            continue
        layer = int(table[["val_accuracy"]].mean(axis=1).idxmax())
        test = table.xs("test_accuracy", axis=1)
        values = test.loc[layer].dropna().to_numpy()
        low, high = mean_interval(values)
        rows.append(
            {
                "network": network,
                "task": task,
                "method": method,
                "layer": layer,
                "layer_name": _name(group, layer),
                "depth": layer / max(1, int(table.index.max())),
                "value": float(values.mean()),
                "low": low,
                "high": high,
                "seeds": len(values),
                "regret": float(test.mean(axis=1).max() - test.loc[layer].mean()),
            }
        )
    return pd.DataFrame(rows)


def mean_interval(
    values: Float[np.ndarray, " n"], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Student's t interval of a mean; (nan, nan) for a single value, which has no spread."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def clustered_interval(
    values: Float[np.ndarray, " n"], groups: Sequence[str] | np.ndarray, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean whose values come in groups that share something (tasks of a network).

    Cluster-robust (Liang and Zeger 1986) with the G/(G − 1) correction and Student's t with G − 1
    degrees of freedom. With one group its members are the units, as in `mean_interval`.
    """
    values = np.asarray(values, dtype=float)
    sums = pd.Series(values - values.mean()).groupby(np.asarray(groups)).sum().to_numpy()
    count = len(sums)
    if count < 2:
        return mean_interval(values, confidence=confidence)
    error = np.sqrt(count / (count - 1) * (sums @ sums)) / len(values)
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * error
    return float(values.mean() - half), float(values.mean() + half)


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows with ``looks``, how many have a p, and ``q``, p corrected over all of them.

    Benjamini and Hochberg 1995. Tables that are read together are corrected together:
    ``corrected(pd.concat(tables))``.
    """
    table = table.copy()
    tested = table["p"].notna()
    table["looks"] = int(tested.sum())
    table["q"] = np.nan
    if tested.any():
        table.loc[tested, "q"] = stats.false_discovery_control(table.loc[tested, "p"])
    return table


def _mean_of_networks(rows: pd.DataFrame) -> float:
    return float(rows.groupby("network")["value"].mean().mean())


def _mean_p(means: np.ndarray) -> float:
    """Student's t of the mean against 0, two-sided; nan for one value."""
    if len(means) < 2:
        return float("nan")
    spread = stats.sem(means)
    if spread == 0:
        return 1.0 if means.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(means.mean() / spread), len(means) - 1))


def _verdict(value: float, q: float, level: float = 0.05) -> str:
    if np.isnan(q):
        return "cannot be told"
    if q > level:
        return "no relation shown"
    return "rises with accuracy" if value > 0 else "falls with accuracy"


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def _one(
    statistic: str, x: Curve, y: np.ndarray, depth: Curve, draws: int, seed: int
) -> dict[str, object]:
    """One row of the relation table: value, interval, p and, where it is undefined, why."""
    mean = y.mean(0)
    note = ""
    if statistic == "spearman":
        value = spearman(x, mean)
        low, high = block_bootstrap(x, y, spearman, draws=draws, seed=seed)
        p = circular_shift_p(x, mean, spearman)
        if np.isnan(value):
            note = "constant over layers"
    else:
        value = partial_spearman(x, mean, depth)
        # A rotation would misalign depth too, so x is rotated alone against (accuracy, depth).
        p = circular_shift_p(
            np.arange(len(x), dtype=float),
            np.arange(len(x), dtype=float),
            lambda _, order: partial_spearman(x[order.astype(int)], mean, depth),
        )
        joint = np.stack([x, depth])
        low, high = _partial_interval(joint, y, draws, seed)
        if np.isnan(value):
            note = "a monotone function of depth: the two cannot be told apart"
    return {
        "statistic": statistic,
        "value": value,
        "low": low,
        "high": high,
        "p": p,
        "layers": len(x),
        "seeds": len(y),
        "note": note,
    }


def _partial_interval(
    joint: np.ndarray, y: np.ndarray, draws: int, seed: int
) -> tuple[float, float]:
    """Block bootstrap of the partial correlation: the index stands in for x, so all three move."""
    index = np.arange(joint.shape[1], dtype=float)

    def statistic(places: Curve, accuracy: Curve) -> float:
        order = places.astype(int)
        return partial_spearman(joint[0, order], accuracy, joint[1, order])

    return block_bootstrap(index, y, statistic, draws=draws, seed=seed)


def _pairs(
    profile: pd.DataFrame,
    accuracy: pd.DataFrame,
    measures: Sequence[str] | None,
    target: str,
    on: str,
) -> Iterator[tuple[str, str, dict[str, Curve], np.ndarray, np.ndarray]]:
    """Every (network, task) with its metric curves and its accuracy by seed over shared layers."""
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}")
    single = profile
    if "other_layer" in profile:
        single = profile[profile["other_layer"].isna()]
    known = sorted(single["measure"].unique())
    for name in measures or ():
        if name not in known:
            raise InputError(f"the profile has no measure {name!r}: it has {', '.join(known)}")
    wanted = list(measures) if measures else known
    curves = single.pivot_table(
        index=["network", "task", "layer"], columns="measure", values="value", aggfunc="mean"
    )
    metrics = {key: rows.droplevel([0, 1]) for key, rows in curves.groupby(level=[0, 1])}
    for key, group in accuracy[accuracy["measure"] == on].groupby(["network", "task"]):
        network, task = key
        gain = _gain(group, target)
        metric = metrics.get((network, task))
        if gain is None or metric is None:
            continue
        layers = gain.columns.intersection(metric.index).sort_values()
        if len(layers) < 4:
            continue
        x_of = {name: metric.loc[layers, name].to_numpy(float) for name in wanted}
        yield str(network), str(task), x_of, gain[layers].to_numpy(float), layers.to_numpy()


def _gain(group: pd.DataFrame, target: str) -> pd.DataFrame | None:
    """AP's accuracy, less the control's of the same seed: seeds down, layers across."""
    tables = {
        method: rows.pivot_table(index="seed", columns="layer", values="value", aggfunc="mean")
        for method, rows in group.groupby("method")
    }
    if "ap" not in tables:
        return None
    ap = tables["ap"]
    control = target.removeprefix("ap").removeprefix(" - ")
    if not control:
        return ap.dropna(axis=1)
    if control not in tables:
        return None
    other = tables[control]
    if control == "linear_probe":  # one number a seed, whatever its place is called
        return ap.sub(other.mean(axis=1), axis=0).dropna()
    return (ap - other).dropna(axis=1, how="all").dropna()


def _name(group: pd.DataFrame, layer: int) -> str:
    if "layer_name" not in group:
        return str(layer)
    return str(group.loc[group["layer"] == layer, "layer_name"].iloc[0])
