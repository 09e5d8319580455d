"""How the cost of a layer sweep grows with images, places, runs at once (K) and resolution.

    python benchmarks/cost_growth.py [--quick] [--out growth.csv]

One thing changes at a time; CPU seconds of `fit_many` from kept activations, the keeping included.
The exponent is the slope of log seconds against log size: 1 is linear growth, below 1 a fixed
cost is shared, above 1 something is worse than linear (attention in the resolution).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch

import aptheory as ap
from aptheory.training.fit import Recipe, fit_many, grid, kept_for


def seconds(net: ap.Network, task: ap.Task, places: list[int], runs: int, recipe: Recipe) -> float:
    """CPU seconds of a sweep over ``places`` with ``runs`` seeds."""
    start = time.process_time()
    kept = kept_for(net, task, recipe)
    for place in places:
        method = ap.ActivationPrompt(layer=place)
        fit_many(method, net, task, runs=grid(seeds=range(runs)), recipe=recipe, kept=kept)
    kept.close()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = 64 if options.quick else 256
    recipe = Recipe(epochs=2 if options.quick else 4, batch_size=16)
    rows = []

    def add(network: str, what: str, size: float, spent: float) -> None:
        rows.append({"network": network, "grows": what, "size": size, "cpu_seconds": spent})
        print(f"{network:22} {what:12} {size:6g}  {spent:8.2f} s", flush=True)

    for name in ("aptheory_vit_mini", "aptheory_resnet_mini"):
        torch.manual_seed(0)
        net = ap.load(name, weights=None)
        task = ap.task("digits")

        def some(count: int, task: ap.Task = task) -> ap.Task:
            return task.subset(train=count, val=count // 4, test=count // 4)

        middle = net.block_layers[len(net.block_layers) // 2]
        seconds(net, some(16), [middle], 1, recipe.but(epochs=1))  # warm up
        for factor in (1, 2, 4):
            count = images * factor
            add(name, "images", count, seconds(net, some(count), [middle], 1, recipe))
        places = list(net.block_layers)
        for count in (1, 2, 4, len(places)):
            chosen = places[len(places) - count :]
            add(name, "places", count, seconds(net, some(images), chosen, 1, recipe))
        for count in (1, 2, 4, 8):
            stacked = recipe.but(together=count)
            spent = seconds(net, some(images), [middle], count, stacked)
            add(name, "runs", count, spent)
        for side in (32, 48, 64):
            torch.manual_seed(0)
            large = ap.load(name, weights=None, input_shape=(3, side, side))
            add(name, "resolution", side, seconds(large, some(images // 2), [middle], 1, recipe))
    table = pd.DataFrame(rows)
    for (network, what), part in table.groupby(["network", "grows"], sort=False):
        slope = np.polyfit(np.log(part["size"]), np.log(part["cpu_seconds"]), 1)[0]
        print(f"{network} exponent in {what}: {slope:.2f}")
    if options.out:
        table.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
