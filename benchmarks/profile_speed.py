"""A profile's cost over the bare forward pass: attention distance, CKA and rank in one pass.

    python benchmarks/profile_speed.py                                   # ViT-Tiny and ResNet-18
    python benchmarks/profile_speed.py --device cuda --networks vit_large_patch16_224 \\
        --half --images 2048 --batch 256                                 # on a GPU, bfloat16

Goal: at most 1.5 in all on CPU; on an H200 at most 1.4 (1.25 to aim for). Networks without
attention are profiled for CKA and rank. On a GPU the clock is wall time around a synchronisation.
With ``--bound`` the operations and bytes that the measures add are printed beside the forward's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from measuring import arguments, cpu_seconds, forward, network, pictures, print_environment

from aptheory.networks.attention import attention_layers
from aptheory.profiling.profile import profile


def bound(net, batch: int, bytes_each: int) -> None:
    """Operations (multiply and add, 2 each) and bytes an image that the measures cannot avoid."""
    sites = attention_layers(net)
    logits = sum(2 * s.heads * s.keys**2 * (net.layers[s.layer].channels // s.heads) for s in sites)
    read = sum(2 * s.heads * s.keys**2 for s in sites)  # distance and mass: two sums of the map
    maps = sum(s.heads * s.keys**2 for s in sites)
    width = sum(torch.Size(layer.shape).numel() for layer in net.layers)
    gram = 2 * batch * width
    rank = sum(2 * layer.channels**2 for layer in net.layers)
    print(
        f"  an image: attention maps {logits / 1e9:.2f} GFLOP and {2 * read / 1e9:.3f} GFLOP of "
        f"sums over {4 * maps / 1e6:.0f} MB; Gram matrices {gram / 1e9:.2f} GFLOP over "
        f"{bytes_each * width / 1e6:.0f} MB; second moments {rank / 1e9:.3f} GFLOP"
    )


def clock(work: Callable[[], object], device: str) -> float:
    """CPU seconds, or wall seconds to the end of the GPU's work."""
    if not device.startswith("cuda"):
        return cpu_seconds(work)
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, options) -> str:
    """The costs of one network; returns its last line."""
    net = network(name)
    kind = torch.bfloat16 if options.half else torch.float32
    net.module.to(options.device, kind)
    images = pictures(options.images, net).to(options.device, kind)
    sets: dict[str, tuple[str, ...]] = {"CKA": ("cka",), "rank": ("effective_rank",)}
    if attention_layers(net):
        sets["attention distance"] = ("attention_distance",)
    sets["together"] = tuple(name for measures in sets.values() for name in measures)
    if options.bound:
        bound(net, options.batch, images.element_size())

    def run(measures: tuple[str, ...]) -> object:
        if not measures:
            return forward(net, images, options.batch)
        return profile(net, images, measures=measures, batch_size=options.batch)

    seconds: dict[str, list[float]] = {label: [] for label in ("forward", *sets)}
    for repeat in range(options.repeats + 1):
        for label, spent in seconds.items():
            cost = clock(lambda label=label: run(sets.get(label, ())), options.device)
            if repeat:  # the first round warms up
                spent.append(cost)
    base = statistics.median(seconds["forward"])
    print(f"{name}: forward {base:.2f} s")
    for label in sets:
        print(f"  {label:20} {statistics.median(seconds[label]) / base:.3f}")
    return f"profile {name} ratio: {statistics.median(seconds['together']) / base:.3f}"


def main() -> None:
    options = arguments(__doc__ or "", device="cpu", half=False, bound=False)
    print_environment(options)
    print(*[measure(name, options) for name in options.networks], sep="\n")


if __name__ == "__main__":
    main()
