"""Which of several models is better on validation images: by accuracy, or by loss."""

from __future__ import annotations

import math
from typing import NamedTuple

JUDGES = ("accuracy", "loss")


class Score(NamedTuple):
    """Validation accuracy, a fraction in [0, 1], and mean validation loss in nats."""

    accuracy: float
    loss: float

    def cost(self, judge: str) -> tuple[float, float]:
        """What a choice minimises: the judge's measure first, the other one breaks ties.

        A measure that is not a number is the worst there is.
        """
        accuracy = -math.inf if math.isnan(self.accuracy) else self.accuracy
        loss = math.inf if math.isnan(self.loss) else self.loss
        return (-accuracy, loss) if judge == "accuracy" else (loss, -accuracy)


WORST = Score(-math.inf, math.inf)
