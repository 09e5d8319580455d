"""The training loop: K runs as one batch of K*B through the shared, frozen rest of a network.

Each run has its own order of images (from its seed), its own loss, and its own step. Samples of
different runs never meet, so each run is, to rounding, the run that it would be alone.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from aptheory.checked import shown
from aptheory.devices import autocast
from aptheory.errors import InputError
from aptheory.networks.doors import check_gradients
from aptheory.training.batchnorm import Fused
from aptheory.training.drawing import Parts, parts_of
from aptheory.training.epochs import epoch_done
from aptheory.training.head_start import start_head
from aptheory.training.judging import WORST, Score
from aptheory.training.kept import Kept
from aptheory.training.losses import Loss, class_weights, cross_entropy
from aptheory.training.memory import out_of_memory
from aptheory.training.mixing import Mix
from aptheory.training.optimizer import optimizer_of, prompt_units
from aptheory.training.recipe import Recipe, Run
from aptheory.training.run_images import RunImages

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted

_log = logging.getLogger("aptheory")
# Decorrelates the order of the images from the start of the prompt, both drawn from one seed.
_ORDER = 0x9E3779B97F4A7C15


def order_generator(seed: int) -> torch.Generator:
    """The generator that a run with this seed draws its order of images from."""
    return torch.Generator().manual_seed((seed + _ORDER) % 2**63)


@dataclass
class Progress:
    """What one run has done so far; it follows the run when its neighbours stop."""

    number: int
    run: Run
    order: torch.Generator
    parts: Parts
    curve: list[dict[str, float]] = field(default_factory=list)
    best: Score = WORST
    best_epoch: int = 0
    best_state: dict[str, Tensor] | None = None
    stale: int = 0
    stopped: str | None = None


class Loop:
    """K runs of one method on one task, trained epoch by epoch.

    ``kept`` must stand at ``adapted.first_layer``. ``progress`` has one entry a run that is still
    in the stack; `narrow` takes runs out of it. ``notes`` says what was changed on the way,
    ``unreached`` that no gradient reaches anything that should learn.
    """

    def __init__(
        self,
        adapted: Adapted,
        runs: Sequence[Run],
        kept: Kept,
        recipe: Recipe,
        *,
        fresh: bool = True,
        loss: Loss | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        if len(runs) != adapted.runs:
            raise InputError(f"{adapted.runs} runs are attached but {len(runs)} were described.")
        if kept.layer != adapted.first_layer:
            raise InputError(
                f"The kept activations enter place {kept.layer}, but the method first acts at "
                f"place {adapted.first_layer}; advance them first."
            )
        check_gradients(adapted, adapted.source.name)
        self.adapted, self.kept, self.recipe = adapted, kept, recipe
        self.loss = loss or cross_entropy(recipe.label_smoothing)
        self.log = log or _log.info
        self.device = kept.device
        self.micro = recipe.accumulate
        self.notes: list[str] = []
        self.unreached: str | None = None
        self.epoch = 0
        parts = parts_of(kept.task, runs, recipe)
        self.progress = [
            Progress(k, run, order_generator(run.seed), own)
            for k, (run, own) in enumerate(zip(runs, parts, strict=True))
        ]
        self.images = RunImages(kept, parts)
        if fresh:
            start_head(adapted, kept, recipe, [own["train"] for own in parts])
        self._units = prompt_units(adapted, kept, recipe) if recipe.scale_prompts else {}
        self._choose_source()
        self.optimizer = optimizer_of(adapted, runs, recipe, self._units)
        self._graphed: dict[int, Callable[[Tensor], Tensor]] = {}

    # ---------------------------------------------------------------------------- the start

    def _choose_source(self) -> None:
        """Where batches come from: the kept activations, or features when only the head learns."""
        adapted, kept = self.adapted, self.kept
        names = [name for name, _ in adapted.run_parameters(0)]
        self._features: dict[str, Tensor] | None = None
        self._shared = False
        if all(name.startswith("head.") for name in names) and not kept.fresh:
            self._features = {}
            # Without edits every run sees the same features, those of the frozen network.
            self._shared = not adapted.edits
        self._fused: Fused | None = None
        if self.recipe.fuse and self._features is None and adapted.method.batchnorm == "frozen":
            self._fused = Fused.apply(adapted)
        self._rest: Callable[[Tensor], Tensor] = adapted.rest
        if self.recipe.compile != "none" and self._features is None:
            mode = None if self.recipe.compile == "default" else self.recipe.compile
            self._rest = torch.compile(adapted.rest, mode=mode)

    # ---------------------------------------------------------------------------- the images

    def labels(self, split: str) -> Int64[Tensor, "runs images"]:
        """Labels of every run's images of a split, on the network's device."""
        return self.images.labels(split)

    def _fixed(self, split: str) -> Tensor:
        """Features for the head alone, computed once: those of the kept split, (rows, width), where
        all runs see the same; else those of each run's own images, (K, images, width)."""
        assert self._features is not None
        kept, key = self.kept, self.images.store(split) if self._shared else split
        if key not in self._features:
            adapted = self.adapted
            if self._shared:
                features = kept.features(key, adapted.reading)
            else:
                views = kept.policy.views or 1 if split == "train" else 1
                positions = torch.arange(self.images.number(split) * views)
                parts = []
                with torch.no_grad(), autocast(self.device, self.recipe.precision):
                    for part in positions.split(self._evaluation_batch()):
                        z = self.images.clean(split, part)
                        parts.append(adapted.features(z).float().unflatten(0, (adapted.runs, -1)))
                features = torch.cat(parts, 1)
            self._features[key] = features
        return self._features[key]

    def _fixed_at(self, split: str, positions: Int64[Tensor, "runs batch"]) -> Tensor:
        """(K*B, width): rows of `_fixed`."""
        fixed = self._fixed(split)
        if self._shared:
            return fixed[self.images.rows(split, positions).flatten().to(fixed.device)]
        index = positions.to(fixed.device)
        runs = torch.arange(len(index), device=fixed.device)[:, None]
        return fixed[runs, index].flatten(0, 1)

    # ---------------------------------------------------------------------------- one epoch

    def train_epoch(self) -> None:
        """One pass over the training images, each run in its own order; extends the curves."""
        recipe, runs = self.recipe, len(self.progress)
        number = self.images.number("train")
        factor = recipe.lr_factor(self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        if recipe.balance != "none":
            self._weights = class_weights(self.labels("train"), self.adapted.classes)
        orders = torch.stack([self._order(k, number) for k in range(runs)])
        loss = torch.zeros(runs, dtype=torch.float64, device=self.device)
        right = torch.zeros(runs, dtype=torch.float64, device=self.device)
        self.adapted.train()
        for rows in orders.split(recipe.batch_size, dim=1):
            batch_loss, batch_right = self._step(rows)
            loss += batch_loss * rows.shape[1]
            right += batch_right
        self.epoch += 1
        means, rights = (loss / number).tolist(), (right / number).tolist()
        for k, progress in enumerate(self.progress):
            peak = recipe.peak_lr(progress.run.lr)
            progress.curve.append(
                {
                    "epoch": self.epoch,
                    "lr": peak * factor,
                    "train_loss": means[k],
                    "train_accuracy": rights[k],
                }
            )
            if self.unreached is not None:
                progress.stopped = self.unreached
            elif not math.isfinite(means[k]):
                progress.stopped = (
                    f"the loss became {means[k]} in epoch {self.epoch} of {recipe.epochs} "
                    f"(learning rate {peak:g})"
                )
        epoch_done(self.epoch, recipe.epochs, runs)

    def _order(self, k: int, number: int) -> Int64[Tensor, " images"]:
        """The images of an epoch of run k, in the order in which it sees them."""
        generator = self.progress[k].order
        if self.recipe.balance == "sampler":
            chance = self._weights[k][self.labels("train")[k]].cpu()
            order = torch.multinomial(chance, number, replacement=True, generator=generator)
        else:
            order = torch.randperm(number, generator=generator)
        if self.kept.policy.views:
            views = torch.randint(0, self.kept.policy.views, (number,), generator=generator)
            order = order + number * views
        return order

    def _step(self, rows: Int64[Tensor, "runs batch"]) -> tuple[Tensor, Tensor]:
        """One step of every run; returns each run's mean loss and number of right answers."""
        while True:
            try:
                return self._try_step(rows)
            except RuntimeError as error:
                size = -(-rows.shape[1] // self.micro)
                if not out_of_memory(error) or size == 1:
                    raise
                self.optimizer.zero_grad(set_to_none=True)
            self.micro *= 2
            note = (
                f"out of memory: the batch of {rows.shape[1]} is run in {self.micro} parts whose "
                "gradients are summed"
            )
            if self.adapted.method.batchnorm == "trained":
                note += " (batch statistics are those of the parts)"
            self.notes.append(note)
            self.log(note)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _say_unreached(self) -> None:
        """Say what no gradient reaches; stop where that is all, and would look like no gain."""
        adapted = self.adapted
        learned = [p for name, p in adapted.run_parameters(0) if not name.startswith("head.")]
        unreached = [parameter for parameter in learned if parameter.grad is None]
        if not unreached:
            return
        layer = adapted.source.layers[adapted.first_layer]
        if len(unreached) == len(learned):
            self.unreached = (
                f"no gradient reaches what {adapted.method.name} learns at layer {layer.index} "
                f"({layer.name}) of {adapted.source.name}: its forward stops gradients on the way "
                "(detach, say), or the method does not use what it learns; choose a later layer, "
                "or mend what stops them."
            )
            return
        count = sum(parameter.numel() for parameter in unreached)
        note = f"no gradient reaches {count:,} of the parameters that should learn: they stay"
        if note not in self.notes:
            self.notes.append(note)
            self.log(note)

    @torch.enable_grad()
    def _try_step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        recipe, runs, total = self.recipe, rows.shape[0], rows.shape[1]
        labels = self.labels("train")
        losses, rights = [], []
        self.optimizer.zero_grad(set_to_none=True)
        for part in rows.split(-(-total // self.micro), dim=1):
            y = labels.gather(1, part.to(labels.device) % labels.shape[1]).flatten()
            mix = self._mix(y)
            logits = self._logits("train", part, mix)
            loss = self._loss_of(logits, y if mix is None else mix.targets).view(runs, -1)
            if recipe.balance == "weights":
                loss = loss * self._weights.gather(1, y.view(runs, -1))
            loss = loss.sum(1) / total
            self._backward(loss.sum())
            if self.epoch == 0:
                self._say_unreached()
            losses.append(loss.detach())
            rights.append((logits.detach().argmax(1) == y).view(runs, -1).sum(1))
        if recipe.max_gradient_norm is not None:
            for k in range(runs):
                own = [p for _, p in self.adapted.run_parameters(k)]
                nn.utils.clip_grad_norm_(own, recipe.max_gradient_norm)
        self.optimizer.step()
        return torch.stack(losses).sum(0).double(), torch.stack(rights).sum(0).double()

    def _backward(self, loss: Tensor) -> None:
        try:
            loss.backward()
        except RuntimeError as error:
            if "inplace operation" not in str(error):
                raise
            raise InputError(
                f"no gradient passes through {self.adapted.source.name}: its forward changes in "
                "place a tensor that the gradient needs; let it make a new one there, or choose a "
                "later layer."
            ) from error

    def _loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, as the user's function may give it or not."""
        loss = self.loss(logits, targets)
        if not isinstance(loss, Tensor) or loss.shape != logits.shape[:1] or not loss.requires_grad:
            raise InputError(
                f"loss gave {shown(loss)}; expected the loss of each of the {len(logits)} images, "
                "a tensor that follows from the logits."
            )
        return loss

    def _mix(self, labels: Int64[Tensor, " samples"]) -> Mix | None:
        """How the images of a batch are blended, if they are."""
        if self.recipe.mix == "none":
            return None
        generators = [progress.order for progress in self.progress]
        return Mix(self.recipe.mix, labels, self.adapted.classes, generators)

    def _logits(
        self, split: str, positions: Int64[Tensor, "runs batch"], mix: Mix | None = None
    ) -> Tensor:
        """(K*B, classes) in float32 for positions among each run's own images."""
        if self._features is not None:
            return self.adapted.head(self._fixed_at(split, positions))
        generators = [p.order for p in self.progress] if self.kept.fresh else ()
        z = self.images.batch(split, positions, generators, mix)
        if self.recipe.cuda_graph and z.is_cuda:
            return self._replay(z)
        with autocast(self.device, self.recipe.precision):
            return self._rest(z).float()

    def _replay(self, z: Tensor) -> Tensor:
        """The rest as a captured CUDA graph, one for each batch size."""
        if len(z) not in self._graphed:
            precision, device = self.recipe.precision, self.device

            class Rest(nn.Module):
                def __init__(self, adapted: Adapted) -> None:
                    super().__init__()
                    self.adapted = adapted

                def forward(self, z: Tensor) -> Tensor:
                    if precision == "float32":
                        return self.adapted.rest(z)
                    # A cast kept by autocast's cache would not be part of the graph.
                    with torch.autocast(
                        device.type, dtype=getattr(torch, precision), cache_enabled=False
                    ):
                        return self.adapted.rest(z).float()

            # A captured graph keeps the node that gathers a parameter's gradient, on the stream of
            # its capture; those that are captured or replayed after it meet it on another stream.
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
            rest: Any = torch.cuda.make_graphed_callables(Rest(self.adapted), (z.clone(),))
            self._graphed[len(z)] = rest
        return self._graphed[len(z)](z)

    # ---------------------------------------------------------------------------- evaluation

    def _evaluation_batch(self) -> int:
        return max(1, self.recipe.eval_batch_size // max(1, self.adapted.runs))

    @torch.no_grad()
    def evaluate(self, split: str) -> tuple[Float[Tensor, " runs"], Int64[Tensor, "runs images"]]:
        """Mean loss and predicted classes of every run on a split, in evaluation mode."""
        runs, labels = self.adapted.runs, self.labels(split)
        number = labels.shape[1]
        self.adapted.eval()
        loss = torch.zeros(runs, dtype=torch.float64, device=self.device)
        predictions = []
        for positions in torch.arange(number).split(self._evaluation_batch()):
            if self._features is not None:
                logits = self.adapted.head(self._fixed_at(split, positions.expand(runs, -1)))
            else:
                with autocast(self.device, self.recipe.precision):
                    logits = self._rest(self.images.clean(split, positions)).float()
            y = labels[:, positions.to(labels.device)].flatten()
            loss += F.cross_entropy(logits, y, reduction="none").double().view(runs, -1).sum(1)
            predictions.append(logits.argmax(1).view(runs, -1))
        return loss / number, torch.cat(predictions, 1)

    def validate(self) -> list[float]:
        """Validation accuracy of every run, written into its curve; remembers the best state."""
        loss, predicted = self.evaluate("val")
        right = (predicted == self.labels("val")).double().mean(1).tolist()
        for k, progress in enumerate(self.progress):
            if progress.curve:
                progress.curve[-1] |= {"val_loss": float(loss[k]), "val_accuracy": right[k]}
            if self.recipe.patience is None:
                continue
            score, judge = Score(right[k], float(loss[k])), self.recipe.judge
            if score.cost(judge)[0] < progress.best.cost(judge)[0]:  # a tie is not better
                progress.best, progress.stale = score, 0
                progress.best_epoch = self.epoch
                progress.best_state = self.state(k)
            else:
                progress.stale += 1
        return right

    # ---------------------------------------------------------------------------- the runs

    def release(self) -> None:
        """Leave the adapted network as it was attached, with what it has learned."""
        if self._fused is not None:
            self._fused.undo()
        self._graphed.clear()

    def state(self, k: int) -> dict[str, Tensor]:
        """A copy of what run k has learned, running statistics included where they are trained."""
        learned = {name: p.detach().clone() for name, p in self.adapted.run_parameters(k)}
        if self.adapted.method.batchnorm == "trained":
            learned |= {f"buffer.{n}": b.clone() for n, b in self.adapted.net.named_buffers()}
        return learned

    @torch.no_grad()
    def restore(self, k: int, state: dict[str, Tensor]) -> None:
        """Put run k back to a state from `state`."""
        for name, parameter in self.adapted.run_parameters(k):
            parameter.copy_(state[name])
        for name, buffer in self.adapted.net.named_buffers():
            if f"buffer.{name}" in state:
                buffer.copy_(state[f"buffer.{name}"])

    def narrow(self, keep: Sequence[int]) -> None:
        """Keep only these runs of the stack, with their optimiser state and random streams."""
        old, states = self.adapted, self.optimizer.state
        self.adapted = old.take(keep)
        self.progress = [self.progress[k] for k in keep]
        self.images = RunImages(self.kept, [progress.parts for progress in self.progress])
        self._graphed = {}
        features, own = self._features, not self._shared
        self._choose_source()
        if features is not None:
            self._features = {s: f[list(keep)] if own else f for s, f in features.items()}
        runs = [progress.run for progress in self.progress]
        self.optimizer = optimizer_of(self.adapted, runs, self.recipe, self._units)
        for place, k in enumerate(keep):
            pairs = zip(self.adapted.run_parameters(place), old.run_parameters(k), strict=True)
            for (_, ours), (_, theirs) in pairs:
                if theirs in states:
                    self.optimizer.state[ours] = states[theirs]

    def only(self, runs: Sequence[int]) -> Loop:
        """A loop of these runs alone, beside this one."""
        alone = copy.copy(self)
        alone.narrow(runs)
        return alone
