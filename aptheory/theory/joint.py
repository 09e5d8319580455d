"""Head and prompt trained together, to first order: what a small prompt adds to a retrained head.

Model
-----
Around a head W₀ and no prompt, the logits move by

    f(x) − W₀φ(x) = ΔW φ(x) + J(x) δ + O(‖ΔW‖‖δ‖ + ‖δ‖²),

with φ the classifier's input (a 1 in it for the bias) and J the derivative of W₀φ by the prompt
(`tangent.tangent_features`). A frozen head (`tangent.prompt_regression`) asks what J δ explains;
but a head is trained beside every prompt, and much of what J δ can do a new head can do as well. So
the head is eliminated (variable projection, Golub & Pereyra 1973): with H = φ(φᵀφ + λ)⁻¹φᵀ the
ridge smoother of the head, the prompt is fitted to what the head leaves,

    δ = argmin Σ_c (r_c − J_c δ)ᵀ (I − H) (r_c − J_c δ) + λ‖δ‖²,
    ΔW_c = (φᵀφ + λ)⁻¹ φᵀ(r_c − J_c δ),

which is exactly the ridge regression of r on (φ, J) together with one penalty λ over both, i.e.
kernel regression with the joint kernel φφᵀ ⊗ I + J Jᵀ. [derived] At the classifier's input J is the
same for all images, a shift of the bias: nothing is left of it, as statement 6 of `equivalence`
says.

Three ways to fit: `fit` (squared error), `cross_entropy` (squared error of the softmax's residual,
linearised anew a few times: the step of Böhning 1992, whose matrix is the same every time), and
`path` (gradient descent from zero for a stated number of steps and rates: where training ends
early). All are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aptheory.errors import InputError
from aptheory.theory.tangent import Stage, tangent_features, tangent_kernel

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, relative to the mean of the images' squared feature norms."""


@dataclass(frozen=True, eq=False)
class Move:
    """A change of the head and a prompt, in the coordinates of a `Joint`."""

    head: Float[Tensor, "width classes"]
    prompt: Float[Tensor, " coordinates"]

    @property
    def norm(self) -> float:
        """Of the prompt: where it is not small, the linear theory ends."""
        return float(self.prompt.norm())


@dataclass(frozen=True, eq=False)
class Joint:
    """The linearised model on a set of images.

    features : φ, with a column of ones where the head has a bias.
    rows : J, a row a class; sketched or whole.
    """

    features: Float[Tensor, "images width"]
    rows: Float[Tensor, "rows classes coordinates"]  # of the same images

    def __post_init__(self) -> None:
        if len(self.features) != len(self.rows) or not len(self.rows):
            raise InputError(
                f"Features of {len(self.features)} images do not go with the derivatives of "
                f"{len(self.rows)}: give both for the same images."
            )
        object.__setattr__(self, "features", self.features.double())
        object.__setattr__(self, "rows", self.rows.double())

    def take(self, index: Tensor) -> Joint:
        """The model on some of the images."""
        return Joint(self.features[index], self.rows[index])

    @property
    def without_prompt(self) -> Joint:
        """The same head with no prompt beside it: what a gain is measured against."""
        return Joint(self.features, self.rows[:, :, :0])

    def change(self, move: Move) -> Float[Tensor, "images classes"]:
        """ΔW φ + J δ: how the logits move."""
        return self.features @ move.head + self.rows @ move.prompt

    @cached_property
    def scale(self) -> float:
        """Mean over images of ‖φ‖² + ‖J‖²/classes: what penalties are relative to."""
        both = self.features.square().sum(1) + self.rows.square().sum((1, 2)) / self.rows.shape[1]
        return float(both.mean())

    def fit(self, residual: Float[Tensor, "images classes"], ridge: float) -> Move:
        """Least squares with one penalty over head and prompt, `ridge` · scale · images."""
        return self._solver(ridge)(residual.double())

    def cross_entropy(
        self,
        logits: Float[Tensor, "images classes"],
        labels: Int[Tensor, " images"],
        ridge: float,
        *,
        rounds: int = 30,
    ) -> Move:
        """Cross-entropy of logits + change with the penalty of `fit`, by a few re-linearisations.

        The softmax's second derivative is at most ½ (Böhning 1992), so every round solves the same
        least squares, (½XᵀX + ½λ) step = Xᵀ(y − softmax) − ½λ θ, and no round makes it worse.
        """
        target = torch.nn.functional.one_hot(labels.long(), logits.shape[1]).double()
        start, solve, move = logits.double(), self._solver(ridge), self._nothing()
        for _ in range(rounds):
            # The step from θ: a fit of the current change plus twice the softmax's residual.
            now = self.change(move)
            move = solve(now + 2 * (target - torch.softmax(start + now, 1)))
        return move

    def path(
        self,
        logits: Float[Tensor, "images classes"],
        labels: Int[Tensor, " images"],
        *,
        steps: int,
        head_rate: float,
        prompt_rate: float,
    ) -> Move:
        """Where gradient descent on the mean cross-entropy stands after `steps`, from zero."""
        target = torch.nn.functional.one_hot(labels.long(), logits.shape[1]).double()
        start = self._nothing()
        head, prompt = start.head, start.prompt
        for _ in range(steps):
            now = logits.double() + self.features @ head + self.rows @ prompt
            residual = (target - torch.softmax(now, 1)) / len(target)
            head = head + head_rate * self.features.T @ residual
            prompt = prompt + prompt_rate * torch.einsum("icw,ic->w", self.rows, residual)
        return Move(head, prompt)

    def _nothing(self) -> Move:
        head = self.features.new_zeros(self.features.shape[1], self.rows.shape[1])
        return Move(head, self.rows.new_zeros(self.rows.shape[2]))

    def _solver(self, ridge: float) -> _Solver:
        return _Solver(self, ridge * self.scale * len(self.features))


