"""The papers' efficiency tables on a GPU: every method's time, memory and throughput.

    python benchmarks/efficiency_gpu.py [--batch 128] [--precision bfloat16 ...] [--out table.csv]

ResNet-101 and ViT-L/16, bfloat16 and float32, random weights; the table is written as it grows,
and what follows goes beside it as OUT's name with _together. Then eight rates x seeds at once
against the careful loop one by one, at batch 64, for a network that leaves the GPU idle and for
one that does not, with the roofline: the share of the GPU's measured matrix throughput that a step
reaches. Without a CUDA device it says so and ends with code 0.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory.errors import InputError
from aptheory.methods import parse
from aptheory.training.cost import cost, piece_operations, predict

METHODS = (
    "ap",
    "vp",
    "norm_tuning",
    "vpt:tokens=50",
    "vapt:tokens=50",
    "lora",
    "linear_probe",
    "full",
)
SHOWN = [
    "network",
    "precision",
    "method",
    "layer_name",
    "kept",
    "parameters_without_head",
    "predicted_ratio",
    "measured_ratio",
    "step_ms",
    "epoch_seconds",
    "peak_memory_mb",
    "throughput",
    "throughput_ratio",
    "note",
]


def chosen(net: ap.Network) -> list:
    """Every method that fits the network, AP at the papers' default place."""
    names = [layer.name for layer in net.layers]
    place = names.index("layer4.0") if "layer4.0" in names else net.block_layers[2]
    found = []
    for text in METHODS:
        method = parse(f"ap:layer={place}" if text == "ap" else text)
        try:
            method.attach(net, classes=37)
        except (InputError, ImportError) as error:
            print(f"{net.name}: {text} is left out: {error}")
            continue
        found.append(method)
    return found


def tables(options: argparse.Namespace) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    for precision in options.precision:
        for name in options.networks:
            torch.manual_seed(0)
            net = ap.load(name, weights=None).cuda()
            part = cost(
                net,
                chosen(net),
                classes=37,
                batch_size=options.batch,
                images=options.images,
                repeats=10,
                precision=precision,
            )
            part.insert(1, "precision", precision)
            part.insert(0, "gpu", torch.cuda.get_device_name())
            print(part[SHOWN].to_string(index=False, float_format=lambda v: f"{v:.4g}"), flush=True)
            parts.append(part)
            if options.out:
                pd.concat(parts).to_csv(options.out, index=False)
            del net
            torch.cuda.empty_cache()
    return pd.concat(parts)


def seconds_a_step(step, repeats: int = 20) -> float:
    """Median wall seconds of a step, after three to warm up."""
    times = []
    for turn in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matrix_rate() -> float:
    """Operations a second of a large bfloat16 matrix product on this GPU."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / seconds_a_step(lambda: a @ a)


def together(name: str, runs: int, batch: int, rate: float) -> dict[str, object]:
    """``runs`` prompts as one batch from kept activations, against the careful loop run by run."""
    torch.manual_seed(0)
    net = ap.load(name, weights=None).cuda()
    place = net.block_layers[len(net.block_layers) // 2]
    method = ap.ActivationPrompt(layer=place)
    x = torch.randn(batch, *net.input_shape, device="cuda")
    y = torch.zeros(batch, dtype=torch.int64, device="cuda")
    with torch.no_grad():
        z = net.run(x, stop=place)

    def trainer(count: int, *, kept: bool, graph: bool = False):
        adapted = method.attach(net, classes=37, runs=count).cuda()
        optimizer = torch.optim.AdamW(adapted.trainable, lr=1e-3, fused=True)
        rows = z.repeat(count, *[1] * (z.dim() - 1))
        labels = y.repeat(count)

        class Rest(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.adapted = adapted

            def forward(self, given: torch.Tensor) -> torch.Tensor:
                with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                    return self.adapted.rest(given).float()

        rest = Rest()
        if graph:
            rest = torch.cuda.make_graphed_callables(rest, (rows.clone(),))

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            given = rows
            if not kept:
                with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
                    given = net.run(x, stop=place)
            F.cross_entropy(rest(given), labels).backward()
            optimizer.step()

        return step

    careful = runs * seconds_a_step(trainer(1, kept=False))
    ours = seconds_a_step(trainer(runs, kept=True))
    graphed = seconds_a_step(trainer(runs, kept=True, graph=True))
    adapted = method.attach(net, classes=37)
    operations = predict(adapted, piece_operations(net)).step_from_kept * runs * batch
    best = min(ours, graphed)
    print(
        f"{name}, {runs} runs of batch {batch} at {net.layers[place].name}: careful one by one "
        f"{1e3 * careful:.1f} ms, together {1e3 * ours:.1f} ms, as a CUDA graph "
        f"{1e3 * graphed:.1f} ms: ratio {careful / best:.2f}; "
        f"{operations / best / 1e12:.0f} of {rate / 1e12:.0f} TFLOP/s "
        f"({100 * operations / best / rate:.0f} % of the roofline)",
        flush=True,
    )
    milliseconds = {"careful_ms": careful, "together_ms": ours, "graph_ms": graphed}
    return {
        "gpu": torch.cuda.get_device_name(),
        "network": name,
        "runs": runs,
        "batch": batch,
        "layer_name": net.layers[place].name,
        **{column: round(1e3 * seconds, 1) for column, seconds in milliseconds.items()},
        "ratio": round(careful / best, 2),
        "teraflops": round(operations / best / 1e12),
        "of_roofline": round(operations / best / rate, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=3680, help="of an epoch (OxfordPets: 3680)")
    parser.add_argument("--networks", nargs="*", default=["resnet101", "vit_large_patch16_224"])
    parser.add_argument("--precision", nargs="*", default=["bfloat16", "float32"])
    parser.add_argument("--out")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing is measured.")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    tables(options)
    rate = matrix_rate()
    names = ("aptheory_vit_mini", "aptheory_resnet_mini", "vit_tiny_patch16_224", "resnet50")
    rows = pd.DataFrame([together(name, runs=8, batch=64, rate=rate) for name in names])
    if options.out:
        beside = Path(options.out)
        rows.to_csv(beside.with_stem(f"{beside.stem}_together"), index=False)


if __name__ == "__main__":
    main()
