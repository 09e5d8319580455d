"""One activation prompt at the papers' default layer against visual prompting: time and memory.

    python benchmarks/ap_against_vp.py --quick        # ResNet-18 and ViT-Tiny at 112 pixels
    python benchmarks/ap_against_vp.py                # ResNet-101 and ViT-L/16 at 224 pixels

Places: the input of the third-to-last residual block for a CNN (ResNet-101: `layer4.0`), the third
block for a ViT [both recalled from the AP paper]. Two settings: the papers' (forward everything,
backward to the prompt) and ours (from kept activations); every row has its prediction beside it.
Weights are random, which changes no cost. The last lines are verdicts on the efficiency claims.
"""

from __future__ import annotations

import argparse
import math

import pandas as pd
import torch

import aptheory as ap
from aptheory.training.cost import cost

FULL = (("resnet101", "layer4.0", None), ("vit_large_patch16_224", 2, None))
QUICK = (
    ("resnet18", "layer4.0", (3, 112, 112)),
    ("vit_tiny_patch16_224", 2, (3, 112, 112)),
)
SHOWN = [
    "method",
    "layer_name",
    "kept",
    "parameters_without_head",
    "step_gflop",
    "step_gflop_counted",
    "predicted_ratio",
    "measured_ratio",
    "step_ms",
    "peak_memory_mb",
    "throughput_ratio",
    "note",
]


def measure(
    name: str, where: str | int, shape: tuple | None, options: argparse.Namespace
) -> pd.DataFrame:
    """The cost table of one network, printed."""
    torch.manual_seed(0)
    net = ap.load(name, weights=None, input_shape=shape)
    if isinstance(where, int):
        place = net.block_layers[where]
    else:
        place = next(layer.index for layer in net.layers if layer.name == where)
    methods: list = [ap.VisualPrompt(), ap.ActivationPrompt(layer=place), ap.LinearProbe()]
    methods.append(ap.NormTuning())
    if net.layers[place].layout == "tokens":
        methods.append(ap.VPT(tokens=50))
    table = cost(
        net,
        methods,
        classes=37,
        batch_size=options.batch,
        images=options.images,
        repeats=options.repeats,
        clock=options.clock,
        precision=options.precision,
    )
    print(f"\n{name} {net.input_shape}, batch {options.batch}, {options.precision}")
    print(table[SHOWN].to_string(index=False, float_format=lambda v: f"{v:.3g}"), flush=True)
    return table


def verdicts(name: str, table: pd.DataFrame, epochs: int) -> None:
    """What the table says on the papers' claims 19 to 22."""

    def row(method: str, kept: bool = False) -> pd.Series:
        return table[(table["method"] == method) & (table["kept"] == kept)].iloc[0]

    vp, prompt, kept = row("vp"), row("ap"), row("ap", True)
    memory = prompt["peak_memory_mb"] / vp["peak_memory_mb"]
    whole = prompt["measured_ratio"] / vp["measured_ratio"]
    first = (kept["first_epoch_seconds"] - kept["epoch_seconds"]) / vp["epoch_seconds"]
    ours = kept["measured_ratio"] / vp["measured_ratio"]
    claim = 19 if "resnet" in name else 20
    paper = {"resnet101": "time 0.57, memory 0.52", "vit_large_patch16_224": "time about 0.96"}
    print(
        f"{name} claim {claim} (papers' setting; expected {paper.get(name, 'no figure')}): time "
        f"{whole:.2f} of VP (predicted {prompt['predicted_ratio']:.2f}), memory {memory:.2f}"
    )
    print(
        f"{name} from kept activations: {ours:.2f} of VP a step (predicted "
        f"{kept['predicted_ratio']:.2f}), {ours + first / epochs:.2f} over {epochs} epochs with "
        f"the keeping, memory {kept['peak_memory_mb'] / vp['peak_memory_mb']:.2f}"
    )
    others = [f"AP {prompt['throughput_ratio']:.2f}"]
    if (table["method"] == "vpt").any():
        others.append(f"VPT with 50 tokens {row('vpt')['throughput_ratio']:.2f}")
    print(f"{name} claim 21, throughput of the frozen network: {', '.join(others)}")
    print(
        f"{name} claim 22, parameters without the head: AP {prompt['parameters_without_head']:,}, "
        f"VP {vp['parameters_without_head']:,} (the paper: about 0.2 M)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", help="write the whole table as CSV")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tables = []
    for name, where, shape in QUICK if options.quick else FULL:
        table = measure(name, where, shape, options)
        verdicts(name, table, options.epochs)
        tables.append(table)
    if options.out:
        pd.concat(tables).to_csv(options.out, index=False)
    worst = max(
        abs(math.log(row["measured_ratio"] / row["predicted_ratio"]))
        for table in tables
        for _, row in table.iterrows()
        if row["method"] in ("vp", "ap")
    )
    print(f"largest factor between measured and predicted ratio, VP and AP: {math.exp(worst):.2f}")


if __name__ == "__main__":
    main()
