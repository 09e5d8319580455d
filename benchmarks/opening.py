"""What it takes to open a folder of very many pictures, beside merely listing its files.

    python -m benchmarks.opening [--pictures 100000] [--scratch FOLDER]

Tiny PNG files of ten classes are made first, in memory where there is such a folder. Prints the
processor time of `ap.task` and of a loop over `os.scandir` that opens each file and reads 64 bytes
(medians of three), their ratio, and the bytes that a picture holds afterwards.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import aptheory as ap

CLASSES = 10
MEMORY = Path("/dev/shm")


def make(root: Path, pictures: int) -> None:
    """Noise of 6x6 pixels, as many of each class."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = root / f"class{label}"
        folder.mkdir()
        for number in range(pictures // CLASSES):
            pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            (folder / f"{number:06}.png").write_bytes(file.getvalue())


def listed(root: Path) -> int:
    """How many files there are, the first bytes of each looked at."""
    count = 0
    for folder in os.scandir(root):
        for entry in os.scandir(folder.path):
            with open(entry.path, "rb") as file:
                file.read(64)
            count += 1
    return count


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Median processor time."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> None:
    """Make the folder, measure, and take it away again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        root = Path(scratch)
        make(root, asked.pictures)
        ap.task(f"folder:{root}")  # what is imported on the way
        ours, bare = seconds(lambda: ap.task(f"folder:{root}")), seconds(lambda: listed(root))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        task = ap.task(f"folder:{root}")
        held = (tracemalloc.get_traced_memory()[0] - before) / listed(root)
        count = len(task.train) + len(task.val) + len(task.test)
        print(f"{count} pictures: opened in {ours:.2f} s of processor time, {held:.0f} bytes each")
        print(f"listed and looked at in {bare:.2f} s: ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()
