"""Does the linear theory predict the campaign's curves? Predicted against measured gain, by place.

    python -m analyses.campaign_predicted --assets DIR [--out results/evidence] [--seconds 3000]

For every pair the gain of a prompt over the linear probe is predicted at the swept places
(`predicted_curves.predicted_curve`: head and prompt to first order) from 200 training pictures of
the campaign's draw, on its test pictures, and held against the gain that the campaign measured,
read at the end. Decided after the campaign's runs: exploratory. Writes

- predicted.csv, a row a pair and place; it goes on where it stopped;
- predicted_places.csv, the same with what was measured, and predicted_pairs.csv, a row a pair;
- judged_predicted.csv, means over networks, and where the linear theory ends;
- predicted_choice.csv: what the predicted best place loses, beside the ways of
  `analyses.layer_front` that train nothing, on the same pairs.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

import aptheory as ap
from analyses.campaign_pairs import KEYS, arguments, extend
from analyses.campaign_plan import TEST, swept
from analyses.campaign_section import lines
from analyses.campaign_tables import curves, looked_at, number_of_pairs, parts, read_journal
from analyses.choice_curves import Curve, read_curves, unlike
from analyses.choice_ways import PULLS, Free, Judged, Way, papers_place, untrained
from analyses.layer_front import judged as judged_ways
from analyses.layer_front import summarise
from analyses.predicted_curves import agreement, predicted_curve
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean, mean_correlation

PICTURES = 200
"""Of the campaign's 400 training pictures: the head and 256 numbers of a prompt are fitted."""


def predicted(net: ap.Network, task: ap.Task) -> pd.DataFrame:
    """The predicted curve of one pair at the swept places, the last place left out."""
    layers = [layer for layer in swept(net) if layer < len(net.layers) - 1]
    return predicted_curve(net, task, layers=layers, train=PICTURES, test=TEST)


