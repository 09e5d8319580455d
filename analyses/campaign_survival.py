"""How much of one token survives to a place, and does a prompt gain more where it does?

    python -m analyses.campaign_survival --assets DIR [--out results/evidence] [--seconds 3000]

`profile`'s measure ``token_survival`` (one patch of a picture replaced, its trace followed) at the
swept places of every pair, on training pictures of the campaign's draw, beside the prompt's
measured gain over the linear probe, read at the end. Nothing is trained. Writes survival.csv (a row
a pair and place; it goes on where it stopped) and judged_survival.csv. The theory's two-layer
network prefers the place where its one discriminative token is still there; this asks the same of
real networks. Decided after the campaign's runs: exploratory.
"""

from __future__ import annotations

import pandas as pd

import aptheory as ap
from analyses.campaign_pairs import KEYS, arguments, extend
from analyses.campaign_plan import swept
from analyses.campaign_section import lines
from analyses.campaign_tables import curves, looked_at, parts, read_journal
from analyses.results import Results
from aptheory.findings.relate import partial_spearman, spearman
from aptheory.findings.statistics import correlation_over, mean_correlation

PICTURES = 48


def survival(net: ap.Network, task: ap.Task) -> pd.DataFrame:
    """Token survival at the swept places of one pair, with its jackknife interval."""
    table = ap.profile(
        net,
        task,
        measures=("token_survival",),
        layers=[layer for layer in swept(net) if layer < len(net.layers) - 1],
        limit=PICTURES,
        gradient_images=PICTURES,
        batch_size=PICTURES,
    )
    return table[["layer", "depth", "value", "low", "high"]].rename(columns={"value": "survival"})


def of_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """A row a pair, from places with ``survival`` and ``measured``: rank correlations over places.

    ``gain``: of survival with the prompt's gain; ``given_depth``: the same with the depth held
    fixed, nan where survival only rises with depth; ``rise``: of survival with depth; ``slope``: of
    the gain with depth, which place the pair prefers.
    """
    rows = []
    for keys, places in table.groupby(KEYS):
        survives, gain, depth = (
            places[name].to_numpy(float) for name in ("survival", "measured", "depth")
        )
        rows.append(
            dict(zip(KEYS, keys, strict=True))
            | {
                "gain": spearman(survives, gain),
                "given_depth": partial_spearman(survives, gain, depth),
                "rise": spearman(depth, survives),
                "slope": spearman(depth, gain),
                "largest": survives.max(),
                "moving": int(places["moving"].sum()),
                "runs": len(places),
            }
        )
    return pd.DataFrame(rows)


SAY = {
    "rise": "Spearman(depth, token survival) over places",
    "gain": "Spearman(token survival, gain of AP) over places",
    "given_depth": "the same with depth held fixed",
}


def judged(pairs: pd.DataFrame) -> pd.DataFrame:
    """What is said of it: means over networks, and over networks survival against preference."""
    rows = []
    for column, words in SAY.items():
        for name, part in parts(pairs).items():
            some = part.dropna(subset=[column])
            if some["network"].nunique() > 1:
                interval = mean_correlation(some[column], some["network"], some["task"])
                rows.append(looked_at(f"{words}, {name}", interval, some))
    networks = pairs.groupby("network")[["largest", "slope"]].mean()
    interval = correlation_over(networks["largest"].to_numpy(), networks["slope"].to_numpy())
    words = "over networks, Spearman(largest survival, Spearman(depth, gain of AP))"
    rows.append(looked_at(words, interval, pairs))
    return pd.DataFrame(rows)


def section(results: Results) -> str:
    """What the page says of it, or nothing where the tables are missing."""
    if not results.has("evidence/judged_survival"):
        return ""
    table = results.table("evidence/survival")
    pairs = table[["network", "task"]].drop_duplicates()
    ends = table.sort_values("depth").groupby(["kind", "network", "task"])["survival"].last()
    deep = ends.groupby("kind").median()
    return "\n\n".join(
        [
            "## How much of one token survives",
            "One patch of a picture (a token of a ViT, a 64th of a CNN's picture) is replaced by "
            "that of another, and the change is followed to each swept place, as a share of what a "
            "patch would have of the difference of two pictures: 1 at the image "
            f"(`profile`'s measure `token_survival`, {PICTURES} training pictures a pair, nothing "
            f"trained), on {len(pairs)} pairs of {pairs['network'].nunique()} networks, beside the "
            "gain over the linear probe of the prompt read at the end (one seed). At the deepest "
            f"place swept it is {deep['cnn']:.1f} in CNNs and {deep['vit']:.1f} in ViTs, the "
            "median over pairs: a single patch is amplified. Networks are the units, 95 %. "
            "Exploratory. Made by `python -m analyses.campaign_survival --assets DIR`.",
            lines(results.table("evidence/judged_survival")),
        ]
    )


def main() -> None:
    """Measure what is missing until the time is spent, and judge what is there."""
    asked = arguments(__doc__)
    table = extend(asked.out / "survival.csv", survival, asked)
    measured = curves(read_journal(asked.out))
    found = judged(of_pairs(table.merge(measured[measured["seed"] == 0], on=[*KEYS, "layer"])))
    found.round(6).to_csv(asked.out / "judged_survival.csv", index=False)
    print(found.round(2).to_string())


if __name__ == "__main__":
    main()
