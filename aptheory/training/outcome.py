"""What came of one run."""

from __future__ import annotations

import base64
import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from aptheory.arguments import Amount, Share, Whole
from aptheory.errors import InputError
from aptheory.training.judging import Score

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted


@dataclass(eq=False)
class Outcome:
    """What came of one run.

    Accuracies are fractions in [0, 1]: test and validation of the last epoch's model, or of the
    best validated one under early stopping; training accuracy is the running one of that epoch.
    They are nan where ``stopped_reason`` says that the loss was not finite. ``epochs`` is how many
    were trained, ``seconds`` the wall time of its stack divided by the runs in it (the run's
    share), ``peak_memory`` bytes (allocated on a GPU; resident, the whole process, on a CPU).
    ``curve`` has one entry an epoch. ``kept`` says where the activations were kept.
    ``converged``: early stopping ended the run, or its loss is `flat` at the end; None where that
    cannot be told. ``correct`` and ``val_correct`` are bool arrays, an entry a test (validation)
    image; a record holds them as `packed` text.
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
    converged: bool | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    correct: np.ndarray | None = None
    val_correct: np.ndarray | None = None
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

    @property
    def score(self) -> Score:
        """Accuracy and loss on the validation images."""
        return Score(self.val_accuracy, self.val_loss)

    def record(self) -> dict[str, Any]:
        """Plain values for a file: everything but the predicted classes and the model."""
        values = {k: v for k, v in vars(self).items() if k not in ("predictions", "adapted")}
        for name in ("correct", "val_correct"):
            values[name] = None if values[name] is None else packed(values[name])
        return copy.deepcopy(values)

    #: The type of each entry of a record; nan stands for a number that was not measured.
    RECORD: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(("network", "task"), str),
        **dict.fromkeys(("method", "recipe", "kept"), dict[str, Any]),
        **dict.fromkeys(("seed", "first_layer", "parameters", "parameters_without_head"), Whole),
        **dict.fromkeys(("epochs", "peak_memory"), Whole),
        **dict.fromkeys(("lr", "weight_decay", "val_loss", "test_loss", "seconds"), Amount),
        **dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), Share),
        **dict.fromkeys(("stopped_reason", "correct", "val_correct"), str | None),
        "converged": bool | None,
        "curve": Sequence[dict[str, Any]],
        "notes": Sequence[str],
    }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Outcome:
        """The outcome that `record` wrote, without predicted classes and model."""
        values = dict(record)
        for name in ("correct", "val_correct"):
            values[name] = None if values[name] is None else unpacked(values[name])
        return cls(**values)


class UntestedError(InputError):
    """The test images could not be read when training was done.

    ``outcomes`` are those of the runs in order, without accuracy and loss on test images.
    """

    def __init__(self, reason: InputError, outcomes: list[Outcome]) -> None:
        super().__init__(reason)
        self.outcomes = outcomes


def note_equal_seeds(outcomes: Sequence[Outcome]) -> list[str]:
    """Note in outcomes that differ in their seed alone that the seed changed nothing but rounding.

    An interval over such seeds would have no width and mean nothing. Returns the notes, each once.
    """
    first: dict[str, Outcome] = {}
    notes = []
    for outcome in outcomes:
        settings = repr((outcome.method, outcome.recipe, outcome.lr, outcome.weight_decay))
        other = first.setdefault(settings, outcome)
        if other.seed == outcome.seed or not _same(other, outcome):
            continue
        notes.append(
            f"seeds {other.seed} and {outcome.seed} gave the same run: nothing that a seed decides "
            "matters here, as when all training images are one batch and the start is not random; "
            "set redraw, and each seed draws its own images"
        )
        for each in (other, outcome):
            each.notes.append(notes[-1])
    return list(dict.fromkeys(notes))


def _same(first: Outcome, second: Outcome) -> bool:
    """Whether two runs are equal but for rounding."""
    losses = [[entry["train_loss"] for entry in outcome.curve] for outcome in (first, second)]
    return (
        not (first.failed or second.failed)
        and len(losses[0]) == len(losses[1])
        and np.allclose(losses[0], losses[1], rtol=1e-4, atol=0)
        and first.correct is not None
        and second.correct is not None
        and np.array_equal(first.correct, second.correct)
    )


def packed(correct: np.ndarray) -> str:
    """A bool array as "length:base64 of its bits", an eighth of a byte an image: "3:oA=="."""
    bits = np.packbits(np.asarray(correct, dtype=bool))
    return f"{len(correct)}:{base64.b64encode(bits.tobytes()).decode()}"


def unpacked(text: str) -> np.ndarray:
    """The bool array that `packed` wrote."""
    length, _, encoded = text.partition(":")
    bits = np.frombuffer(base64.b64decode(encoded), dtype=np.uint8)
    return np.unpackbits(bits, count=int(length)).astype(bool)


def is_packed(text: Any, images: int | None = None) -> bool:
    """Whether it is what `packed` makes of a bool array, of so many ``images`` if given."""
    length, _, encoded = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not re.fullmatch("[0-9]{1,9}", length) or images not in (None, int(length)):
        return False
    try:
        return len(base64.b64decode(encoded, validate=True)) == -(-int(length) // 8)
    except ValueError:
        return False
