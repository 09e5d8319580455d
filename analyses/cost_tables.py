"""What does AP cost beside VP and the others? (claims 19-22 and VAPT's parameter counts)

    python -m analyses.cost_tables [--out runs/cost] [--full]

One training step and one inference of every method on one CPU thread with random weights, beside
the prediction (F + F_after(l) against 2F), AP at the papers' default place: ratios within one run,
intervals over turns. The short form takes smaller networks of the same two families; --full times
VP and AP on the papers' own, ResNet-101 and ViT-L/16 (seven GB of memory). Minutes each.
Writes steps.csv (or steps_full.csv) and parameters.csv.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from aptheory.exploration import write_table
from aptheory.methods import parse
from aptheory.networks.network import Network
from aptheory.training.cost import cost

SHORT = (("cnn", "resnet50", "layer4.0"), ("vit", "vit_small_patch16_224", "blocks.2"))
FULL = (("cnn", "resnet101", "layer4.0"), ("vit", "vit_large_patch16_224", "blocks.2"))
OTHERS = {
    "cnn": ("norm_tuning", "linear_probe", "full"),
    "vit": (
        *("norm_tuning", "vpt:tokens=10", "vpt:tokens=100", "vapt:tokens=10", "lora"),
        *("linear_probe", "full"),
    ),
}
KEPT = ("kind", "network", "method", "layer_name", "kept", "parameters_without_head")
MEASURED = (
    "predicted_ratio",
    *("measured_ratio", "measured_ratio_low", "measured_ratio_high"),
    "memory_ratio",
    *("throughput_ratio", "throughput_ratio_low", "throughput_ratio_high"),
)


def place(net: Network, name: str) -> int:
    """The index of the place that enters the module called ``name``."""
    return next(layer.index for layer in net.layers if layer.name == name)


def steps(
    networks: tuple[tuple[str, str, str], ...],
    *,
    others: dict[str, tuple[str, ...]],
    batch: int,
    repeats: int,
) -> pd.DataFrame:
    """One row a network, method and setting: ratios to VP's step and to the frozen forward."""
    tables = []
    for kind, name, entering in networks:
        torch.manual_seed(0)
        net = ap.load(name, weights=None)
        texts = ("vp", f"ap:layer={place(net, entering)}", *others.get(kind, ()))
        methods = {text: parse(text) for text in texts}
        table = cost(
            net, list(methods.values()), batch_size=batch, repeats=repeats, clock="cpu", classes=37
        )
        table["kind"] = kind
        table["method"] = _labels(table, texts)
        vp = table.loc[table["method"] == "vp", "peak_memory_mb"].item()
        table["memory_ratio"] = table["peak_memory_mb"] / vp
        tables.append(table[[*KEPT, *MEASURED]])
    return pd.concat(tables, ignore_index=True)


def _labels(table: pd.DataFrame, texts: tuple[str, ...]) -> list[str]:
    """The text of each row's method: a method's rows follow each other, plain before kept."""
    number, labels = -1, []
    for kept in table["kept"]:
        number += not kept
        labels.append(texts[number].replace(":tokens=", " ").partition(":")[0])
    return labels


def parameters() -> pd.DataFrame:
    """Tunable parameters without the head, at 224 × 224; nothing is trained."""
    resnet = ap.load("resnet101", weights=None)
    vit = ap.load("vit_base_patch16_224", weights=None)
    counted = {
        "AP at ResNet-101 layer4's input": (resnet, ap.ActivationPrompt(place(resnet, "layer4.0"))),
        "NORM-TUNE of ResNet-101": (resnet, ap.NormTuning()),
        "VP, 30-pixel frame": (resnet, ap.VisualPrompt(frame=30)),
        "AP at a ViT-B/16 block": (vit, ap.ActivationPrompt(layer=3)),
        "NORM-TUNE of ViT-B/16": (vit, ap.NormTuning()),
        "VPT-deep on ViT-B/16, 10 tokens": (vit, ap.VPT(tokens=10, deep=True)),
        "VPT-deep on ViT-B/16, 50 tokens": (vit, ap.VPT(tokens=50, deep=True)),
        "VAPT on ViT-B/16, 10 tokens": (vit, ap.VAPT(tokens=10)),
        "VAPT on ViT-B/16, 50 tokens": (vit, ap.VAPT(tokens=50)),
    }
    rows = [
        (what, method.attach(net, classes=2).count(head=False))
        for what, (net, method) in counted.items()
    ]
    return pd.DataFrame(rows, columns=["what", "parameters"])


def main(out: Path = Path("runs/cost"), *, full: bool = False) -> pd.DataFrame:
    """Write the tables; returns that of the steps."""
    torch.set_num_threads(1)
    write_table(parameters(), out / "parameters.csv")
    if full:
        table = steps(FULL, others={}, batch=2, repeats=7)
    else:
        table = steps(SHORT, others=OTHERS, batch=4, repeats=7)
    write_table(table, out / ("steps_full.csv" if full else "steps.csv"))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/cost"))
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    print(main(chosen.out, full=chosen.full).to_string(index=False, float_format="{:.3g}".format))
