"""Several runs side by side: small tensors that learn, K copies of each, one frozen network.

K runs that differ in seed, learning rate or weight decay see the same images through the same
frozen layers. Their samples travel as one batch of K*B, run after run ("run-major"): rows
k*B ... (k+1)*B belong to run k. Each learned tensor is kept as K separate parameters, so that an
optimiser can give each run its own settings, and is stacked to (K, ...) where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.checked import shown
from aptheory.errors import InputError

LARGEST_STD = 1e6

Initial = Callable[[tuple[int, ...], torch.Generator], Tensor]


def zeros(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """All zero: the adapted network starts as the frozen one."""
    return torch.zeros(shape)


def normal(std: float, mean: float = 0.0) -> Initial:
    """Independent N(mean, std^2) entries; exactly ``mean`` when std is 0, and then nothing is
    drawn: a head beside a zero prompt starts as the head of a linear probe does.

    Raises:
        InputError: a deviation that is no number from 0 to `LARGEST_STD`.
    """
    if not 0 <= std <= LARGEST_STD:
        raise InputError(f"std is {shown(std)}; expected a number from 0 to {LARGEST_STD:g}.")
    return partial(_normal, std=std, mean=mean)


def uniform(bound: float) -> Initial:
    """Independent U(-bound, bound) entries."""
    return partial(_uniform, bound=bound)


def copy_of(value: Tensor) -> Initial:
    """The pretrained value, whatever the seed."""
    return partial(_copy, value=value.detach())


def direction(norm: float) -> Initial:
    """A random direction of the given L2 norm, over all entries (drawn in float64)."""
    return partial(_direction, norm=norm)


# Functions of the module, and not closures, so that what holds them can be pickled.


def _normal(
    shape: tuple[int, ...], generator: torch.Generator, *, std: float, mean: float
) -> Tensor:
    if std == 0:
        return torch.full(shape, mean)
    return mean + std * torch.randn(shape, generator=generator)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, *, bound: float) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * bound


def _copy(shape: tuple[int, ...], generator: torch.Generator, *, value: Tensor) -> Tensor:
    return value.expand(shape)


def _direction(shape: tuple[int, ...], generator: torch.Generator, *, norm: float) -> Tensor:
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn * (norm / drawn.norm())


class PerRun(nn.Module):
    """K independent copies of one tensor; calling it stacks them to (K, *shape).

    ``learns=False`` keeps the copies fixed (a random perturbation drawn from each run's seed).
    ``unit`` is what this tensor's learning rate is measured in: training as if the tensor were
    ``unit`` times another one, whose learning rate is the recipe's.
    """

    unit: float = 1.0

    def __init__(
        self,
        runs: int,
        shape: Sequence[int],
        initial: Initial = zeros,
        *,
        like: Tensor,
        learns: bool = True,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.initial = initial
        self.values = nn.ParameterList(
            nn.Parameter(like.new_zeros(self.shape), requires_grad=learns) for _ in range(runs)
        )

    def reset(self, run: int, generator: torch.Generator) -> None:
        """Draw run ``run`` again from a CPU generator, whatever torch's default device is."""
        with torch.no_grad(), torch.device("cpu"):
            self.values[run].copy_(self.initial(self.shape, generator))

    def forward(self) -> Float[Tensor, "runs ..."]:
        if len(self.values) == 1:
            return self.values[0].unsqueeze(0)
        return torch.stack(list(self.values))


class RunDropout(nn.Module):
    """Dropout whose masks come from one generator a run.

    Run k of a stack then sees the masks that it would see alone, so a stacked fit and a single
    one agree. ``dims`` counts the leading sample dimensions; with ``whole_channels=True`` an
    entry of the last dimension is dropped for a whole sample at once (channel dropout).
    """

    def __init__(self, runs: int, probability: float, *, whole_channels: bool = False) -> None:
        super().__init__()
        self.probability = probability
        self.whole_channels = whole_channels
        self.seeds = [0] * runs
        self._generators: dict[tuple[int, str], torch.Generator] = {}

    def reset(self, run: int, seed: int) -> None:
        self.seeds[run] = seed
        self._generators = {key: g for key, g in self._generators.items() if key[0] != run}

    def follow(self, other: RunDropout, runs: Sequence[int]) -> None:
        """Go on with the streams of masks of these runs of another stack, from where they are."""
        self.seeds = [other.seeds[run] for run in runs]
        self._generators = {}
        for place, run in enumerate(runs):
            for (owner, device), generator in other._generators.items():
                if owner == run:
                    twin = torch.Generator(generator.device)
                    twin.set_state(generator.get_state())
                    self._generators[place, device] = twin

    def _generator(self, run: int, device: torch.device) -> torch.Generator:
        key = (run, str(device))
        if key not in self._generators:
            self._generators[key] = torch.Generator(device).manual_seed(self.seeds[run])
        return self._generators[key]

    def forward(self, x: Float[Tensor, "samples ..."]) -> Float[Tensor, "samples ..."]:
        if not self.training or self.probability == 0:
            return x
        runs = len(self.seeds)
        shape = [x.shape[0] // runs, *x.shape[1:]]
        if self.whole_channels:
            shape[1:-1] = [1] * (len(shape) - 2)
        drawn = [
            torch.rand(shape, generator=self._generator(run, x.device), device=x.device)
            for run in range(runs)
        ]
        keep = (torch.cat(drawn) >= self.probability).to(x.dtype)
        return x * keep / (1 - self.probability)


def by_run(x: Float[Tensor, "samples ..."], runs: int) -> Float[Tensor, "runs batch ..."]:
    """(K*B, ...) seen as (K, B, ...)."""
    return x.unflatten(0, (runs, -1))


def merged(x: Float[Tensor, "runs batch ..."]) -> Float[Tensor, "samples ..."]:
    """(K, B, ...) seen as (K*B, ...), the way the frozen layers read it."""
    return x.flatten(0, 1)
