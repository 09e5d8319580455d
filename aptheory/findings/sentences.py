"""What a run's tables say: one row a network and task, and plain sentences.

Differences are paired over seeds: run 0 of the prompt against run 0 of the linear probe. A gain is
called clear where the 95 % t interval of that difference lies on one side of zero.
"""

import numpy as np
import pandas as pd

from aptheory.findings.chosen import best_layers
from aptheory.findings.relate import spearman
from aptheory.findings.statistics import mean_interval

Interval = tuple[float, float, float]
NOTHING: Interval = (float("nan"), float("nan"), float("nan"))


def cases(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The place chosen on validation data for each network and task, and what it brings.

    Returns:
        `best_layers` with, in points of test accuracy, ``gain, gain_low, gain_high`` over the
        linear probe and ``image, image_low, image_high`` over a prompt on the image (NaN where the
        image itself was chosen or was not run), and ``layers``, the index of the last place.
    """
    chosen = best_layers(accuracy) if len(accuracy) else pd.DataFrame()
    rows = []
    for row in chosen.to_dict("records"):
        curves = by_seed(accuracy, str(row["network"]), str(row["task"]))
        prompt = curves[str(row["method"])]
        here = prompt.loc[row["layer"]]
        probe = curves["linear_probe"].mean() if "linear_probe" in curves else None
        gain = paired(here, probe)
        image = NOTHING
        if row["layer"] != 0 and 0 in prompt.index:
            image = paired(here, prompt.loc[0])
        row |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
        row |= dict(zip(("image", "image_low", "image_high"), image, strict=True))
        rows.append(row | {"layers": int(prompt.index.max())})
    return pd.DataFrame(rows)


def by_seed(accuracy: pd.DataFrame, network: str, task: str) -> dict[str, pd.DataFrame]:
    """Test accuracy of each method: layers down, seeds across."""
    rows = accuracy[(accuracy["network"] == network) & (accuracy["task"] == task)]
    rows = rows[rows["measure"] == "test_accuracy"]
    return {
        str(method): group.pivot_table(index="layer", columns="seed", values="value")
        for method, group in rows.groupby("method")
    }


def by_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds and its interval at each layer."""
    return mean_by(rows, "layer")


def mean_by(rows: pd.DataFrame, column: str, value: str = "value") -> pd.DataFrame:
    """``value, low, high`` for each entry of a column: the mean and its 95 % t interval."""
    groups = rows.groupby(column)[value]
    bounds = {at: mean_interval(one.to_numpy(float)) for at, one in groups}
    table = pd.DataFrame.from_dict(bounds, orient="index", columns=["low", "high"])
    table.insert(0, "value", groups.mean())
    return table


def paired(ours: pd.Series, theirs: pd.Series | None) -> Interval:
    """Mean difference in points over the seeds that both have, with its 95 % t interval."""
    if theirs is None:
        return NOTHING
    gaps = (100 * (ours - theirs)).dropna().to_numpy(float)
    if not len(gaps):
        return NOTHING
    return (float(gaps.mean()), *mean_interval(gaps))


def clear(low: float, high: float) -> bool:
    """Whether an interval lies on one side of zero."""
    return bool(low > 0 or high < 0)


def sentences(accuracy: pd.DataFrame, relation: pd.DataFrame) -> list[str]:
    """What the tables say, in plain sentences, the most important first."""
    table = cases(accuracy)
    said = _overview(table)
    said += [_case(row, accuracy) for row in table.to_dict("records")]
    return said + checks(accuracy, relation)


def overview(accuracy: pd.DataFrame) -> list[str]:
    """The same over all networks and tasks of the table: a sentence a network."""
    return _overview(cases(accuracy))


def checks(accuracy: pd.DataFrame, relation: pd.DataFrame) -> list[str]:
    """The control that must hold, and whether a metric explains the preference."""
    return (_control(accuracy) if len(accuracy) else []) + _relations(relation)


def _overview(table: pd.DataFrame) -> list[str]:
    if len(table) < 2:
        return []
    said = []
    for network, rows in table.groupby("network", sort=False):
        better = int((rows["gain_low"] > 0).sum())
        depths = rows["depth"]
        where = f"{depths.median():.2f} of its depth"
        if len(rows) > 1:
            where += f" in the median ({depths.min():.2f} to {depths.max():.2f})"
        tasks = f"{len(rows)} tasks" if len(rows) > 1 else "one task"
        said.append(
            f"{network}, {tasks}: the best place for a prompt lies at {where}; it clearly beats "
            f"the linear probe on {better} of {len(rows)}, by {rows['gain'].mean():+.1f} points "
            "on average."
        )
    return said


def _case(row: dict[str, object], accuracy: pd.DataFrame) -> str:
    gain, low, high = (float(str(row[key])) for key in ("gain", "gain_low", "gain_high"))
    place = f"layer {row['layer']} of {row['layers']} ({row['layer_name']})"
    value = percent(*(float(str(row[key])) for key in ("value", "low", "high")))
    told = f"{value} test accuracy over {row['seeds']} seeds"
    head = f"On {row['task']}, {row['network']}"
    if low <= 0 or gain <= 0:  # never true of what is unknown
        sentence = f"{head} has no clear gain: validation data choose {place}, {told}"
    else:
        sentence = f"{head} gains from a prompt at {place}, chosen on validation data: {told}"
    against = []
    curves = by_seed(accuracy, str(row["network"]), str(row["task"]))
    if np.isfinite(gain):
        probe = 100 * float(curves["linear_probe"].mean().mean())
        against.append(f"{probe:.1f} % for the linear probe ({points(gain, low, high)})")
    image = [float(str(row[key])) for key in ("image", "image_low", "image_high")]
    if np.isfinite(image[0]):
        shown = 100 * float(curves[str(row["method"])].loc[0].mean())
        against.append(f"{shown:.1f} % for a prompt on the image ({points(*image)})")
    sentence += f", against {' and '.join(against)}." if against else "."
    curve = curves[str(row["method"])].mean(axis=1)
    if len(curve) >= 4:
        depth = spearman(curve.index.to_numpy(float), curve.to_numpy(float))
        sentence += f" Accuracy and depth correlate at {depth:+.2f} over {len(curve)} layers."
    return sentence


def _control(accuracy: pd.DataFrame) -> list[str]:
    """Whether AP at the classifier's input equals the linear probe, as it must."""
    gaps: list[float] = []
    for network, task in accuracy[["network", "task"]].drop_duplicates().itertuples(index=False):
        curves = by_seed(accuracy, network, task)
        if {"ap", "linear_probe"} <= set(curves):
            last = curves["ap"].iloc[-1]
            gaps += list((100 * (last - curves["linear_probe"].mean())).dropna())
    if not gaps:
        return []
    return [
        "Control: AP at the classifier's input can express exactly what the linear probe can; "
        f"trained each by itself, AP's accuracy there is {np.mean(gaps):+.2f} points from the "
        f"probe's on average, and at most {np.abs(gaps).max():.2f} in one run. Differences of this "
        "size are the optimiser's, not the layer's."
    ]


def _relations(relation: pd.DataFrame) -> list[str]:
    if relation.empty:
        return []
    rows = relation[relation["statistic"] == "spearman"].dropna(subset=["value"])
    if "target" in rows:
        rows = rows[rows["target"] == "ap"]
    if rows.empty:
        return []
    looks = int(rows["looks"].iloc[0])
    if not looks:
        layers = int(rows["layers"].max())
        return [
            "Whether a metric explains the layer preference cannot be tested here: with "
            f"{layers} layers the smallest p of one curve is 1/{2 * layers}, which no correction "
            f"over {rows['measure'].nunique()} metrics leaves below 0.05. It takes several "
            "networks."
        ]
    found = rows[rows["q"] <= 0.05]
    said = [
        f"{row.measure.replace('_', ' ').capitalize()} correlates with AP's accuracy over layers "
        f"at {row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}] for {row.network} on {row.task}."
        for row in found.itertuples()
    ]
    if found.empty:
        strongest = rows.loc[rows["value"].abs().idxmax()]
        said.append(
            f"No metric explains the layer preference beyond chance after {looks} looks; the "
            f"strongest rank correlation is {strongest['value']:+.2f} "
            f"({str(strongest['measure']).replace('_', ' ')}, {strongest['network']} on "
            f"{strongest['task']})."
        )
    return said


def percent(value: float, low: float, high: float) -> str:
    """``59.8 % [57.2, 62.3]`` of fractions; the interval where there is one."""
    if np.isnan(low):
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def points(value: float, low: float, high: float) -> str:
    """``+1.2 points [-0.3, +2.7]``; the interval where there is one."""
    said = f"{value:+.1f} points"
    return said if np.isnan(low) else f"{said} [{low:+.1f}, {high:+.1f}]"
