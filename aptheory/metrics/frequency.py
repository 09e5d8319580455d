"""Frequency: does a layer keep the fine detail of its map, or smooth it away?

Relative log amplitude (Park & Kim 2022, "How Do Vision Transformers Work?"): the amplitude of a
feature map's two-dimensional Fourier transform at each frequency along the diagonal, averaged over
channels, as a logarithm relative to frequency 0. The one number that stands for a layer is the
value at the highest frequency (1.0 π for an even side): more negative is smoother.

Stated, because it changes the numbers: the mean over channels is taken before the logarithm (a dead
channel has amplitude 0 and no logarithm), the mean over images after it. Amplitudes are not
resolved below the rounding of the transform (float32, also of half-precision maps), which bounds
the measure at about -16 for a constant float32 map.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Level
from aptheory.errors import InputError
from aptheory.metrics.inputs import Side, arrays
from aptheory.metrics.intervals import Estimate, RunningMean
from aptheory.metrics.registry import INFINITE, measure


@arrays
def diagonal_frequencies(grid: tuple[Side, Side]) -> Float[Tensor, "frequencies"]:
    """The frequencies along the diagonal, in units of π: 0 to 1 (below 1 for odd sides).

    A map of m rows or columns on its shorter side has ⌊m / 2⌋ + 1; on the longer side the nearest
    bin of the same frequency is taken.
    """
    side = min(grid)
    return torch.arange(side // 2 + 1, dtype=torch.float64) * 2 / side


def _amplitudes(maps: Tensor) -> Tensor:
    """(images, channels, height, width) -> (images, frequencies) mean amplitude, float64."""
    height, width = maps.shape[-2:]
    steps = diagonal_frequencies((height, width)) / 2
    rows = (steps * height).round().to(torch.int64)
    columns = (steps * width).round().to(torch.int64)
    transform = torch.fft.rfft2(maps)[..., rows, columns].abs()
    return transform.mean(1, dtype=torch.float64)


def _relative(maps: Tensor) -> Tensor:
    if maps.ndim != 4 or min(maps.shape[-2:]) < 2:
        raise InputError(
            f"Maps have shape {tuple(maps.shape)}; expected (images, channels, height, width) with "
            "at least 2 rows and columns."
        )
    if maps.dtype not in (torch.float32, torch.float64):
        maps = maps.float()  # half precision is exact here; its own rounding is not the transform's
    amplitudes = _amplitudes(maps)
    energy = torch.linalg.vector_norm(maps, dim=(1, 2, 3), dtype=torch.float64)
    channels, positions = maps.shape[1], maps.shape[2] * maps.shape[3]
    # Rounding leaves about eps × (root mean square) × positions in every bin.
    floor = torch.finfo(maps.dtype).eps * energy * (positions / channels) ** 0.5
    logs = torch.maximum(amplitudes, floor[:, None]).log()
    return logs - logs[:, :1]


@measure(
    "maps",
    -INFINITE,
    INFINITE,
    unchanged_by={"scaling", "channel order", "image order"},
    greater_means="more fine detail",
    source="Park & Kim 2022",
    unit="log amplitude",
)
@arrays
def relative_log_amplitude(
    maps: Float[Tensor, "images channels height width"],
) -> Float[Tensor, "images frequencies"]:
    """log amplitude along the diagonal minus that at frequency 0, an image a row, float64.

    Args:
        maps: feature maps; tokens must be put back on their grid, without prefix tokens.

    Raises:
        InputError: not four dimensions, a side of 1, an image whose map is all zeros.

    >>> impulse = torch.zeros(1, 1, 4, 4)
    >>> impulse[0, 0, 0, 0] = 1  # all frequencies alike
    >>> relative_log_amplitude(impulse)
    tensor([[0., 0., 0.]], dtype=torch.float64)
    """
    values = _relative(maps)
    if not bool(values.isfinite().all()):
        raise InputError("A map is all zeros or not finite: it has no relative amplitude.")
    return values


class RelativeLogAmplitude:
    """Streaming `relative_log_amplitude`: its mean over images.

    Images whose map is all zeros have no value; they are left out and counted in ``left_out``.
    """

    def __init__(self) -> None:
        self.running = RunningMean()
        self.left_out = 0

    @arrays
    def update(self, maps: Float[Tensor, "images channels height width"]) -> None:
        """Add one batch of maps."""
        values = _relative(maps)
        good = values.isfinite().all(1)
        self.left_out += int((~good).sum())
        self.running.update(values[good])

    @arrays
    def merge(self, other: "RelativeLogAmplitude") -> None:
        """Take over what ``other`` has seen."""
        self.running.merge(other.running)
        self.left_out += other.left_out

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """The curve over frequencies, (frequencies,); its last entry stands for the layer."""
        if self.running.count == 0 and self.left_out:
            raise InputError("Every map is all zeros or not finite: no relative amplitude.")
        return self.running.compute(level=level)
