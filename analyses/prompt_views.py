"""What does a prompt change in where the evidence lies? Maps before and after, side by side.

    python -m analyses.prompt_views [--out runs/prompt_views]

For each embedded network a linear probe ("before") and an activation prompt half way down
("after") are trained on the same images. The map of an image is Grad-CAM's (Selvaraju et al. 2017)
on the activation that enters the last block: the gradient of the true class's logit, averaged over
positions, weighs the channels; what is negative is cut off. The images are the first of each class
in the test split: nobody chose them. Writes views.csv, a row a cell:
network, image, label, kind (pixels, before, after), row, column, channel, value.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import aptheory as ap
from aptheory.exploration import write_table
from aptheory.methods import Adapted
from aptheory.networks.network import Layer
from aptheory.tasks import loader

NETWORKS = ("aptheory_vit_mini", "aptheory_resnet_mini")


def class_map(
    adapted: Adapted, x: torch.Tensor, labels: torch.Tensor, layer: Layer
) -> torch.Tensor:
    """Grad-CAM of the true class on the activation entering ``layer``: (images, rows, columns)."""
    seen: list[torch.Tensor] = []

    def watch(module: torch.nn.Module, given: tuple[torch.Tensor, ...]):
        seen.append(given[0].detach().requires_grad_())
        return (seen[-1], *given[1:])

    handle = adapted.net.module.get_submodule(layer.name).register_forward_pre_hook(watch)
    try:
        logits = adapted(x)
    finally:
        handle.remove()
    total = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(total, seen[-1])
    weights = layer.positions(gradient).mean(1, keepdim=True)
    found = (layer.positions(seen[-1]) * weights).sum(-1).clamp(min=0).detach()
    return found.reshape(-1, *(layer.grid or (1, 1)))


def views(name: str, task: ap.Task, *, images: int, epochs: int) -> pd.DataFrame:
    """The rows of one network: maps, and the test accuracy before and after."""
    net = ap.load(name)
    first = [int(np.flatnonzero(task.test.labels == label)[0]) for label in range(images)]
    x, labels = next(iter(loader(task.test, net, images, first)))
    last = net.layers[net.block_layers[-1]]
    place = net.block_layers[len(net.block_layers) // 2]
    methods = {"before": ap.LinearProbe(), "after": ap.ActivationPrompt(layer=place)}
    rows = []
    for kind, method in methods.items():
        adapted = method.attach(net, classes=len(task.classes), seed=0)
        outcome = ap.fit(adapted, task, recipe=ap.Recipe(epochs=epochs), seed=0)
        shared = {"network": name, "task": task.name, "layer": place}
        rows.append({**shared, "kind": f"accuracy {kind}", "value": outcome.test_accuracy})
        maps = class_map(adapted, x, labels, last)
        maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)
        for (image, row, column), value in np.ndenumerate(maps.numpy()):
            cell = {"image": image, "kind": kind, "row": row, "column": column, "value": value}
            rows.append({**shared, "label": task.classes[image], **cell})
    return pd.DataFrame(rows)


def pixels(task: ap.Task, *, images: int, side: int = 32) -> pd.DataFrame:
    """The images themselves, a row a value of 0 to 255."""
    first = [int(np.flatnonzero(task.test.labels == label)[0]) for label in range(images)]
    values = task.test.images(first, (side, side)).numpy()
    image, channel, row, column = np.indices(values.shape).reshape(4, -1)
    return pd.DataFrame(
        {
            "image": image,
            "kind": "pixels",
            "row": row,
            "column": column,
            "channel": channel,
            "value": values.ravel(),
        }
    )


def main(
    out: Path = Path("runs/prompt_views"), *, name: str = "objects", images: int = 4, epochs=12
) -> pd.DataFrame:
    """Both networks into one table."""
    task = ap.task(name).subset(train=300, val=100, test=400)
    tables = [views(network, task, images=images, epochs=epochs) for network in NETWORKS]
    table = pd.concat([pixels(task, images=images), *tables], ignore_index=True)
    write_table(table, out / "views.csv")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/prompt_views"))
    print(len(main(parser.parse_args().out)), "values")
