"""Peak memory of a profile must not grow with the number of images.

    python benchmarks/memory.py                       # 256 against 4,096 images of 32 pixels
    python benchmarks/memory.py --networks vit_tiny_patch16_224 --most 1024

Every streaming measure at once, batches made as they are asked for, so that the images themselves
take no room. The last line is the peak at the larger number over that at the smaller: 1 is flat.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from measuring import arguments, network, peak_memory, pictures, print_environment
from torch import Tensor

from aptheory.networks.attention import attention_layers
from aptheory.profiling.profile import profile

MEASURES = (
    "cka",
    "cka_rbf",
    "effective_rank",
    "participation_ratio",
    "token_effective_rank",
    "globality",
    "relative_log_amplitude",
)
ATTENTION = ("attention_distance", "attention_entropy", "prefix_share")


def made(net, count: int, batch: int) -> Iterator[Tensor]:
    """Batches of images that exist one at a time."""
    for number, start in enumerate(range(0, count, batch)):
        yield pictures(min(batch, count - start), net, seed=number)


def measure(name: str, options) -> str:
    """The peaks of one network; returns its last line."""
    net = network(name)
    measures = MEASURES + (ATTENTION if attention_layers(net) else ())

    def run(count: int) -> object:
        images = made(net, count, options.batch)
        return profile(net, images, measures=measures, batch_size=options.batch)

    peaks = {}
    for count in (options.images, options.images, options.most):  # the first round warms up
        peaks[count] = peak_memory(lambda count=count: run(count))
    for count, peak in peaks.items():
        print(f"{name:22} {count:5} images: {peak:7.1f} MB above the network")
    return f"memory {name} ratio: {peaks[options.most] / peaks[options.images]:.3f}"


def main() -> None:
    if "--networks" not in sys.argv:
        sys.argv += ["--networks", "aptheory_vit_mini", "aptheory_resnet_mini"]
    options = arguments(__doc__ or "", most=4096)
    print_environment(options)
    print(*[measure(name, options) for name in options.networks], sep="\n")


if __name__ == "__main__":
    main()