def with_measured(table: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Predicted beside measured gains of seed 0, and the norm of the prompt that was trained, as a
    share of the activation's like the predicted one's."""
    both = table.merge(measured[measured["seed"] == 0], on=[*KEYS, "layer"])
    return both.assign(trained=both["prompt"] / both["activation"])


def of_pairs(both: pd.DataFrame) -> pd.DataFrame:
    """`predicted_curves.agreement`, with the nearness of the pair and its trained prompts' norm;
    ``by_loss``: the rank correlation of the predicted decrease of the loss with the gain. Pairs
    whose predicted or measured gain is the same everywhere are left out."""
    pair = ["network", "task"]
    by_loss = agreement(both.assign(predicted=both["predicted_loss"]))[[*pair, "spearman"]]
    about = both.groupby(KEYS, as_index=False).agg(
        trained=("trained", "median"), moving=("moving", "sum"), runs=("moving", "size")
    )
    each = agreement(both).drop(columns="kind").merge(about, on=pair)
    return each.merge(by_loss.rename(columns={"spearman": "by_loss"}), on=pair, how="left")


SAY = {
    "spearman": "Spearman(predicted, measured gain) over places",
    "by_loss": "the same by the predicted decrease of the loss",
    "slope": "slope of measured on predicted gain",
    "r2": "R² of that line",
}
SMALL = (0.0, 0.05, 0.15, float("inf"))
"""Bounds of the groups of predicted prompts by norm, in shares of the activation's."""


def judged(pairs: pd.DataFrame, both: pd.DataFrame) -> pd.DataFrame:
    """What is said of it: agreement with networks as units, and where the linear theory ends."""
    rows = []
    for column, words in SAY.items():
        mean = mean_correlation if column in ("spearman", "by_loss") else clustered_mean
        for name, part in parts(pairs).items():
            if part["network"].nunique() > 1:
                interval = mean(part[column], part["network"], part["task"])
                rows.append(looked_at(f"{words}, {name}", interval, part))
    off = (both["applied"] - both["predicted"]).abs()
    for low, high in pairwise(SMALL):
        some = both[(both["norm"] >= low) & (both["norm"] < high)]
        if some["network"].nunique() > 1:
            interval = clustered_mean(off[some.index], some["network"], some["task"])
            norms = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"
            words = (
                "points between the linear model's gain and what the same prompt and head bring "
                f"in the network, predicted prompts of {norms} of the activation's norm "
                f"({len(some)} places)"
            )
            rows.append(looked_at(words, interval, some.drop_duplicates(["network", "task"])))
    for column, words in (("norm", "predicted"), ("trained", "trained")):
        interval = clustered_mean(both[column], both["network"], both["task"])
        said = f"norm of the {words} prompt in shares of the activation's"
        rows.append(looked_at(said, interval, pairs))
    return pd.DataFrame(rows)


def choices(both: pd.DataFrame, sweeps: list[Curve]) -> pd.DataFrame:
    """Regret of the predicted best place and of the ways that train nothing, on the same pairs.

    The pull to the middle is learnt on other networks and tasks than those that it is judged on.
    """
    by_pair = {keys: rows.sort_values("layer") for keys, rows in both.groupby(["network", "task"])}
    some = [one for one in sweeps if one.draw == 0 and (one.network, one.task) in by_pair]

    def preference(
        curve: Curve, free: Free, mean: np.ndarray, *, column: str, unit: float
    ) -> Judged:
        value = unit * by_pair[curve.network, curve.task][column].to_numpy(float)
        nothing = np.zeros(curve.validation.shape, dtype=bool)
        return value - free.pull * curve.off_centre, nothing

    pulled = tuple(Free(pull=pull) for pull in PULLS)
    elsewhere = all(unlike(curve, some) for curve in some)
    ways = [
        Way("the middle", untrained(lambda c: -c.off_centre)),
        Way("the paper's place", untrained(papers_place)),
        Way("a random place", untrained(lambda c: np.zeros(len(c.layers)))),
    ]
    for column, unit, name in (("predicted", 1.0, "accuracy"), ("predicted_loss", 100.0, "loss")):
        way = partial(preference, column=column, unit=unit)
        ways.append(Way(f"predicted best {name}", way))
        if elsewhere:
            ways.append(Way(f"predicted best {name}, pulled", way, pulled))
    return summarise(judged_ways(some, ways, "campaign"))


def section(results: Results) -> str:
    """What the page says of it, or nothing where the tables are missing."""
    if not results.has("evidence/judged_predicted"):
        return ""
    pairs = results.table("evidence/predicted_pairs")
    choice = results.table("evidence/predicted_choice")
    asked = number_of_pairs(results.table("evidence/pairs"))
    share = f"all {asked}" if len(pairs) == asked else f"{len(pairs)} of {asked}"
    parts_of_page = [
        "## Predicted against measured",
        f"On {share} pairs of the campaign, {pairs['network'].nunique()} networks: "
        "the gain of a prompt at each swept place over the head alone, predicted from "
        f"{PICTURES} of the campaign's training pictures by training head and prompt together to "
        "first order (`theory/joint.py`, from one forward and one backward pass a class), on the "
        "campaign's test pictures, against the gain that the campaign measured, read at the end "
        f"(one seed; {pairs['moving'].sum()} of {pairs['runs'].sum()} measured runs were still "
        "moving by the plan's rule). Networks are the units, 95 %. Exploratory. Made by `python -m "
        "analyses.campaign_predicted --assets DIR`; figure "
        "`results/figures/predicted_campaign.png`.",
        lines(results.table("evidence/judged_predicted")),
        "As a choice of the place, on the same pairs (regret in points, as above; a prediction "
        "costs one backward pass a class on the training pictures):",
        "\n".join(
            f"- {row.way}: {row.regret:.2f} [{row.low:.2f}, {row.high:.2f}], fresh "
            f"{row.fresh:.2f}"
            + (
                f", better than the middle by {row.better:+.2f} "
                f"[{row.better_low:+.2f}, {row.better_high:+.2f}]"
                if row.way != "the middle"
                else ""
            )
            for row in choice.itertuples()
        ),
    ]
    return "\n\n".join(parts_of_page)


def main() -> None:
    """Predict what is missing until the time is spent, and judge what is there."""
    asked = arguments(__doc__)
    table = extend(asked.out / "predicted.csv", predicted, asked)
    both = with_measured(table, curves(read_journal(asked.out)))
    pairs = of_pairs(both)
    for name, frame in (
        ("predicted_places", both),
        ("predicted_pairs", pairs),
        ("judged_predicted", judged(pairs, both)),
        ("predicted_choice", choices(both, read_curves(asked.out.parent)[0])),
    ):
        frame.round(6).to_csv(asked.out / f"{name}.csv", index=False)
        if name != "predicted_places":
            print(frame.round(2).to_string())


if __name__ == "__main__":
    main()
