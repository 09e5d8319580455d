"""AP and normalisation: what is exactly equal, and what is not, on real networks. (claims 1-6)

    python -m analyses.equivalence [--out runs/equivalence]

Every statement of `aptheory.theory.equivalence`, outputs and gradients, in float64 on the embedded
networks and on two of timm's with random weights. Errors are relative to the largest entry.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from analyses.equivalence_table import measure
from aptheory.exploration import write_table

NETWORKS = (
    ("aptheory_vit_mini", "pretrained"),
    ("aptheory_resnet_mini", "pretrained"),
    ("vit_tiny_patch16_224", None),
    ("resnet18", None),
)


def main(out: Path = Path("runs/equivalence")) -> pd.DataFrame:
    """Measure all networks into one table."""
    tables = []
    for name, weights in NETWORKS:
        torch.manual_seed(0)
        net = ap.load(name, weights=weights)
        images = torch.randn(4, *net.input_shape)
        tables.append(measure(net, images))
    table = pd.concat(tables, ignore_index=True)
    write_table(table, out / "equivalence.csv")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/equivalence"))
    print(main(parser.parse_args().out).to_string(index=False))
