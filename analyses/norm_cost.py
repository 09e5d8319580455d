"""What a prompt and the norms cost at each place: parameters, time and memory of a training step.

    python -m analyses.norm_cost --assets DIR [--out results/evidence] [--network NAME ...]

The networks and places of the campaign's question `norm`: the full and the channel prompt, β, γ and
β behind the place, all β, all norms and the linear probe, one training step of each on one CPU
thread, from images and from kept activations, as shares of a step of visual prompting that ran in
turn with it (`aptheory.training.cost`). Nothing is trained. A row a method and place goes to
OUT/norm_cost.csv; networks that stand there are left as they are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from analyses.campaign_plan import NETWORKS, load_network
from analyses.campaign_questions import places_with_norms
from aptheory.exploration import write_table
from aptheory.networks.network import Network
from aptheory.training.cost import cost

NORMED = ("resnet32", "resnet56", "efficientnet_lite0", "cifar_vit128", "cifar_vit_postnorm")
NORMED += ("vit_tiny",)
"""The networks that the campaign's journal holds this question for."""
BATCH, CLASSES, REPEATS = 16, 10, 9
COLUMNS = (
    *("network", "kind", "method", "at", "depth", "kept", "parameters_without_head"),
    *("predicted_ratio", "measured_ratio", "measured_ratio_low", "measured_ratio_high"),
    *("memory_ratio", "step_ms"),
)


def methods_of(net: Network) -> list[tuple[str, int, ap.Method]]:
    """(name, place, method) of everything that is compared; the whole ones stand at place 0."""
    found: list[tuple[str, int, ap.Method]] = [("visual_prompt", 0, ap.VisualPrompt())]
    for place, span in places_with_norms(net):
        found += [
            ("ap", place, ap.ActivationPrompt(layer=place)),
            ("ap_channel", place, ap.ActivationPrompt(layer=place, shape="channel")),
            ("beta", place, ap.NormTuning(layer=span, scale=False)),
            ("gamma_beta", place, ap.NormTuning(layer=span)),
        ]
    return [
        *found,
        ("all_beta", 0, ap.NormTuning(scale=False)),
        ("all_norms", 0, ap.NormTuning()),
        ("linear_probe", 0, ap.LinearProbe()),
    ]


def measured(name: str, net: Network, *, repeats: int = REPEATS) -> pd.DataFrame:
    """A row a method, place and setting of one network; its columns are `COLUMNS`."""
    compared = methods_of(net)
    table = cost(
        net,
        [method for _, _, method in compared],
        classes=CLASSES,
        batch_size=BATCH,
        repeats=repeats,
        clock="cpu",
    )
    # A method's rows follow each other, that from images first.
    number = (~table["kept"]).cumsum() - 1
    table["method"] = [compared[index][0] for index in number]
    table["at"] = [compared[index][1] for index in number]
    table["depth"] = table["at"] / (len(net.layers) - 1)
    whole = table.loc[table["method"] == "visual_prompt", "peak_memory_mb"].item()
    table["memory_ratio"] = table["peak_memory_mb"] / whole
    table = table.assign(network=name, kind=NETWORKS[name].kind)
    return table[list(COLUMNS)].round(4)


def main() -> None:
    """Measure the networks that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--network", action="append", choices=NORMED)
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    torch.set_num_threads(1)
    path = asked.out / "norm_cost.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    for name in asked.network or NORMED:
        if name in set(table["network"]):
            continue
        rows = measured(name, load_network(name, Path(asked.assets)))
        table = pd.concat([table, rows]) if len(table) else rows
        write_table(table, path)
        print(rows.to_string(index=False, float_format="{:.3g}".format), flush=True)


if __name__ == "__main__":
    main()
