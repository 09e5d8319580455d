"""Does decoding hold up the network? Images a second, decoded four ways.

    python benchmarks/decoding.py [folder or zip of images] [--side 224] [--limit 600]

Without a folder, photograph-like JPEG files of 500×375 pixels are made first. Compared are: one
picture after the other (what a plain loop over Pillow does), our threads, ``decode once`` (its
first pass, and every later pass from the memory-mapped file). Each is the median of three passes.

Then a prompt at place 0 trains on them for three passes, on pictures in memory and on the files,
decoded one batch after the other or ahead in threads, taken in turn. The last line is the time of
decoding ahead to that of training alone.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import aptheory as ap
from aptheory import tasks
from aptheory.networks.network import Network
from aptheory.tasks.loading import loader
from aptheory.tasks.readers.files import FileSplit
from aptheory.tasks.split import Split
from aptheory.tasks.views import ArraySplit

BATCH = 64


def make_photographs(root: Path, count: int) -> Path:
    """Two classes of smooth colour fields with grain, as JPEG of 500×375, quality 90."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, share in (("train", 0.8), ("test", 0.2)):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(max(5, int(count * share / 2))):
                coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                picture = np.asarray(Image.fromarray(coarse).resize((500, 375)), dtype=np.int16)
                grain = generator.integers(-12, 13, picture.shape, dtype=np.int16)
                pixels = (picture + grain).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=90)
    return root


def passes(split: Split, size: tuple[int, int], repeats: int = 3) -> float:
    """Images a second, the median over passes in batches of 64."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        for first in range(0, len(split), BATCH):
            split.images(range(first, min(first + BATCH, len(split))), size)
        rates.append(len(split) / (time.perf_counter() - start))
    return statistics.median(rates)


def timed(work: Callable[[], Split]) -> tuple[Split, float]:
    """What ``work`` gives, and the images a second that it took."""
    start = time.perf_counter()
    split = work()
    return split, len(split) / (time.perf_counter() - start)


def training_seconds(
    net: Network, split: Split, *, ahead: int, repeats: int = 3
) -> Iterator[float]:
    """Seconds of each pass of a prompt's training steps over a split, batches of 64."""
    adapted = ap.ActivationPrompt(layer=0).attach(net, classes=2)
    optimizer = torch.optim.SGD(adapted.trainable, lr=0.01)
    for _ in range(repeats):
        start = time.perf_counter()
        for x, y in loader(split, net, BATCH, ahead=ahead):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(adapted(x), y).backward()
            optimizer.step()
        yield time.perf_counter() - start


def print_training(files: Split, in_memory: Split, name: str) -> None:
    """Training from memory, from files one after the other and from files ahead, side by side."""
    net = ap.load(name, weights=None)
    ways = (("from memory", in_memory, 0), ("then decoded", files, 0), ("decoded ahead", files, 2))
    passes_ = zip(*(training_seconds(net, split, ahead=n) for _, split, n in ways), strict=True)
    alone, then, ahead = (statistics.median(seconds) for seconds in zip(*passes_, strict=True))
    count = len(files)
    print(f"{name}, a prompt at place 0, {torch.get_num_threads()} threads, images a second:")
    print(f"  from memory               {count / alone:9.1f}")
    print(f"  files, one by one         {count / then:9.1f}")
    print(f"  files, ahead in threads   {count / ahead:9.1f}")
    print(f"time to training alone: one by one {then / alone:.2f}, ahead {ahead / alone:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="folder or zip of images (made if not given)")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--limit", type=int, default=600, help="images at most")
    parser.add_argument("--network", default="vit_tiny_patch16_224", help="that trains beside it")
    parser.add_argument("--trained", type=int, default=192, help="images that it trains on")
    options = parser.parse_args()
    size = (options.side, options.side)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or make_photographs(
            Path(scratch) / "made", round(options.limit / 0.64)
        )
        train = ap.task(f"folder:{folder}").train
        assert isinstance(train, FileSplit)
        count = min(options.limit, len(train))
        keys, labels = train.keys[:count], train.labels[:count]
        plain = passes(FileSplit(train.store, keys, labels, workers=1), size)
        threads = FileSplit(train.store, keys, labels)
        threaded = passes(threads, size)
        cached, first = timed(
            lambda: tasks.decoded(threads, size, folder=Path(scratch) / "kept", progress=False)
        )
        later = passes(cached, size)
        same = np.array_equal(cached.images(range(8), size), threads.images(range(8), size))
        print(f"{count} images to {options.side}x{options.side}, images a second:")
        print(f"  one after the other       {plain:9.0f}")
        print(f"  threads                   {threaded:9.0f}")
        print(f"  decode once, first pass   {first:9.0f}  (with digest and writing)")
        print(f"  decode once, later passes {later:9.0f}")
        print(f"same pictures: {same}; later passes to one after the other: {later / plain:.1f}")
        some = keys[: options.trained], labels[: options.trained]
        in_memory = ArraySplit(np.asarray(cached.pixels[: options.trained]), some[1])
        print_training(FileSplit(train.store, *some), in_memory, options.network)


if __name__ == "__main__":
    main()
