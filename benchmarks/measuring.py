"""What the metric benchmarks share: networks with random weights, images, CPU seconds, peers.

Cost is CPU seconds of this process over those of the bare forward pass, ``net(x)`` batch by batch,
measured in turn (forward, work, forward, work ...) so that a busy machine slows both; the medians
are divided. One thread by default: threads that wait for each other burn CPU seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import aptheory as ap

NETWORKS = ("vit_tiny_patch16_224", "resnet18")


def arguments(description: str, **more: object) -> argparse.Namespace:
    """The options of every script here; ``more`` are further ones with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    for name, default in more.items():
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def network(name: str) -> ap.Network:
    """A network with random weights from a seed."""
    torch.manual_seed(0)
    return ap.load(name, None)


def pictures(count: int, net: ap.Network, *, seed: int = 0) -> Tensor:
    """Smooth random images, float32 normalised: neighbouring pixels agree, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(count, 3, 14, 14, generator=generator)
    large = torch.nn.functional.interpolate(small, net.input_shape[1:], mode="bicubic")
    return large + 0.1 * torch.randn(large.shape, generator=generator)


def forward(net: ap.Network, images: Tensor, batch: int) -> None:
    """The bare forward pass, its output thrown away."""
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            net(images[start : start + batch])


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call, all threads together."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(
    base: Callable[[], object], work: Callable[[], object], *, repeats: int
) -> tuple[float, float, float]:
    """(ratio of medians, base seconds, work seconds), the two measured in turn."""
    work()  # whatever is set up once is not the measure's cost
    bases, works = [], []
    for _ in range(repeats):
        bases.append(cpu_seconds(base))
        works.append(cpu_seconds(work))
    middle = statistics.median(bases), statistics.median(works)
    return middle[1] / middle[0], *middle


def peak_memory(work: Callable[[], object]) -> float:
    """MB by which the process grows at most during one call, beyond what it holds at its start.

    Linux only: the high-water mark of resident memory is reset first, and free memory returned.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    kept = work()
    after = _status("VmHWM")
    del kept
    return (after - before) / 1024


def _status(field: str) -> int:
    """A line of /proc/self/status, in KB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"this system does not report {field}")


def print_environment(options: argparse.Namespace) -> None:
    """What a reader needs to know to repeat the numbers below it."""
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {options.images} images, "
        f"batches of {options.batch}, median of {options.repeats}"
    )


def peers(*names: str) -> dict[str, object]:
    """Import peers that are no dependency of ours, from a folder of their own.

    They are installed there (without their dependencies, which are ours) the first time; a peer
    that cannot be had is left out with a message. ``APTHEORY_PEERS`` names another folder.
    """
    default = Path.home() / ".cache" / "aptheory" / "peers"
    folder = Path(os.environ.get("APTHEORY_PEERS", default))
    sys.path.append(str(folder))
    found: dict[str, object] = {}
    for name in names:
        try:
            found[name] = importlib.import_module(name)
            continue
        except ImportError:
            pass
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--target", str(folder), name], capture_output=True, text=True
        )
        importlib.invalidate_caches()
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            reason = done.stderr.strip().splitlines()
            print(f"{name}: left out, it cannot be had here ({reason[-1] if reason else error})")
    return found
