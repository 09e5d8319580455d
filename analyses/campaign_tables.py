"""Turn the campaign's journal into tables, and judge what `analyses/PLAN.md` says is judged.

    python -m analyses.campaign_tables [--out results/evidence]

Writes pairs.csv (one row a network, task and seed, which is a draw of the training and validation
pictures: accuracy of every rival, all choices on validation pictures), maps.csv (accuracy over the
place of the prompt and the place of reading), norm.csv (the prompt and the norm at the same place),
and judged.csv (a row a judged statistic: value, interval over networks, how many of its runs were
still moving at the end). Where `analyses.campaign_ends` has trained chosen runs again,
judged_flat.csv has the statistics of the pairs whose four runs are flat by their validation
accuracy: exploratory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.campaign import read
from analyses.campaign_plan import NEAR, NETWORKS
from aptheory.findings.statistics import Interval, clustered_mean, mean_correlation

FEWEST = 3
"""Networks for an interval: Student's t of two is 13 times their spread."""

RUN = ["network", "task", "seed", "method", "layer", "read"]


def read_journal(folder: Path) -> pd.DataFrame:
    """Every run of the journal, with its question, kind of network and nearness of the task."""
    table = pd.DataFrame(list(read(folder)))
    table["question"] = table["unit"].str.partition("/")[0]
    table["kind"] = table["network"].map({name: spec.kind for name, spec in NETWORKS.items()})
    table["near"] = table["task"].isin(NEAR)
    return table


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a method and place: the rate that validation pictures choose, ties by the loss."""
    keys = [*RUN, "place"] if "place" in runs else RUN
    ranked = runs.sort_values(
        ["val_accuracy", "val_loss", "lr"], ascending=[False, True, True], kind="stable"
    )
    return ranked.groupby(keys, as_index=False, dropna=False).first()


def chosen(rows: pd.DataFrame) -> pd.Series:
    """The row that validation pictures choose."""
    ranked = rows.sort_values(["val_accuracy", "val_loss"], ascending=[False, True], kind="stable")
    return ranked.iloc[0]


def place_slope(rows: pd.DataFrame) -> float:
    """Between place and test accuracy, the last place (a probe) left out; nan below 4 places."""
    inner = rows[rows["layer"] < rows["read"]]
    if len(inner) < 4:
        return float("nan")
    return float(inner["layer"].corr(inner["test_accuracy"], method="spearman"))


def pairs(
    journal: pd.DataFrame, question: str = "sweep", papers: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """One row a network, task and seed: every rival's test accuracy, and where it stood.

    papers : the papers' place of each network; AP there, or at the swept place nearest to it (the
        deeper of two), is ``ap_papers_place``. ``ap_elsewhere`` is AP at the place whose validation
        accuracy is best on the network's other tasks, ``own_probe`` the probe of the place that AP
        was chosen at.
    """
    sweeps = best_rates(journal[journal["question"] == question])
    elsewhere = places_of_other_tasks(sweeps)
    rows = []
    for (network, task, seed), runs in sweeps.groupby(["network", "task", "seed"]):
        last = int(runs["places"].iloc[0]) - 1
        prompts = runs[runs["method"] == "ap"]
        end = prompts[prompts["read"] == last]
        probe = chosen(runs[runs["method"] == "layer_probe"])
        earlier = prompts[prompts["read"] == probe["read"]]
        at_end, read_early = chosen(end), chosen(earlier)
        used = [at_end, read_early, probe, chosen(runs[runs["method"] == "linear_probe"])]

        def accuracy(method: str, rows: pd.DataFrame = runs, **where: float) -> float:
            found = rows[rows["method"] == method]
            for column, value in where.items():
                found = found[found[column] == value]
            return float(found["test_accuracy"].iloc[0]) if len(found) else float("nan")

        rows.append(
            {
                "network": network,
                "kind": runs["kind"].iloc[0],
                "task": task,
                "near": bool(runs["near"].iloc[0]),
                "seed": seed,
                "linear_probe": accuracy("linear_probe"),
                "layer_probe": probe["test_accuracy"],
                "all_layers_probe": accuracy("all_layers_probe"),
                "all_layers_selected": accuracy("all_layers_probe_selected"),
                "ap_end": at_end["test_accuracy"],
                "ap_end_best_on_test": end["test_accuracy"].max(),
                "ap_elsewhere": accuracy("ap", layer=elsewhere[network, task, seed], read=last),
                "ap_papers_place": accuracy(
                    "ap", layer=nearest(end["layer"], (papers or {}).get(str(network))), read=last
                ),
                "own_probe": accuracy("layer_probe", read=at_end["layer"]),
                "ap_read_early": read_early["test_accuracy"],
                "vp_end": accuracy("ap", layer=0, read=last),
                "vp_read_early": accuracy("ap", layer=0, read=probe["read"]),
                "random_end": accuracy("random", layer=at_end["layer"], read=last),
                "random_read_early": accuracy(
                    "random", layer=read_early["layer"], read=probe["read"]
                ),
                "depth_end": at_end["layer"] / last,
                "depth_read_early": read_early["layer"] / last,
                "read": probe["read"] / last,
                "slope_end": place_slope(end),
                "slope_read_early": place_slope(earlier),
                "moving": sum(
                    not (row["converged"] is not None and row["converged"]) for row in used
                ),
                "runs": len(used),
            }
        )
    return pd.DataFrame(rows)


def places_of_other_tasks(sweeps: pd.DataFrame) -> dict[tuple[str, str, int], float]:
    """The place of each network, task and seed whose prompts, read at the end, have the best mean
    validation accuracy on the network's other tasks; nan where there is no other task."""
    ends = (sweeps["method"] == "ap") & (sweeps["read"] == sweeps["places"] - 1)
    found = {}
    for (network, seed), runs in sweeps[ends].groupby(["network", "seed"]):
        table = runs.pivot_table(index="task", columns="layer", values="val_accuracy")
        for task in table.index:
            others = table.drop(index=task).mean()
            found[str(network), str(task), int(str(seed))] = (
                float(others.idxmax()) if others.notna().any() else float("nan")
            )
    return found


