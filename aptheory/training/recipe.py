"""How a method is trained: a recipe is a handful of values, and a run is what differs in a stack.

The published recipes carry the marks of the fact sheets: what is known of a paper is used as it
is, and what is unknown is filled with the field's habit and said so in `Recipe.named`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from aptheory.arguments import LARGEST_COUNT, Amount, Between, Seed, Share, check_fields, is_number
from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.training.judging import JUDGES
from aptheory.training.losses import BALANCES
from aptheory.training.mixing import MIXES

_CHOICES: dict[str, tuple[Any, ...]] = {
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("cosine", "constant"),
    "precision": ("float32", "bfloat16", "float16"),
    "keep": ("auto", "memory", "disk", "recompute"),
    "keep_dtype": ("float32", "bfloat16", "float16"),
    "augment": ("none", "flip", "crop", "crop_flip"),
    "head_init": ("default", "zeros", "vapt", "probe"),
    "compile": ("none", "default", "reduce-overhead", "max-autotune"),
    "judge": JUDGES,
    "balance": BALANCES,
    "mix": MIXES,
    "redraw": (False, True),
}
_LATER = ("judge", "redraw", "balance", "mix")
"""Settings that came after runs had been recorded; at their default they stand in no identity, so
that the keys of those runs stay what they were."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything but the seed that decides how a method is trained.

    Learning rate at epoch e (constant within an epoch, as VPT and VAPT step it):

        peak * (e + 1) / warmup_epochs                      while e < warmup_epochs
        peak * (1 + cos(pi * t)) / 2,  t = (e - warmup) / (epochs - warmup)   afterwards

    with ``peak = lr * batch_size / lr_reference_batch`` where a reference batch is given, else
    ``lr``. No epoch has learning rate 0: the warm-up starts at ``1 / warmup_epochs``.

    Attributes:
        standardize: the head sees ``(f - mean) / std`` of the *clean* training features.
        scale_prompts: the learning rate of a prompt counts in units of the activation that it is
            added to (its root mean square over the clean training images), so that one rate means
            the same at every layer; without it, layers differ by their scale alone.
        optimizer, schedule: "adamw", "adam" or "sgd"; "cosine" or "constant".
        decay_head_bias: whether weight decay reaches the head's bias (VPT and VAPT: no).
        augment, views: random augmentation of the training images: "none", "flip", "crop" or
            "crop_flip". ``views=V`` keeps V fixed random views of every image; ``views=0`` draws a
            fresh one each time, and then nothing can be kept before the prompt: keeping is off for
            the training split.
        validate_every: epochs between two validations; 0 validates after the last epoch only.
        patience: stop after that many validations without a better one, and go back to the best.
        judge: what is better on the validation images, for early stopping and for every choice
            between runs: "accuracy" or "loss" (which still moves where accuracies are tied).
        redraw: each seed draws its training and validation images anew, as many of each class, from
            the task's pool (`Task.drawn_from`), so that the spread over seeds holds the luck of the
            training set. Test images stay. Without it every seed sees the task's own splits.
        balance: how classes of unequal size count alike: "weights" in the loss, n / (C n_c) of its
            class on an image, or "sampler", which draws images with such weights, with replacement.
        mix: blends of two training images, "mixup" or "cutmix", with blended labels. Nothing of the
            training images is kept then, and it goes with no ``balance="weights"``.
        precision: "float32", "bfloat16" or "float16", the type of the autocast; weights, gradients
            and optimiser state stay float32.
        keep, keep_dtype: where the activations entering the first trained place are kept ("auto",
            "memory", "disk" or "recompute"), and in which type.
        head_init: "probe" starts at a regularised logistic regression on the clean features, so
            that what a method gains is gained over a probe that has converged, and a prompt at the
            classifier's input, which can gain nothing, stays there; "default" leaves the method's
            own start; "zeros"; "vapt" as that paper's release.
        together: how many runs `fit_many` trains as one batch; None lets it choose.
        accumulate: micro-batches a step; the gradients are summed, so the step is the same.
        channels_last: memory format of maps; None takes it where it pays (half precision, GPU).
        compile, cuda_graph: torch.compile's mode for the rest of the network, or capture it.
        fuse: fold frozen BatchNorm into the convolution before it while training: the same function
            to rounding.
        max_gradient_norm: clip each run's own gradient to this norm; None leaves it.
    """

    name: str = "quick"
    optimizer: str = "adamw"
    lr: float = 1e-2
    lr_reference_batch: int | None = None
    weight_decay: float = 1e-4
    decay_head_bias: bool = True
    momentum: Share = 0.9
    epochs: int = 20
    batch_size: int = 64
    warmup_epochs: int = 0
    schedule: str = "cosine"
    standardize: bool = True
    label_smoothing: Share = 0.0
    scale_prompts: bool = True
    max_gradient_norm: Annotated[float, Between(0, open=True)] | None = None
    augment: str = "none"
    views: int = 0
    validate_every: int = 0
    patience: int | None = None
    precision: str = "float32"
    keep: str = "auto"
    keep_dtype: str = "float32"
    head_init: str = "probe"
    together: int | None = None
    accumulate: int = 1
    eval_batch_size: int = 256
    channels_last: bool | None = None
    compile: str = "none"
    cuda_graph: bool = False
    fuse: bool = True
    judge: str = "accuracy"
    balance: str = "none"
    redraw: bool = False
    mix: str = "none"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not any(type(value) is type(choice) and value == choice for choice in choices):
                raise InputError(
                    f"{name} must be one of {', '.join(map(str, choices))}; got {shown(value)}."
                )
        for name in ("lr", "weight_decay", "momentum", "label_smoothing"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise InputError(f"{name} must be a finite number >= 0; got {shown(value)}.")
        for name in ("epochs", "batch_size", "accumulate", "eval_batch_size"):
            _whole(name, getattr(self, name), least=1)
        for name in ("warmup_epochs", "views", "validate_every"):
            _whole(name, getattr(self, name), least=0)
        for name in ("together", "patience", "lr_reference_batch"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least=1)
        check_fields(self, "a recipe")
        if self.mix != "none" and self.balance == "weights":
            raise InputError(
                f"mix={self.mix!r} blends the labels, so that no image has one class to weigh; "
                "leave one of the two out (in Python, balance='sampler' goes with it)."
            )
        if self.views and self.mix != "none":
            raise InputError(
                f"views={self.views} keeps augmented images, but mix={self.mix!r} blends them anew "
                "in every batch; leave views at 0."
            )
        if self.views and self.augment == "none":
            raise InputError(
                f"views={self.views} needs random augmentation; set augment or leave views at 0."
            )
        if self.views and self.redraw:
            raise InputError(
                f"views={self.views} augments every image of the pool, but redraw validates on "
                "some of them; leave views at 0, which augments training images alone."
            )

    def peak_lr(self, lr: float | None = None) -> float:
        """The schedule's largest learning rate, for the recipe's own ``lr`` or another base."""
        base = self.lr if lr is None else lr
        return base * self.batch_size / self.lr_reference_batch if self.lr_reference_batch else base

    def lr_factor(self, epoch: int) -> float:
        """Learning rate at ``epoch`` (counted from 0) divided by the peak; in (0, 1]."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / self.warmup_epochs
        if self.schedule == "constant":
            return 1.0
        done = (epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)
        return (1 + math.cos(math.pi * done)) / 2

    def settings(self) -> dict[str, Any]:
        """The fields as plain values, for a run's identity and its record."""
        default = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in _LATER or value != default[name]
        }

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed; an unknown name is refused."""
        known = {field.name for field in fields(self)}
        if unknown := sorted(set(changes) - known):
            raise InputError(
                f"A recipe has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}."
            )
        return replace(self, **changes)

    @classmethod
    def named(cls, name: str, **changes: Any) -> Recipe:
        """One of the four recipes, with some values changed.

        - ``quick``: AdamW, cosine, 20 epochs, from a converged probe on standardised features, a
          prompt's steps in units of the activation: the short modern default.
        - ``paper_ap``: SGD, cosine, cross entropy, 1000 epochs [recalled from the AP paper];
          learning rate, batch size, momentum, decay and augmentation are unknown: 0.1, 128, 0.9,
          0 and none are our choice, and the features are left as they are.
        - ``vpt``: SGD 0.9, 100 epochs of which 10 warm-up, cosine stepped by epoch, batch 64,
          lr = base * batch / 256, decay on all but the head's bias. The base rate and the decay
          are searched per task; 1.0 and 1e-3 are those of one independent run (DMLab, EuroSAT).
        - ``vapt``: as ``vpt``, with the head that its release starts from: kaiming-normal
          (fan out), bias -4.595 [code].
        """
        try:
            values = _NAMED[name]
        except (KeyError, TypeError):
            raise InputError(
                f"There is no recipe {shown(name)}; choose one of {', '.join(_NAMED)}."
            ) from None
        return cls(name=name, **values).but(**changes)


def _whole(name: str, value: Any, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST_COUNT:
        raise InputError(
            f"{name} must be a whole number from {least} to {LARGEST_COUNT}; got {shown(value)}."
        )


_VPT: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr": 1.0,
    "lr_reference_batch": 256,
    "weight_decay": 1e-3,
    "decay_head_bias": False,
    "epochs": 100,
    "warmup_epochs": 10,
    "batch_size": 64,
    "standardize": False,
    "scale_prompts": False,
    "head_init": "default",
}
_NAMED: dict[str, dict[str, Any]] = {
    "quick": {},
    "paper_ap": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "lr": 0.1,
        "weight_decay": 0.0,
        "epochs": 1000,
        "batch_size": 128,
        "standardize": False,
        "scale_prompts": False,
        "head_init": "default",
    },
    "vpt": _VPT,
    "vapt": {**_VPT, "head_init": "vapt"},
}


def recipe_names() -> tuple[str, ...]:
    """What `Recipe.named` knows."""
    return tuple(_NAMED)


SEARCH_LR = (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05)
"""Base learning rates that VPT and VAPT search [code]."""
SEARCH_WEIGHT_DECAY = (1e-2, 1e-3, 1e-4, 0.0)
"""Weight decays that VPT and VAPT search [code]."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What differs between runs that train together; None takes the recipe's value."""

    seed: Seed = 0
    lr: Amount | None = None
    weight_decay: Amount | None = None

    def __post_init__(self) -> None:
        check_fields(self, "a run")


def grid(
    *,
    seeds: Sequence[int] = (0,),
    lrs: Sequence[float | None] = (None,),
    weight_decays: Sequence[float | None] = (None,),
) -> list[Run]:
    """Every combination of seeds, learning rates and weight decays: len = the product."""
    return [
        Run(seed=seed, lr=lr, weight_decay=decay)
        for lr in lrs
        for decay in weight_decays
        for seed in seeds
    ]
