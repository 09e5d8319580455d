"""Kept activations: what enters the first trained place, run once for each image.

Everything before that place is frozen and does not depend on what is learned. So it is run once
and kept in memory, or memory-mapped on disk where memory is short, or run again each time where
that is cheaper than reading. A sweep over layers extends what is kept from place to place.

    kept = Kept.start(net, task)               # the images themselves
    for layer in range(len(net.layers)):
        kept.advance(layer)                    # costs the piece between the two places alone
        z = kept.batch("train", torch.arange(64))
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from aptheory.devices import DTYPES, autocast
from aptheory.errors import InputError
from aptheory.networks.reading import Reading
from aptheory.tasks.pictures import with_channels
from aptheory.tasks.resizing import view
from aptheory.tasks.split import is_random
from aptheory.training.images import Activations, Images
from aptheory.training.keeping import Decision, KeepPolicy, Where
from aptheory.training.memory import free_memory, human, out_of_memory
from aptheory.training.mixing import Mix

if TYPE_CHECKING:
    from aptheory.networks.network import Network, Place
    from aptheory.tasks.base import Task

_TRAINED_ON = ("train", "pool")
_MEMORY_SHARE = 0.5
_DISK_SHARE = 0.8
# For the choice between reading and running again; only their order of magnitude matters.
_DISK_BYTES_PER_SECOND = 5e8
_FLOPS_PER_SECOND = {"cpu": 2e10, "cuda": 2e13}

_log = logging.getLogger("aptheory")


class Kept:
    """Activations entering one place of a frozen network, for each split of a task and its pool.

    A split that is never read costs nothing.

    ``policy`` says how they are kept (see `KeepPolicy`), ``layer`` is the place to start at.
    """

    def __init__(
        self,
        net: Network,
        task: Task,
        policy: KeepPolicy | None = None,
        *,
        layer: Place = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        net.check_ready()
        self.net, self.task, self.policy = net, task, policy or KeepPolicy()
        self.dtype = DTYPES[self.policy.keep_dtype]
        self.random = is_random(task.train)
        augment, views = self.policy.augment, self.policy.views
        mix = self.policy.mix
        self.fresh = self.random or mix != "none" or (augment != "none" and views == 0)
        self.device = net.device
        self.log = log or _log.info
        splits = {"train": task.train, "val": task.val, "test": task.test, "pool": task.drawn_from}
        self._images = {
            name: Images(
                split,
                view(split, net),
                augment if name in _TRAINED_ON else "none",
                views if name in _TRAINED_ON else 0,
                self.policy.seed,
            )
            for name, split in splits.items()
        }
        #: What is said of a split: where validation stands in for it no test image is read.
        self._spoken = {"test": "val once more"} if task.test is task.val else {}
        self._stores: dict[str, Images | Activations] = dict(self._images)
        self._decisions: dict[tuple[str, int], Decision] = {}
        self._features: dict[tuple[str, Reading], Tensor] = {}
        #: Where heads started, by what they read, whether it was standardised, and which images.
        self.probes: dict[tuple[Reading, bool, str, bytes], tuple[Tensor, Tensor]] = {}
        self._piece_flops: dict[tuple[int, int], float] = {}
        self._labels = {
            name: torch.from_numpy(np.asarray(split.labels)).to(self.device)
            for name, split in splits.items()
        }
        largest = max(math.prod(place.shape) for place in net.layers)
        self.chunk = max(16, min(256, 2**23 // largest))
        self.layer = 0
        self.advance(layer)
        if self.fresh:
            how = "of the task" if self.random else augment if mix == "none" else mix
            self.log(
                f"random augmentation ({how}) is drawn afresh for every batch: the training "
                "split cannot be kept before the prompt; views=V would keep V views an image"
            )

    @classmethod
    def start(
        cls,
        net: Network,
        task: Task,
        *,
        layer: Place = 0,
        log: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Kept:
        """The images of ``task``; `advance` moves on from there. Options as for `KeepPolicy`."""
        return cls(net, task, KeepPolicy(**options), layer=layer, log=log)

    # ---------------------------------------------------------------------------- reading

    def number(self, split: str) -> int:
        """How many images a split has (views not counted)."""
        return len(self._labels[split])

    def labels(self, split: str) -> Int64[Tensor, " images"]:
        """Labels of a split, on the network's device."""
        return self._labels[split]

    def batch(
        self,
        split: str,
        rows: Int64[Tensor, " batch"],
        generators: Sequence[torch.Generator] = (),
        mix: Mix | None = None,
    ) -> Float[Tensor, "batch ..."]:
        """What enters place ``layer`` for the images ``rows`` (CPU indices), float32.

        ``generators`` augment afresh where that is on: one for each equal part of ``rows``.
        ``mix`` blends the images, which must not be kept further on.
        """
        self._prepare(split)
        return self._read(self._stores[split], rows, self.layer, generators, mix)

    def features(self, split: str, reading: Reading | None = None) -> Float[Tensor, "rows width"]:
        """Clean features: what a head reads, by default the classifier's input.

        One row an image (a view, where views are kept), without fresh augmentation. Computed
        once and remembered, whatever place the kept activations move on to.
        """
        reading = reading or Reading.of(self.net)
        key = (split, reading)
        if key not in self._features:
            first = reading.first
            if self.layer <= first:
                self._prepare(split)
            store = self._stores[split]
            if store.layer > first:
                store = self._images[split]
            found = torch.cat(
                [
                    self._through(self._read(store, rows, first), first, reading)
                    for rows in torch.arange(self._images[split].rows).split(self.chunk)
                ]
            )
            if not bool(torch.isfinite(found).all()):
                raise InputError(
                    f"the features of {self.net.name} are no numbers (nan or inf) for images of "
                    f"{split}: its weights are damaged, or too large for the precision; load it "
                    "anew, or train in float32."
                )
            self._features[key] = found
        return self._features[key]

    def _read(
        self,
        store: Images | Activations,
        rows: Tensor,
        stop: int,
        generators: Sequence[torch.Generator] = (),
        mix: Mix | None = None,
    ) -> Tensor:
        if isinstance(store, Activations):
            z = store.get(rows).to(self.device, non_blocking=True)
        else:
            images = store.get(rows, generators)
            images = with_channels(images, self.net.input_shape[0], f"network {self.net.name!r}")
            z = self.net.normalize(images.to(self.device, non_blocking=True))
            z = z if mix is None else mix(z)
            if self.policy.channels_last:
                z = z.to(memory_format=torch.channels_last)
        return z if store.layer == stop else self._through(z, store.layer, stop)

    @torch.no_grad()
    def _through(self, z: Tensor, start: int, stop: int | Reading) -> Tensor:
        """Run on to a place or to what a head reads; in halves when memory runs out."""
        z = z.to(self.net.dtype)
        try:
            with autocast(self.device, self.policy.precision):
                if isinstance(stop, Reading):
                    return stop.features(self.net, z, start=start).float()
                return self.net.run(z, start=start, stop=stop).float()
        except RuntimeError as error:
            if not out_of_memory(error) or len(z) < 2:
                raise
        place = stop.last if isinstance(stop, Reading) else stop
        self.log(f"out of memory before place {place}: {len(z)} images are run as two halves")
        return torch.cat([self._through(part, start, stop) for part in z.chunk(2)])

    # ---------------------------------------------------------------------------- moving

    def advance(self, layer: Place) -> Kept:
        """Move to what enters place ``layer``; returns itself.

        Costs the pieces between the two places, once an image, when a split is next read. A place
        before the present one starts from the images again, and says so.
        """
        layer = self.net.place(layer).index
        for split, store in self._stores.items():
            if store.layer > layer:
                name = self._spoken.get(split, split)
                self.log(f"{name}: back from place {store.layer} to {layer}, from the images")
                assert isinstance(store, Activations)
                store.drop()
                self._stores[split] = self._images[split]
        self.layer = layer
        return self

    def _prepare(self, split: str) -> None:
        store = self._stores[split]
        if store.layer == self.layer and not isinstance(store, Images):
            return
        key = (split, self.layer)
        if key not in self._decisions:
            decision = self._decide(split)
            self._decisions[key] = decision
            name = self._spoken.get(split, split)
            self.log(f"{name} at {self._name(self.layer)}: {decision}")
            again = decision.where in (Where.IMAGES, Where.AGAIN)
            if again and self.policy.passes.get(split, math.inf) > 1:
                self._images[split].cache(self._limit(torch.device("cpu")))
        if self._decisions[key].where.stored:
            self._store(split, self._decisions[key].where)

    def _store(self, split: str, where: Where) -> None:
        """Run the frozen pieces from the present store to ``layer`` and keep what comes out."""
        old = self._stores[split]
        shape = self.net.layers[self.layer].shape
        last = self.policy.channels_last and self.net.layers[self.layer].layout == "map"
        images = self._images[split].rows
        same = (
            isinstance(old, Activations)
            and where is Where.DEVICE
            and old.kind == "memory"
            and tuple(shape) == tuple(self.net.layers[old.layer].shape)
        )
        if same:  # rows are read before they are written: no second copy is needed
            assert isinstance(old, Activations)
            new = Activations(self.layer, old.data, self.dtype, last=last)
        else:
            new = Activations.empty(
                self.layer,
                images,
                shape,
                self.dtype,
                last=last,
                device=self.device if where is Where.DEVICE else torch.device("cpu"),
                disk=self._scratch() if where is Where.DISK else None,
            )
        # Until the new rows are complete the old ones, perhaps half overwritten, do not count.
        self._stores[split] = self._images[split]
        for rows in torch.arange(images).split(self.chunk):
            z = self._read(old, rows, self.layer)
            new.put(slice(int(rows[0]), int(rows[-1]) + 1), z)
        if isinstance(old, Activations) and not same:
            old.drop()
        self._stores[split] = new

    # ---------------------------------------------------------------------------- choosing

    def _bytes(self, split: str, layer: int) -> int:
        size = torch.empty((), dtype=self.dtype).element_size()
        return self._images[split].rows * math.prod(self.net.layers[layer].shape) * size

    def _limit(self, device: torch.device) -> float:
        if self.policy.memory_limit is not None:
            held = sum(
                self._bytes(name, store.layer)
                for name, store in self._stores.items()
                if isinstance(store, Activations) and store.kind == "memory"
            )
            return self.policy.memory_limit - held
        return _MEMORY_SHARE * free_memory(device)

    def _decide(self, split: str) -> Decision:
        size = self._bytes(split, self.layer)
        room = human(size)
        if self.layer == 0:
            return Decision(Where.IMAGES, "kept as bytes")
        fresh = split in _TRAINED_ON and self.fresh
        if fresh or is_random(self._images[split].split):
            return Decision(Where.AGAIN, "fresh augmentation")
        if self.policy.keep != "auto":
            return Decision(Where(self.policy.keep), f"as asked, {room}")
        if self.policy.passes.get(split, math.inf) <= 1:
            return Decision(Where.AGAIN, "read only once")
        if size <= self._limit(self.device):
            return Decision(Where.DEVICE, room)
        cpu = torch.device("cpu")
        if self.device != cpu and size <= self._limit(cpu):
            return Decision(Where.HOST, f"{room}, too large for the device")
        reading = size / self._images[split].rows / _DISK_BYTES_PER_SECOND
        again = self._flops(0, self.layer) / _FLOPS_PER_SECOND.get(self.device.type, 2e10)
        if again <= reading:
            return Decision(Where.AGAIN, f"cheaper than reading {room}")
        if size <= _DISK_SHARE * self._free_disk():
            return Decision(Where.DISK, f"{room}, too large for memory")
        return Decision(Where.AGAIN, f"{room} fit neither memory nor disk")

    def _scratch(self) -> str | Path:
        return self.policy.scratch or tempfile.gettempdir()

    def _free_disk(self) -> int:
        """Bytes that are free where activations may be kept; 0 where there is no such place."""
        try:
            return shutil.disk_usage(self._scratch()).free
        except OSError:
            return 0

    def _flops(self, start: int, stop: int) -> float:
        if (start, stop) not in self._piece_flops:
            from torch.utils.flop_counter import FlopCounterMode

            z = torch.zeros(1, *self.net.layers[start].shape, device=self.device)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                self.net.run(z, start=start, stop=stop)
            self._piece_flops[start, stop] = float(counter.get_total_flops())
        return self._piece_flops[start, stop]

    def _name(self, layer: int) -> str:
        return f"place {layer} ({self.net.layers[layer].name})"

    def describe(self) -> dict[str, str]:
        """Split -> where it is kept at the present place, as it was decided."""
        return {s: str(d) for (s, layer), d in self._decisions.items() if layer == self.layer}

    def close(self) -> None:
        """Let go of everything kept; the next reading starts from the images."""
        for split, store in self._stores.items():
            if isinstance(store, Activations):
                store.drop()
            self._stores[split] = self._images[split]
        self._features.clear()
        self.probes.clear()