class _Solver:
    """Variable projection, its matrices factored once for every right-hand side."""

    def __init__(self, joint: Joint, penalty: float) -> None:
        self.joint = joint
        gram = joint.features.T @ joint.features
        self.head = torch.linalg.cholesky(gram + penalty * torch.eye(len(gram)).to(gram))
        flat = joint.rows.flatten(1)
        left = (flat - joint.features @ self._smooth(flat)).view_as(joint.rows)  # (I − H) J
        inner = torch.einsum("icw,icv->wv", joint.rows, left)
        self.prompt = torch.linalg.cholesky(inner + penalty * torch.eye(len(inner)).to(inner))
        self.left = left

    def _smooth(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve(self.joint.features.T @ right, self.head)

    def __call__(self, residual: Float[Tensor, "images classes"]) -> Move:
        across = torch.einsum("icw,ic->w", self.left, residual)
        prompt = torch.cholesky_solve(across[:, None], self.prompt)[:, 0]
        return Move(self._smooth(residual - self.joint.rows @ prompt), prompt)


def best_ridge(
    joint: Joint,
    logits: Float[Tensor, "images classes"],
    labels: Int[Tensor, " images"],
    *,
    ridges: Sequence[float] = RIDGES,
    folds: int = 3,
    rounds: int = 12,
    seed: int = 0,
) -> float:
    """The penalty with the smallest cross-entropy on left-out images.

    Raises InputError for fewer images than folds.
    """
    count = len(labels)
    if count < folds:
        raise InputError(f"{count} images cannot be cut into {folds} folds: give more images.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(labels.device)
    losses = torch.zeros(len(ridges), dtype=torch.float64)
    for fold in range(folds):
        held, rest = (
            order[fold::folds],
            torch.cat([order[i::folds] for i in range(folds) if i != fold]),
        )
        inside, outside = joint.take(rest), joint.take(held)
        for i, ridge in enumerate(ridges):
            move = inside.cross_entropy(logits[rest], labels[rest], ridge, rounds=rounds)
            after = logits[held].double() + outside.change(move)
            loss = torch.nn.functional.cross_entropy(after, labels[held], reduction="sum")
            losses[i] += float(loss)
    return float(ridges[int(losses.argmin())])


@dataclass(frozen=True)
class Prediction:
    """What a fit brings on unseen images: share of right answers, mean cross-entropy.

    norm : of the prompt, in units of the rows' coordinates. ridge : the penalty that was chosen.
    """

    accuracy: float
    loss: float
    norm: float
    ridge: float

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "images classes"],
        labels: Int[Tensor, " images"],
        *,
        norm: float,
        ridge: float,
    ) -> Prediction:
        """What these logits are worth."""
        right = (logits.argmax(1) == labels).double().mean()
        loss = torch.nn.functional.cross_entropy(logits.double(), labels)
        return cls(float(right), float(loss), norm, ridge)


def predict(
    train: Joint,
    test: Joint,
    logits: tuple[Float[Tensor, "train classes"], Float[Tensor, "test classes"]],
    labels: tuple[Int[Tensor, " train"], Int[Tensor, " test"]],
    *,
    ridges: Sequence[float] = RIDGES,
    seed: int = 0,
) -> Prediction:
    """Fit on some images (penalty by left-out folds), predict others.

    logits : of the head W₀ around which the model is linearised, on both sets of images. A prompt's
    gain is this of (train, test) against this of both `without_prompt`.
    """
    ridge = best_ridge(train, logits[0], labels[0], ridges=ridges, seed=seed)
    move = train.cross_entropy(logits[0], labels[0], ridge)
    return Prediction.of(logits[1] + test.change(move), labels[1], norm=move.norm, ridge=ridge)


def sketch_error(
    stages: Sequence[Stage], images: Tensor, *, width: int = 512, seed: int = 0
) -> list[float]:
    """Relative error (Frobenius) that the sketch brings into each layer's tangent kernel."""
    exact = tangent_features(stages, [images], width=2**62)
    sketched = tangent_features(stages, [images], width=width, seed=seed)
    errors = []
    for whole, short in zip(exact, sketched, strict=True):
        kernel = tangent_kernel(whole)
        errors.append(float((tangent_kernel(short) - kernel).norm() / kernel.norm()))
    return errors