def nearest(places: pd.Series, place: int | None) -> float:
    """The one of some places nearest to another, the deeper of two; nan where none is asked for."""
    if place is None:
        return float("nan")
    return float(min(places, key=lambda one: (abs(one - place), -one)))


def curves(journal: pd.DataFrame, question: str = "sweep") -> pd.DataFrame:
    """Measured curves, prompts read at the end: a row a pair, seed and swept place.

    ``measured``: gain over the linear probe in points, at the rate that validation chooses;
    ``prompt``: the norm of that run's prompt; ``moving``: whether the run still was at its end. The
    last place, where a prompt is a probe, is left out.
    """
    sweeps = best_rates(journal[journal["question"] == question])
    keys = ["network", "kind", "task", "near", "seed"]
    probe = sweeps[sweeps["method"] == "linear_probe"].set_index(keys)["test_accuracy"]
    last = sweeps["places"] - 1
    ends = (sweeps["method"] == "ap") & (sweeps["read"] == last) & (sweeps["layer"] < last)
    rows = sweeps[ends]
    gain = rows["test_accuracy"] - rows.set_index(keys).index.map(probe)
    table = rows.assign(measured=100 * gain, moving=rows["converged"] != True)  # noqa: E712
    return table.rename(columns={"norm": "prompt"})[
        [*keys, "layer", "measured", "prompt", "moving"]
    ]


