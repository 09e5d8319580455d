"""Extract every layer: cost over the bare forward pass, and memory over the result.

    python benchmarks/extract.py

Goal: at most 1.05 times the forward, and no more memory than the result and one batch. Beside it,
the usual way: hooks that append each batch's output, concatenated at the end.
"""

from __future__ import annotations

import torch
from measuring import (
    arguments,
    forward,
    network,
    peak_memory,
    pictures,
    print_environment,
    ratio,
)
from torch import Tensor

from aptheory.profiling.profile import extract


def with_hooks(net, images: Tensor, batch: int) -> list[Tensor]:
    """Collect and concatenate, as most tools do."""
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str):
        return lambda module, inputs, output: kept.setdefault(name, []).append(output)

    names = [net.layers[index].name for index in net.block_layers]
    handles = [net.module.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    try:
        forward(net, images, batch)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(parts) for parts in kept.values()]


def into_place(net, images: Tensor, batch: int) -> list[Tensor]:
    """Ours: every block's input and the classifier's, written into place."""
    return list(extract(net, images, layers="blocks", batch_size=batch).values())


def measure(name: str, options) -> str:
    """Both ways for one network; returns its last line."""
    net = network(name)
    images = pictures(options.images, net)

    def base() -> None:
        forward(net, images, options.batch)

    plain = peak_memory(base)
    times = 0.0
    for label, way in (("hooks and cat", with_hooks), ("into place", into_place)):
        sizes: list[float] = []

        def work(way=way, sizes=sizes) -> list[Tensor]:
            result = way(net, images, options.batch)
            sizes.append(sum(each.numel() * each.element_size() for each in result) / 2**20)
            return result

        times, first, second = ratio(base, work, repeats=options.repeats)
        print(
            f"{name:22} {label:14} {second:6.2f} s over {first:6.2f} s forward = {times:.3f}; "
            f"peak {peak_memory(work):.0f} MB for a result of {sizes[0]:.0f} MB "
            f"(the forward's own: {plain:.0f} MB)"
        )
    return f"extract {name} ratio: {times:.3f}"


def main() -> None:
    options = arguments(__doc__ or "")
    print_environment(options)
    print(*[measure(name, options) for name in options.networks], sep="\n")


if __name__ == "__main__":
    main()
