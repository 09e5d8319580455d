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

from collections.abc import Callable

import pandas as pd

import aptheory as ap
from analyses.campaign_pairs import arguments, extend
from analyses.campaign_plan import swept

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


def main() -> None:
    """Measure what is missing until the time is spent, and judge what is there."""
    asked = arguments(__doc__)
    extend(asked.out / "survival.csv", survival, asked)


if __name__ == "__main__":
    main()