def flat_by_accuracy(table: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose chosen runs, trained again, all ended with a flat validation accuracy.

    They were trained again on the first draw alone.
    """
    table = table[table["seed"] == 0]
    flat = ends.groupby(["network", "task"])["accuracy_flat"].agg(
        lambda marks: marks.eq(True).all()
    )
    keys = pd.MultiIndex.from_frame(table[["network", "task"]])
    return table[flat.reindex(keys).eq(True).to_numpy()]


def _difference(table: pd.DataFrame, a: str, b: str) -> Interval:
    points = 100 * (table[a] - table[b])
    return clustered_mean(points, table["network"], table["task"])


def _far_minus_near(table: pd.DataFrame, column: str) -> Interval:
    """Mean over a network's far tasks minus mean over its near ones, networks as units."""
    means = table.groupby(["network", "near"])[column].mean().unstack()
    gaps = (means[False] - means[True]).dropna()
    return clustered_mean(gaps, gaps.index)


def parts(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The pairs of all networks, of either kind, and those on far and on near tasks."""
    cnn, near = table["kind"] == "cnn", table["near"].astype(bool)
    return {
        "all": table,
        "CNNs": table[cnn],
        "ViTs": table[~cnn],
        "far tasks": table[~near],
        "near tasks": table[near],
    }


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The statistics of the plan that the sweeps decide, a row each."""
    cnn, vit = table[table["kind"] == "cnn"], table[table["kind"] == "vit"]
    everything: list[tuple[str, str, pd.DataFrame, Callable[[pd.DataFrame], Interval], str]] = [
        ("J1", "Spearman(depth, AP at the end), far minus near", table,
         lambda t: _far_minus_near(t, "slope_end"), "negative"),
        ("J2", "Spearman(depth, AP at the end), CNNs", cnn,
         lambda t: mean_correlation(t["slope_end"], t["network"], t["task"]), "positive"),
        ("J2", "Spearman(depth, AP at the end), ViTs", vit,
         lambda t: mean_correlation(t["slope_end"], t["network"], t["task"]), "negative"),
        ("J2", "Spearman(depth, AP read early), CNNs", cnn,
         lambda t: mean_correlation(t["slope_read_early"], t["network"], t["task"]), "positive"),
        ("J2", "Spearman(depth, AP read early), ViTs", vit,
         lambda t: mean_correlation(t["slope_read_early"], t["network"], t["task"]), "negative"),
    ]  # fmt: skip
    gaps = (
        ("J3", "ap_read_early", "ap_end", "positive"),
        ("J4", "ap_read_early", "layer_probe", "positive"),
        ("J4", "ap_read_early", "all_layers_probe", "positive"),
        ("J5", "ap_end", "layer_probe", "none"),
        ("J6", "ap_end", "random_end", "positive"),
        ("J6", "ap_read_early", "random_read_early", "positive"),
        ("J7", "vp_end", "ap_end", "negative"),
        ("J7", "vp_read_early", "ap_read_early", "negative"),
        ("J8", "ap_end", "linear_probe", "positive"),
    )
    rows = [
        _row(number, words, statistic(part), part, expected)
        for number, words, part, statistic, expected in everything
    ]
    for number, a, b, expected in gaps:
        for name, part in parts(table).items():
            interval = _difference(part.dropna(subset=[a, b]), a, b)
            rows.append(_row(number, f"{a} − {b} (points), {name}", interval, part, expected))
    return pd.DataFrame(rows)


def _row(
    number: str, words: str, interval: Interval, part: pd.DataFrame, expected: str
) -> dict[str, object]:
    return {
        "judged": number,
        "statistic": words,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "networks": interval.n,
        "pairs": number_of_pairs(part),
        "expected": expected,
        "agrees": agreement(interval, expected),
        "runs_still_moving": _moving(part),
    }


def number_of_pairs(table: pd.DataFrame) -> int:
    """How many networks and tasks, however many draws there are of each."""
    return len(
        table.drop_duplicates(["network", "task"]) if {"task", "seed"} <= {*table} else table
    )


def mean_over_draws(table: pd.DataFrame) -> pd.DataFrame:
    """A row a pair: the numbers of `pairs` averaged over its draws."""
    keys = ["network", "kind", "task", "near"]
    return table.drop(columns="seed").groupby(keys, sort=False).mean().reset_index()


def _moving(part: pd.DataFrame) -> str:
    return f"{int(part['moving'].sum())} of {int(part['runs'].sum())}"


def agreement(interval: Interval, expected: str) -> str:
    """Whether the whole interval agrees with the expectation, contradicts it, or neither."""
    if not interval.known:
        return "unknown"
    if expected == "none":
        return "above 0" if interval.low > 0 else "below 0" if interval.high < 0 else "around 0"
    sign = 1 if expected == "positive" else -1
    low, high = sorted((sign * interval.low, sign * interval.high))
    return "yes" if low > 0 else "no" if high < 0 else "undecided"


def maps(journal: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over (l, k): the prompts, and on the diagonal the layer probes."""
    runs = best_rates(journal[journal["question"] == "map"])
    runs["depth"] = runs["layer"] / (runs["places"] - 1)
    runs["read_depth"] = runs["read"] / (runs["places"] - 1)
    columns = [
        *("network", "kind", "task", "near", "seed", "method", "layer", "read", "depth"),
        *("read_depth", "lr", "val_accuracy", "val_loss", "test_accuracy", "converged"),
    ]
    return runs[columns]


def norm(journal: pd.DataFrame) -> pd.DataFrame:
    """Gain over the linear probe of the prompt, its channel form, β, and γ with β, by place."""
    runs = best_rates(journal[journal["question"] == "norm"])
    runs["at"] = runs["place"].fillna(runs["layer"])
    keys = ["network", "task", "seed"]
    probe = runs[runs["method"] == "linear_probe"].set_index(keys)["test_accuracy"]
    runs["gain"] = runs["test_accuracy"] - runs.set_index(keys).index.map(probe)
    runs["depth"] = runs["at"] / (runs["places"] - 1)
    columns = [
        *("network", "kind", "task", "near", "seed", "method", "at", "depth", "parameters", "lr"),
        *("val_accuracy", "val_loss", "test_accuracy", "gain", "converged"),
    ]
    return runs[columns]


def norm_judged(table: pd.DataFrame) -> pd.DataFrame:
    """J9: at the place that validation chooses for the prompt, what each of the others gains."""
    rows = []
    for keys, runs in table.groupby(["network", "kind", "task", "near", "seed"]):
        place = chosen(runs[runs["method"] == "ap"])
        row: dict[str, object] = dict(
            zip(("network", "kind", "task", "near", "seed"), keys, strict=True)
        )
        row["ap"] = place["gain"]
        for method in ("ap_channel", "beta", "gamma_beta"):
            there = runs[(runs["method"] == method) & (runs["at"] == place["at"])]
            row[method] = there["gain"].iloc[0] if len(there) else np.nan
            own = runs[runs["method"] == method]
            row[f"{method}_own_place"] = chosen(own)["gain"] if len(own) else np.nan
        for method in ("all_beta", "all_norms"):
            row[method] = runs.loc[runs["method"] == method, "gain"].iloc[0]
        curves = runs[runs["method"].isin(["ap", "beta"])].pivot_table(
            index="at", columns="method", values="test_accuracy"
        )
        row["agreement"] = curves["ap"].corr(curves["beta"], method="spearman")
        rows.append(row)
    pairs_of_norm = pd.DataFrame(rows)
    judged_rows = []
    for name, part in (
        ("CNNs", pairs_of_norm[pairs_of_norm["kind"] == "cnn"]),
        ("ViTs", pairs_of_norm[pairs_of_norm["kind"] == "vit"]),
    ):
        for method in ("ap", "ap_channel", "beta", "gamma_beta", "all_beta", "all_norms"):
            interval = clustered_mean(100 * part[method], part["network"], part["task"])
            words = f"gain of {method} over the linear probe (points), {name}"
            judged_rows.append(looked_at(words, interval, part, judged="J9"))
        interval = mean_correlation(part["agreement"], part["network"], part["task"])
        judged_rows.append(
            looked_at(f"Spearman(AP, β) over places, {name}", interval, part, judged="J9")
        )
    return pd.DataFrame(judged_rows)


def looked_at(
    words: str, interval: Interval, part: pd.DataFrame, *, judged: str = "exploratory"
) -> dict[str, object]:
    """A row of what no plan expected, beside the judged ones; two networks bear no interval."""
    if interval.n < FEWEST:
        interval = replace(interval, low=float("nan"), high=float("nan"))
    return {
        "judged": judged,
        "statistic": words,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "networks": interval.n,
        "pairs": number_of_pairs(part),
        "expected": "none",
        "agrees": agreement(interval, "none"),
        "runs_still_moving": _moving(part) if "runs" in part else "",
    }


def papers_places(out: Path) -> dict[str, int]:
    """The papers' place of each network: a CNN's last stage, a ViT's third block."""
    if not (out / "operations.csv").is_file():
        return {}
    pieces = pd.read_csv(out / "operations.csv")
    rows = pieces[pieces["papers_place"]]
    return dict(zip(rows["network"], rows["layer"].astype(int), strict=True))


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    journal = read_journal(out)
    table = pairs(journal, papers=papers_places(out))
    norms = norm(journal)
    verdicts = pd.concat([judged(table), norm_judged(norms)], ignore_index=True)
    for name, frame in (
        ("pairs", table),
        ("maps", maps(journal)),
        ("norm", norms),
        ("judged", verdicts),
    ):
        frame.round(6).to_csv(out / f"{name}.csv", index=False)
        print(f"{out / name}.csv: {len(frame)} rows")
    if (out / "ends.csv").is_file():
        some = flat_by_accuracy(table, pd.read_csv(out / "ends.csv"))
        if some["network"].nunique() > 1:
            judged(some).round(6).to_csv(out / "judged_flat.csv", index=False)
    print(verdicts.round(2).to_string())


if __name__ == "__main__":
    main()
