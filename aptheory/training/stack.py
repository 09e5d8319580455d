"""One stack of runs, first epoch to outcomes: who stops, who is kept, how well each did."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aptheory.errors import InputError
from aptheory.training.convergence import flat
from aptheory.training.judging import Score
from aptheory.training.kept import Kept
from aptheory.training.loop import Loop, Progress
from aptheory.training.losses import Loss
from aptheory.training.memory import peak_memory, reset_peak
from aptheory.training.outcome import Outcome, UntestedError
from aptheory.training.recipe import Recipe, Run

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted

_log = logging.getLogger("aptheory")
_CORRECT = {"val": "val_correct", "test": "correct"}


class Stack:
    """Trains a `Loop` and turns each of its runs into an outcome.

    `outcomes` does it all; `train_to`, `validate`, `keep` and `finish` are its parts, for those
    who choose between runs on the way. Runs are known by their number in ``runs``. ``on_epoch`` is
    called with the number and the newest entry of the curve of every run that trained an epoch.
    """

    def __init__(
        self,
        adapted: Adapted,
        runs: Sequence[Run],
        kept: Kept,
        recipe: Recipe,
        *,
        predictions: bool = False,
        keep_models: bool = False,
        fresh: bool = True,
        loss: Loss | None = None,
        on_epoch: Callable[[int, dict[str, float]], None] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.recipe, self.predictions, self.keep_models = recipe, predictions, keep_models
        self.on_epoch = on_epoch
        self.log = log or _log.info
        self.count, self.device = len(runs), kept.device
        self.seconds, self.peak = 0.0, 0
        self.done: dict[int, Outcome] = {}
        self._untested: InputError | None = None
        with self._measured(), own_randomness(runs[0].seed):
            self.loop = Loop(adapted, runs, kept, recipe, fresh=fresh, loss=loss, log=log)

    def outcomes(self) -> list[Outcome]:
        """Train to the end; one outcome a run, in order."""
        self.train_to(self.recipe.epochs)
        self.finish()
        return [self.done[k] for k in range(self.count)]

    @property
    def going(self) -> list[int]:
        """Numbers of the runs that still train."""
        return [progress.number for progress in self.loop.progress]

    def train_to(self, epoch: int) -> None:
        """Train until ``epoch`` epochs are done; runs that must stop get their outcome."""
        loop = self.loop
        if not loop.progress:
            return
        with self._measured(), own_randomness(loop.progress[0].run.seed + loop.epoch):
            while loop.epoch < epoch and loop.progress:
                loop.train_epoch()
                self._stop_unusable()
                due = bool(loop.progress) and self._validation_is_due()
                if due:
                    loop.validate()
                if self.on_epoch is not None:
                    for progress in loop.progress:
                        self.on_epoch(progress.number, dict(progress.curve[-1]))
                if due:
                    self._stop_stale()

    def validate(self) -> dict[int, Score]:
        """Run number -> its score on the validation images now."""
        if not self.loop.progress:
            return {}
        with self._measured():
            self.loop.validate()
        return {
            p.number: Score(p.curve[-1]["val_accuracy"], p.curve[-1]["val_loss"])
            for p in self.loop.progress
        }

    def keep(self, numbers: Sequence[int]) -> None:
        """Only the runs with these numbers go on; the others get an outcome without accuracies."""
        dropped = [k for k, p in enumerate(self.loop.progress) if p.number not in set(numbers)]
        for k in dropped:
            progress = self.loop.progress[k]
            progress.stopped = f"others were better after {self.loop.epoch} epochs"
            self.done[progress.number] = self._outcome(progress, self.loop)
        self._go_on_without(dropped)

    def finish(self) -> None:
        """Evaluate the runs that are left on validation and test data.

        Raises:
            UntestedError: the test images cannot be read; it holds the outcomes without them.
        """
        if self.loop.progress:
            with self._measured():
                self._finish(range(len(self.loop.progress)), self.loop)
            self.loop.progress = []
        self.loop.release()
        for outcome in self.done.values():
            outcome.seconds, outcome.peak_memory = self.seconds / self.count, self.peak
        if self._untested is not None:
            outcomes = [outcome for _, outcome in sorted(self.done.items())]
            raise UntestedError(self._untested, outcomes) from self._untested.__cause__

    @contextmanager
    def _measured(self) -> Iterator[None]:
        device = self.device
        reset_peak(device)
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
        self.peak = max(self.peak, peak_memory(device))

    def _validation_is_due(self) -> bool:
        every = self.recipe.validate_every or (1 if self.recipe.patience is not None else 0)
        return bool(every) and (
            self.loop.epoch % every == 0 or self.loop.epoch == self.recipe.epochs
        )

    def _stop_unusable(self) -> None:
        stopped = [k for k, p in enumerate(self.loop.progress) if p.stopped is not None]
        for k in stopped:
            progress = self.loop.progress[k]
            self.log(f"run {progress.number} (seed {progress.run.seed}) stops: {progress.stopped}")
            self.done[progress.number] = self._outcome(progress, self.loop)
        self._go_on_without(stopped)

    def _stop_stale(self) -> None:
        patience = self.recipe.patience
        if patience is None or self.loop.epoch == self.recipe.epochs:
            return
        stale = [k for k, p in enumerate(self.loop.progress) if p.stale >= patience]
        if len(stale) == len(self.loop.progress):
            self._finish(stale, self.loop)
            self.loop.progress = []
            return
        if stale:
            stopped = self.loop.only(stale)
            self._finish(range(len(stale)), stopped)
            stopped.release()
        self._go_on_without(stale)

    def _go_on_without(self, stopped: Sequence[int]) -> None:
        going = [k for k in range(len(self.loop.progress)) if k not in set(stopped)]
        if stopped and going:
            self.loop.narrow(going)
        elif stopped:
            self.loop.progress = []

    def _finish(self, members: Sequence[int] | range, loop: Loop) -> None:
        """Evaluate all runs of ``loop``, each in its best state where one is remembered."""
        for k in members:
            state = loop.progress[k].best_state
            if state is not None:
                loop.restore(k, state)
        evaluated = {"val": loop.evaluate("val")}
        try:
            evaluated["test"] = loop.evaluate("test")
        except InputError as error:  # what was trained is not lost with them
            self._untested = error
        labels = {split: loop.labels(split) for split in evaluated}
        for k in members:
            progress = loop.progress[k]
            outcome = self._outcome(progress, loop)
            # Logits that overflow still have a largest entry, hence an accuracy; it means nothing.
            infinite = [
                f"its loss on {split} images"
                for split, (loss, _) in evaluated.items()
                if not bool(loss[k].isfinite())
            ]
            if not all(bool(p.isfinite().all()) for _, p in loop.adapted.run_parameters(k)):
                infinite.insert(0, "a trained tensor")
            if infinite:
                outcome.stopped_reason = (
                    f"{infinite[0]} was not finite after epoch {loop.epoch} "
                    f"(learning rate {outcome.lr:g})"
                )
                self.done[progress.number] = outcome
                continue
            for split, (loss, predicted) in evaluated.items():
                correct = predicted[k] == labels[split][k]
                setattr(outcome, f"{split}_accuracy", float(correct.double().mean()))
                setattr(outcome, f"{split}_loss", float(loss[k]))
                setattr(outcome, _CORRECT[split], correct.cpu().numpy())
            if progress.curve:
                at = (progress.best_epoch or len(progress.curve)) - 1
                outcome.train_accuracy = progress.curve[at]["train_accuracy"]
                progress.curve[at] |= {
                    "val_loss": outcome.val_loss,
                    "val_accuracy": outcome.val_accuracy,
                }
            stale = self.recipe.patience is not None and loop.epoch < self.recipe.epochs
            outcome.converged = stale or flat(progress.curve)
            if stale:
                outcome.stopped_reason = (
                    f"validation was not better for {self.recipe.patience} validations after "
                    f"epoch {progress.best_epoch}"
                )
            if self.predictions and "test" in evaluated:
                outcome.predictions = evaluated["test"][1][k].cpu().numpy()
            if self.keep_models:
                outcome.adapted = loop.adapted.select(k).eval()
            self.done[progress.number] = outcome

    def _outcome(self, progress: Progress, loop: Loop) -> Outcome:
        adapted, recipe, run = loop.adapted, self.recipe, progress.run
        return Outcome(
            network=loop.kept.net.name,
            task=loop.kept.task.name,
            method=adapted.method.settings(),
            recipe=recipe.settings(),
            seed=run.seed,
            lr=recipe.lr if run.lr is None else run.lr,
            weight_decay=recipe.weight_decay if run.weight_decay is None else run.weight_decay,
            first_layer=adapted.first_layer,
            parameters=adapted.count(),
            parameters_without_head=adapted.count(head=False),
            epochs=loop.epoch,
            stopped_reason=progress.stopped,
            curve=progress.curve,
            kept=loop.kept.describe(),
            notes=list(loop.notes),
        )


class own_randomness:
    """Torch's global generators set from a seed, and put back afterwards."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._before: tuple[Tensor, Any] | None = None

    def __enter__(self) -> None:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._before = (torch.get_rng_state(), devices)
        torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        assert self._before is not None
        torch.set_rng_state(self._before[0])
        if self._before[1]:
            torch.cuda.set_rng_state_all(self._before[1])
