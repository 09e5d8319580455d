"""Does the linear theory predict the campaign's curves? Predicted against measured gain, by place.

    python -m analyses.campaign_predicted --assets DIR [--out results/evidence] [--seconds 3000]

For every pair the gain of a prompt over the linear probe is predicted at the swept places
(`predicted_curves.predicted_curve`: head and prompt to first order) from 200 training pictures of
the campaign's draw, on its test pictures, and held against the gain that the campaign measured,
read at the end. Writes predicted.csv (a row a pair and place; it goes on where it stopped) and
judged_predicted.csv. Decided after the campaign's runs: exploratory.
"""

from __future__ import annotations

import pandas as pd

import aptheory as ap
from analyses.campaign_pairs import arguments, extend
from analyses.campaign_plan import TEST, swept
from analyses.predicted_curves import predicted_curve

PICTURES = 200
"""Of the campaign's 400 training pictures: the head and 256 numbers of a prompt are fitted."""


def predicted(net: ap.Network, task: ap.Task) -> pd.DataFrame:
    """The predicted curve of one pair at the swept places, the last place left out."""
    layers = [layer for layer in swept(net) if layer < len(net.layers) - 1]
    return predicted_curve(net, task, layers=layers, train=PICTURES, test=TEST)


def main() -> None:
    """Predict what is missing until the time is spent, and judge what is there."""
    asked = arguments(__doc__)
    extend(asked.out / "predicted.csv", predicted, asked)


if __name__ == "__main__":
    main()
