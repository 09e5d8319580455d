"""The rate at which adaptive prompts are learned: least squares against the number of samples.

Claim: the prompts' parameters are estimated at O_P(√(log n / n)) in a Voronoi-type loss, for one
head, one attention row, known frozen experts [paper]; exactly fitted atoms at n^(−1/2), over-fitted
ones at n^(−1/4) [rebuilt]; prompts that are constants stay at a floor under an adaptive truth
[derived].

Model [derived]. X holds N tokens of width d, entries normal and clipped to ±3. Query: token 0. For
head h with frozen, known M_h = W_Q W_Kᵀ and C_h = W_Vᵀ:

    f_h(X) = softmax-average of { C_h x_i with score x_0ᵀ M_h x_i / √d,
                                  C_h P_j(X) with score x_0ᵀ M_h P_j(X) / √d + b_j }
    P_j(X) = W_2 σ(W_1j X + c_j)     (W_1j: rank × N d, W_2: d × rank shared by the prompts; c_j = 0
                                      unless the truth is static)

and Y = (f_1, …, f_H) + normal noise of deviation 0.1. The estimator is least squares inside
|θ| ≤ 4, started near the truth (tanh has a sign symmetry, so far starts land in its copies), by
scipy's L-BFGS-B with torch's gradient. Medians over repetitions are reported.

Two truths. *Adaptive*: constants are then misspecified and stop at a floor, which says that they
cannot express that truth, and nothing of a rate. *Static*: W_1j = 0, the prompts are constants, and
both classes hold the truth; the constants have fewer parameters, and what the adaptive class loses
to them is the price of its flexibility. Only this second contrast compares rates.

σ = tanh, GELU (which the theory allows) or ReLU (which the release uses and the theory excludes:
c W_1, W_2 / c is the same prompt for every c > 0, so parameters are not identified; its Voronoi
loss is computed after scaling W_2 to norm one, which removes exactly that freedom). The identity in
place of σ has the same freedom, and the theory excludes it for more than that: a prompt that is
linear in X is tied to its own score by the derivatives that the theory needs to be independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from aptheory.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "relu": torch.relu,
    "identity": lambda x: x,
}
_SCALE_IS_FREE = ("relu", "identity")
BOUND = 4.0
FAR_STARTS = 3


@dataclass(frozen=True)
class Setting:
    """One experiment (see the module). All arithmetic is float64."""

    tokens: int = 3
    width: int = 3
    rank: int = 1
    atoms: int = 2
    heads: int = 1
    noise: float = 0.1
    activation: Literal["tanh", "gelu", "relu", "identity"] = "tanh"
    truth: Literal["adaptive", "static"] = "adaptive"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"Activation must be one of {tuple(ACTIVATIONS)}, got {self.activation!r}."
            )
        if self.truth not in ("adaptive", "static"):
            raise InputError(f"Truth is 'adaptive' or 'static', got {self.truth!r}.")
        if min(self.tokens, self.width, self.rank, self.atoms, self.heads) < 1:
            raise InputError("Tokens, width, rank, atoms and heads must be at least 1.")

    @property
    def inputs(self) -> int:
        """Numbers that a prompt sees: the tokens, and a 1 where the truth needs an offset."""
        return self.tokens * self.width + (self.truth == "static")


@dataclass(frozen=True, eq=False)
class Prompts:
    """Parameters: `inner` W_1, `outer` W_2 (None for constant prompts, then `inner` is them), `b`.

    inner : (atoms, rank, inputs), or (atoms, width) for constants.
    """

    inner: Tensor
    outer: Tensor | None
    bias: Tensor

    def flat(self) -> np.ndarray:
        """All parameters in one vector."""
        parts = [self.inner, *([] if self.outer is None else [self.outer]), self.bias]
        return torch.cat([p.reshape(-1) for p in parts]).detach().numpy().copy()

    def unflat(self, vector: Tensor) -> Prompts:
        """Parameters of the same shapes from one vector."""
        inner, rest = vector[: self.inner.numel()].reshape(self.inner.shape), None
        rest = vector[self.inner.numel() :]
        if self.outer is None:
            return Prompts(inner, None, rest)
        outer = rest[: self.outer.numel()].reshape(self.outer.shape)
        return Prompts(inner, outer, rest[self.outer.numel() :])


@dataclass(frozen=True, eq=False)
class Problem:
    """Frozen experts and the true prompts of one repetition."""

    setting: Setting
    score: Float[Tensor, "heads width width"]
    value: Float[Tensor, "heads width width"]
    truth: Prompts

    @classmethod
    def draw(cls, setting: Setting, *, seed: int) -> Problem:
        """Random frozen matrices and a random truth, its prompts well apart."""
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        s = setting
        inner = 0.5 * normal(s.atoms, s.rank, s.inputs)
        if s.truth == "static":
            inner = torch.cat([torch.zeros_like(inner[..., :-1]), 2 * inner[..., -1:]], -1)
        outer = normal(s.width, s.rank)
        outer = 2 * outer / outer.norm()
        bias = torch.linspace(0.5, 1.0, s.atoms, dtype=torch.float64)
        return cls(
            s,
            normal(s.heads, s.width, s.width) / s.width**0.5,
            normal(s.heads, s.width, s.width),
            Prompts(inner.clamp(-3, 3), outer, bias),
        )

    def inputs(self, samples: int, *, seed: int) -> Float[Tensor, "samples tokens width"]:
        """Clipped normal inputs."""
        g = torch.Generator().manual_seed(seed)
        shape = (samples, self.setting.tokens, self.setting.width)
        return torch.randn(*shape, generator=g, dtype=torch.float64).clamp_(-3, 3)

    def frozen(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What does not depend on the prompts: query·M (n, h, d), Σ e^s C x (n, h, d), Σ e^s."""
        direction = torch.einsum("nd,hde->nhe", x[:, 0], self.score) / self.setting.width**0.5
        weight = torch.exp(torch.einsum("nhe,nte->nht", direction, x))
        mixed = torch.einsum("nht,nte->nhe", weight, x)
        return direction, torch.einsum("hde,nhe->nhd", self.value, mixed), weight.sum(-1)

    def constants(self) -> Prompts:
        """The truth as constant prompts; raises InputError where it is adaptive."""
        if self.setting.truth != "static":
            raise InputError("An adaptive truth has no form as constants: draw a static one.")
        assert self.truth.outer is not None
        hidden = ACTIVATIONS[self.setting.activation](self.truth.inner[..., -1])
        return Prompts(hidden @ self.truth.outer.T, None, self.truth.bias)

    def predict(
        self, x: Tensor, prompts: Prompts, frozen: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Float[Tensor, "samples heads width"]:
        """f(X) under `prompts`."""
        direction, numerator, denominator = frozen or self.frozen(x)
        if prompts.outer is None:
            values = prompts.inner.expand(len(x), -1, -1)
        else:
            atoms, rank, _ = prompts.inner.shape
            seen = x.flatten(1)
            if self.setting.truth == "static":
                seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
            hidden = (seen @ prompts.inner.flatten(0, 1).T).view(-1, atoms, rank)
            values = ACTIVATIONS[self.setting.activation](hidden) @ prompts.outer.T
        weight = torch.exp(direction @ values.transpose(1, 2) + prompts.bias)  # (n, h, atoms)
        mixed = weight @ values
        top = numerator + (mixed.transpose(0, 1) @ self.value.transpose(1, 2)).transpose(0, 1)
        return top / (denominator + weight.sum(-1))[..., None]


def start_near_truth(problem: Problem, atoms: int, *, spread: float, seed: int) -> Prompts:
    """Truth plus normal noise; surplus atoms start as copies that share the first atom's weight."""
    g = torch.Generator().manual_seed(seed)
    truth, extra = problem.truth, atoms - problem.setting.atoms
    if extra < 0:
        raise InputError(f"need at least {problem.setting.atoms} atoms, got {atoms}")
    assert truth.outer is not None
    inner = torch.cat([truth.inner, truth.inner[:1].expand(extra, -1, -1)])
    bias = torch.cat([truth.bias, truth.bias[:1].expand(extra)]).clone()
    share = float(np.log(1 + extra))
    bias[0] -= share
    bias[problem.setting.atoms :] -= share

    def near(p: Tensor) -> Tensor:
        return p + spread * torch.randn(p.shape, generator=g, dtype=p.dtype)

    return Prompts(near(inner), near(truth.outer), near(bias))


def fit(
    problem: Problem, x: Tensor, y: Tensor, start: Prompts, *, iterations: int = 300
) -> Prompts:
    """Least squares inside |θ| ≤ BOUND from `start`."""
    frozen = problem.frozen(x)

    def objective(vector: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(vector).requires_grad_(True)
        loss = (problem.predict(x, start.unflat(theta), frozen) - y).square().sum() / len(x)
        (gradient,) = torch.autograd.grad(loss, theta)
        return float(loss.detach()), gradient.numpy()

    first = np.clip(start.flat(), -BOUND, BOUND)
    best = minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * len(first),
        options={"maxiter": iterations, "ftol": 1e-10, "gtol": 1e-7},
    )
    return start.unflat(torch.from_numpy(best.x))


def voronoi_loss(problem: Problem, fitted: Prompts) -> float:
    """Distance of the fitted mixing measure to the truth, cell by cell [rebuilt].

    Each fitted atom belongs to the nearest true atom (in W_1). A true atom with one fitted atom
    adds |Σe^b − e^b*| + e^b ‖ΔW_1‖; one with several adds the squares ‖ΔW_1‖² instead; one with
    none adds its whole weight. ‖ΔW_2‖ is added once. Where σ leaves the
    scale free (ReLU, identity) it is removed first.
    """
    truth = problem.truth
    assert truth.outer is not None
    assert fitted.outer is not None
    inner, outer, inner_true, outer_true = fitted.inner, fitted.outer, truth.inner, truth.outer
    if problem.setting.activation in _SCALE_IS_FREE:
        inner, outer = inner * outer.norm(), outer / outer.norm()
        inner_true, outer_true = inner_true * outer_true.norm(), outer_true / outer_true.norm()
    apart = (inner[:, None] - inner_true[None]).flatten(2).norm(dim=-1)
    owner = apart.argmin(1)
    total = float((outer - outer_true).norm())
    for atom in range(len(inner_true)):
        cell = (owner == atom).nonzero().flatten()
        weight, true_weight = fitted.bias[cell].exp(), truth.bias[atom].exp()
        total += float((weight.sum() - true_weight).abs())
        power = 1 if len(cell) == 1 else 2
        total += float((weight * apart[cell, atom] ** power).sum())
    return total


def function_error(problem: Problem, fitted: Prompts, *, seed: int, samples: int = 4000) -> float:
    """L2 error √E‖f̂(X) − f*(X)‖² on fresh inputs."""
    x = problem.inputs(samples, seed=seed)
    gap = problem.predict(x, fitted) - problem.predict(x, problem.truth)
    return float(gap.square().sum((1, 2)).mean().sqrt())


def one_repetition(
    setting: Setting,
    samples: int,
    *,
    seed: int,
    fits: tuple[str, ...] = ("exact", "overfitted", "constant"),
) -> list[dict[str, Any]]:
    """Draw a problem and n samples, fit, and measure. Rows: fit, measure, value.

    The same `seed` gives the same problem for every n, so growth with n is seen within a problem.
    """
    problem = Problem.draw(setting, seed=seed)
    x = problem.inputs(samples, seed=seed + 1_000_003 + samples)
    noise = torch.Generator().manual_seed(seed + 2_000_003 + samples)
    clean = problem.predict(x, problem.truth)
    y = clean + setting.noise * torch.randn(clean.shape, generator=noise, dtype=clean.dtype)
    rows = []
    for name in fits:
        if name == "constant":
            fitted = _best_constant(problem, x, y, seed=seed)
        elif name == "far":
            starts = [start_far(problem, seed=seed + 11 * k) for k in range(FAR_STARTS)]
            fitted = _best(problem, x, y, starts)
        else:
            atoms = setting.atoms + (name == "overfitted")
            fitted = fit(problem, x, y, start_near_truth(problem, atoms, spread=0.05, seed=seed))
        if name != "constant":
            rows.append(
                {"fit": name, "measure": "voronoi_loss", "value": voronoi_loss(problem, fitted)}
            )
        error = function_error(problem, fitted, seed=seed + 3_000_003)
        rows.append({"fit": name, "measure": "function_error", "value": error})
    return rows


def start_far(problem: Problem, *, seed: int) -> Prompts:
    """A start that knows nothing of the truth: prompts drawn as the truth is."""
    other = Problem.draw(problem.setting, seed=seed + 5_000_011).truth
    return Prompts(other.inner, other.outer, torch.zeros_like(other.bias))


def _best(problem: Problem, x: Tensor, y: Tensor, starts: Sequence[Prompts]) -> Prompts:
    """The fit with the smallest training loss."""
    fits = [fit(problem, x, y, start) for start in starts]
    losses = [float((problem.predict(x, each) - y).square().mean()) for each in fits]
    return fits[int(np.argmin(losses))]


def _best_constant(problem: Problem, x: Tensor, y: Tensor, *, seed: int) -> Prompts:
    """Constant prompts: near a static truth, or the best from two random starts."""
    g = torch.Generator().manual_seed(seed + 7)
    s = problem.setting

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    if s.truth == "static":
        true = problem.constants()
        near = Prompts(
            true.inner + 0.05 * normal(*true.inner.shape),
            None,
            true.bias + 0.05 * normal(*true.bias.shape),
        )
        return fit(problem, x, y, near)
    starts = [
        Prompts(0.5 * normal(s.atoms, s.width), None, torch.zeros(s.atoms, dtype=torch.float64))
        for _ in range(2)
    ]
    return _best(problem, x, y, starts)
