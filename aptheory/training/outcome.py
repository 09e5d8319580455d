"""What came of one run."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted


@dataclass
class Outcome:
    """What came of one run.

    Accuracies are fractions in [0, 1]: test and validation of the last epoch's model, or of the
    best validated one under early stopping; training accuracy is the running one of that epoch.
    They are nan where ``stopped_reason`` says that the loss was not finite. ``epochs`` is how many
    were trained, ``seconds`` the wall time of its stack divided by the runs in it (the run's
    share), ``peak_memory`` bytes (allocated on a GPU; resident, the whole process, on a CPU).
    ``curve`` has one entry an epoch. ``kept`` says where the activations were kept.
    """

    network: str
    task: str
    method: dict[str, Any]
    recipe: dict[str, Any]
    seed: int
    lr: float
    weight_decay: float
    first_layer: int
    parameters: int
    parameters_without_head: int
    train_accuracy: float = math.nan
    val_accuracy: float = math.nan
    test_accuracy: float = math.nan
    val_loss: float = math.nan
    test_loss: float = math.nan
    epochs: int = 0
    stopped_reason: str | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    predictions: np.ndarray | None = None
    adapted: Adapted | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """One line: what was trained on what, how well, for how long."""
        method = str(self.method.get("method", "?"))
        place = f"layer {self.first_layer}, seed {self.seed}"
        if self.failed:
            result = f"stopped: {self.stopped_reason}"
        else:
            result = f"test {100 * self.test_accuracy:.1f} %, val {100 * self.val_accuracy:.1f} %"
        return (
            f"{method} ({place}) on {self.network}, {self.task}: {result}; "
            f"{self.epochs} epochs, {self.seconds:.1f} s, {self.parameters:,} parameters"
        )

    @property
    def failed(self) -> bool:
        """Whether the run ended without a usable model."""
        return math.isnan(self.val_accuracy)

    def record(self) -> dict[str, Any]:
        """Plain values for a file: everything but the predictions and the model."""
        values = {**self.__dict__, "predictions": None, "adapted": None}
        del values["predictions"], values["adapted"]
        return copy.deepcopy(values)
