"""What does AP cost beside VP and the others? (claims 19-22 and VAPT's parameter counts)

    python -m analyses.cost_tables [--out runs/cost] [--full]

Times one training step of VP, and of AP at the papers' default places, on one CPU thread with
random weights: step time, peak memory and throughput as ratios within one run, beside the
prediction (F + F_after(l) against 2F). The short form takes smaller networks of the same two
families; --full takes the papers' own, ResNet-101 and ViT-L/16.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from aptheory.cost import cost
from aptheory.explore import write_table
from aptheory.network import Network

SHORT = (("cnn", "resnet50", "layer4.0"), ("vit", "vit_small_patch16_224", "blocks.2"))
FULL = (("cnn", "resnet101", "layer4.0"), ("vit", "vit_large_patch16_224", "blocks.2"))


def place(net: Network, name: str) -> int:
    """The index of the place that enters the module called ``name``."""
    return next(layer.index for layer in net.layers if layer.name == name)


def ap_against_vp(networks: tuple[tuple[str, str, str], ...], *, repeats: int) -> pd.DataFrame:
    """One row a network: AP's step as a share of VP's, predicted and measured."""
    rows = []
    for kind, name, entering in networks:
        net = ap.load(name, weights=None)
        methods = [ap.VisualPrompt(), ap.ActivationPrompt(layer=place(net, entering))]
        table = cost(net, methods, batch_size=8, repeats=repeats, clock="cpu")
        vp = table[table["method"] == "vp"].iloc[0]
        plain = table[(table["method"] == "ap") & ~table["kept"]].iloc[0]
        kept = table[(table["method"] == "ap") & table["kept"]].iloc[0]
        rows.append(
            {
                "kind": kind,
                "network": name,
                "layer": entering,
                "time_ratio": plain["step_ms"] / vp["step_ms"],
                "predicted_ratio": plain["predicted_ratio"],
                "memory_ratio": plain["peak_memory_mb"] / vp["peak_memory_mb"],
                "kept_time_ratio": kept["step_ms"] / vp["step_ms"],
                "kept_memory_ratio": kept["peak_memory_mb"] / vp["peak_memory_mb"],
            }
        )
    return pd.DataFrame(rows)


def throughput(*, repeats: int) -> pd.DataFrame:
    """Inference throughput of adapted ViTs as a share of the frozen network's."""
    net = ap.load("vit_small_patch16_224", weights=None)
    methods = {
        "ap": ap.ActivationPrompt(layer=3),
        "vpt (10 tokens)": ap.VPT(tokens=10, deep=True),
        "vpt (100 tokens)": ap.VPT(tokens=100, deep=True),
        "vapt (10 tokens)": ap.VAPT(tokens=10),
    }
    table = cost(
        net, list(methods.values()), kept=(False,), batch_size=8, repeats=repeats, clock="cpu"
    )
    return table.assign(method=list(methods))[["method", "throughput_ratio"]]


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


def main(out: Path = Path("runs/cost"), *, full: bool = False) -> None:
    """Write ap_against_vp.csv, throughput.csv and parameters.csv."""
    torch.set_num_threads(1)
    write_table(parameters(), out / "parameters.csv")
    write_table(throughput(repeats=7), out / "throughput.csv")
    write_table(
        ap_against_vp(FULL if full else SHORT, repeats=3 if full else 7), out / "ap_against_vp.csv"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/cost"))
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    main(chosen.out, full=chosen.full)
    for path in sorted(chosen.out.glob("*.csv")):
        print(pd.read_csv(path).to_string(index=False), end="\n\n")
