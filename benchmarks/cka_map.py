"""The CKA map over all layers: cost over the bare forward pass, ours and the peers', same images.

    python benchmarks/cka_map.py

Features are whole activations (all positions). Goals: unbiased and streaming at most 1.15 times the
forward in all; the exact one over all images at once, biased and unbiased together, at most 1.3.
The peers (torch_cka, ckatorch) are installed into a folder of their own where they can be had; they
watch the outputs of the same blocks.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import torch
from measuring import (
    arguments,
    cpu_seconds,
    forward,
    network,
    peers,
    pictures,
    print_environment,
    ratio,
)
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from aptheory.profiling.profile import profile
from aptheory.profiling.similarity import similarity


def streaming(net, images: Tensor, batch: int) -> Tensor:
    """Ours: one pass, the unbiased HSIC terms of all pairs summed over batches."""
    table = profile(net, images, measures=["cka"], batch_size=batch)
    return torch.tensor(table.pivot(index="layer", columns="other_layer", values="value").values)


def exact(net, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Ours: the exact map over all images, unbiased and biased from the same Gram matrices."""
    table = similarity(net, images=images, exact=True, batch_size=batch)
    maps = [
        table[table["measure"] == measure].pivot(
            index="layer", columns="other_layer", values="value"
        )
        for measure in ("cka", "cka_biased")
    ]
    return torch.tensor(maps[0].values), torch.tensor(maps[1].values)


def reference(net, images: Tensor) -> Tensor:
    """An independent map: Song et al.'s three traces in float64, pair by pair, on kept features."""
    with torch.inference_mode():
        kept = []
        for layer, z in net.walk(images, stops=net.layers):
            kept.append((z[:, layer.prefix :] if layer.layout == "tokens" else z).flatten(1))
    grams = [(k.double() - k.double().mean(0)) for k in kept]
    grams = [(k @ k.T).fill_diagonal_(0) for k in grams]
    n = len(images)

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        middle = k.sum() * m.sum() / ((n - 1) * (n - 2))
        return (k * m).sum() + middle - 2 / (n - 2) * (k.sum(0) * m.sum(0)).sum()

    table = torch.stack([torch.stack([hsic(k, m) for m in grams]) for k in grams])
    root = table.diagonal().sqrt()
    return table / root[:, None] / root[None, :]


def peer_maps(net, images: Tensor, batch: int) -> None:
    """Run the peers on the same blocks and images; print their cost and what they say."""
    found = peers("torch_cka", "ckatorch")
    names = [net.layers[index].name for index in net.block_layers]
    loader = DataLoader(TensorDataset(images), batch_size=batch, shuffle=False)
    base = cpu_seconds(lambda: forward(net, images, batch))

    def torch_cka() -> Tensor:
        tool = found["torch_cka"].CKA(  # type: ignore[attr-defined]
            net.share().module, net.share().module, model1_layers=names, model2_layers=names
        )
        with torch.no_grad():
            tool.compare(loader)
        return tool.hsic_matrix

    def ckatorch() -> Tensor:
        tool = found["ckatorch"].CKA(  # type: ignore[attr-defined]
            net.share().module, net.share().module, layers=names
        )
        return tool(loader, epochs=1)

    for name, run in (("torch_cka", torch_cka), ("ckatorch", ckatorch)):
        if name not in found:
            continue
        answer: list[Tensor] = []
        silent = contextlib.redirect_stderr(io.StringIO())
        try:
            with warnings.catch_warnings(), silent:
                warnings.simplefilter("ignore")
                seconds = cpu_seconds(lambda r=run, a=answer: a.append(r()))
        except Exception as error:
            print(f"  {name:18} fails: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
            continue
        found_map = answer[0]
        print(
            f"  {name:18} {seconds / base:6.2f}   first and last block "
            f"{float(found_map[0, -1]):7.4f}; first with itself {float(found_map[0, 0]):.4f}"
        )


def measure(name: str, options) -> list[str]:
    """Ours and the peers' for one network; returns its last lines."""
    net = network(name)
    images = pictures(options.images, net)

    def base() -> None:
        forward(net, images, options.batch)

    print(f"{name}: {len(net.layers)} places; cost over the forward, CKA of block outputs")
    stream = ratio(base, lambda: streaming(net, images, options.batch), repeats=options.repeats)[0]
    whole = ratio(base, lambda: exact(net, images, options.batch), repeats=options.repeats)[0]
    first, last = net.block_layers[0] + 1, net.block_layers[-1] + 1
    unbiased, biased = exact(net, images, options.batch)
    slow = reference(net, images)
    for label, times, answer in (
        ("ours, streaming", stream, streaming(net, images, options.batch)),
        ("ours, exact", whole, unbiased),
        ("  the same, biased", whole, biased),
        ("float64 by traces", float("nan"), slow),
    ):
        print(
            f"  {label:18} {times:6.2f}   first and last block {float(answer[first, last]):7.4f}; "
            f"first with itself {float(answer[first, first]):.4f}"
        )
    apart = float((unbiased - slow).abs().max())
    print(f"  largest difference, exact from float64: {apart:.1e}")
    peer_maps(net, images, options.batch)
    return [
        f"cka_map_streaming {name} ratio: {stream:.3f}",
        f"cka_map_exact {name} ratio: {whole:.3f}",
    ]


def main() -> None:
    options = arguments(__doc__ or "")
    print_environment(options)
    lines = [line for name in options.networks for line in measure(name, options)]
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
