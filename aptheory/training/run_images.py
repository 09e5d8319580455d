"""The images of K runs that train together: each has its own draw of them, or all have the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from aptheory.training.drawing import Part, Parts
from aptheory.training.kept import Kept
from aptheory.training.mixing import Mix


class RunImages:
    """Rows, labels and batches of kept activations, by positions among each run's own images."""

    def __init__(self, kept: Kept, parts: Sequence[Parts]) -> None:
        self.kept = kept
        self.parts = list(parts)
        self._stacked: dict[str, tuple[Tensor, Tensor]] = {}

    def number(self, split: str) -> int:
        """How many images of a split each run has."""
        return len(self.parts[0][split].rows)

    def store(self, split: str) -> str:
        """The kept split that holds the images of a run's split."""
        return self.parts[0][split].store

    def labels(self, split: str) -> Int64[Tensor, "runs images"]:
        """Labels of every run's images of a split, on the network's device."""
        return self._stack(split)[1]

    def rows(
        self, split: str, positions: Int64[Tensor, "runs batch"]
    ) -> Int64[Tensor, "runs batch"]:
        """Rows of the kept split for positions among each run's images (and their views)."""
        rows, _ = self._stack(split)
        number = rows.shape[1]
        view = positions.div(number, rounding_mode="floor")
        return rows.gather(1, positions % number) + self.kept.number(self.store(split)) * view

    def batch(
        self,
        split: str,
        positions: Int64[Tensor, "runs batch"],
        generators: Sequence[torch.Generator] = (),
        mix: Mix | None = None,
    ) -> Tensor:
        """(K*B, ...): the activations at positions of each run, augmented by its generator."""
        rows = self.rows(split, positions)
        return self.kept.batch(self.store(split), rows.flatten(), generators, mix)

    def clean(self, split: str, positions: Int64[Tensor, " batch"]) -> Tensor:
        """(K*B, ...): the same positions among each run's images, without fresh augmentation."""
        runs = len(self.parts)
        part = self._shared_part(split)
        if part is None:
            return self.batch(split, positions.expand(runs, -1))
        rows = self.rows(split, positions.expand(runs, -1))[0]
        return _repeat(self.kept.batch(part.store, rows), runs)

    def _shared_part(self, split: str) -> Part | None:
        """Where the images of a split are, if they are the same for all runs."""
        first, *others = (own[split] for own in self.parts)
        return first if all(part is first for part in others) else None

    def _stack(self, split: str) -> tuple[Tensor, Tensor]:
        """Rows of the kept split and labels of every run's own images, (K, images) each."""
        if split not in self._stacked:
            labels = self.kept.labels(self.store(split))
            rows = torch.stack([own[split].rows for own in self.parts])
            self._stacked[split] = (rows, labels[rows.to(labels.device)])
        return self._stacked[split]


def _repeat(z: Tensor, runs: int) -> Tensor:
    """(B, ...) once for each run: (K*B, ...), run-major."""
    return z if runs == 1 else z.unsqueeze(0).expand(runs, *z.shape).flatten(0, 1)
