"""What a sweep over layers costs: three loops side by side in one run, on the same images.

    python benchmarks/layer_sweep.py --quick          # the two packaged networks, a few places
    python benchmarks/layer_sweep.py                  # ViT-Tiny and a ResNet-50, every place

- *usual*: a hook adds the prompt inside the full model; the frozen weights still collect
  gradients; validation and test go through the whole network.
- *careful*: no weight gradients, no graph before the prompt; validation and test as above.
- *ours*: `fit_many` from kept activations that move on from layer to layer.

All three train the same prompts with the same optimiser on the same batches for the same number
of epochs, are validated as often, and must reach the same accuracies (the lines show all three).
The first two are given their pixels and feature statistics for nothing; ours pays for both.

Arithmetic: with F the forward pass, a careful step costs F + F_after(l) and ours 2 F_after(l), so
training alone over a whole sweep cannot gain more than about 1.5 (the second number printed).
*halving* is successive halving over layers x learning rates x seeds against the careful loop run
one by one. The careful loop's cost does not depend on rate or seed, so it is measured once a layer
and multiplied; what the choice of layer costs is read off our own full sweep of the same grid.

Cost is CPU seconds, all threads together (``--clock wall`` for wall time on a quiet machine).
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aptheory as ap
from aptheory.training.fit import Recipe, fit_many, grid, kept_for
from aptheory.training.halving import halving
from aptheory.training.loop import Loop, order_generator

QUICK = (("aptheory_vit_mini", "pretrained", None), ("aptheory_resnet_mini", "pretrained", None))
PLAIN = {"head_init": "default", "scale_prompts": False}  # what the loops by hand do
FULL = (("vit_tiny_patch16_224", None, None), ("resnet50", None, (3, 112, 112)))


class Clock:
    """Seconds by label."""

    def __init__(self, kind: str) -> None:
        self.now = time.process_time if kind == "cpu" else time.perf_counter
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, label: str, work: Callable[[], object]) -> object:
        start = self.now()
        result = work()
        self.seconds[label] += self.now() - start
        return result


class Data:
    """Normalised pixels and labels of the three splits, and the clean features' statistics."""

    def __init__(self, net: ap.Network, task: ap.Task) -> None:
        size = net.input_shape[1:]
        self.x, self.y = {}, {}
        for name in ("train", "val", "test"):
            split = getattr(task, name)
            self.x[name] = net.normalize(split.images(range(len(split)), size))
            self.y[name] = torch.from_numpy(split.labels)
        with torch.no_grad():
            parts = [net.run(x, stop=len(net.layers) - 1) for x in self.x["train"].split(64)]
        features = torch.cat(parts).double()
        self.shift = features.mean(0).float()
        scale = features.std(0, correction=0)
        scale[scale <= 1e-6 * scale.max()] = 1.0
        self.scale = scale.float()


class Hooked(nn.Module):
    """The usual script: the whole model, a hook that adds delta, a new classifier."""

    def __init__(self, net: ap.Network, layer: int, head: nn.Linear, data: Data) -> None:
        super().__init__()
        self.model = copy.deepcopy(net.module).eval().requires_grad_(True)
        self.delta = nn.Parameter(torch.zeros(net.layers[layer].shape))
        self.head, self.data, self.features = head, data, torch.empty(0)
        name = net.layers[layer].name
        last = self.model.get_submodule(net.layers[-1].name)
        if layer > 0:
            place = self.model.get_submodule(name)
            place.register_forward_pre_hook(lambda _, given: (given[0] + self.delta, *given[1:]))
        self.layer = layer
        last.register_forward_pre_hook(self._remember)  # after the hook above, when it is the same

    def _remember(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.features = given[0]

    def forward(self, x: Tensor) -> Tensor:
        self.model(x + self.delta if self.layer == 0 else x)
        return self.head((self.features - self.data.shift) / self.data.scale)


class Careful(nn.Module):
    """No weight gradients, no graph before the prompt; otherwise the whole network each time."""

    def __init__(self, net: ap.Network, layer: int, head: nn.Linear, data: Data) -> None:
        super().__init__()
        self.net, self.layer, self.head, self.data = net.share(), layer, head, data
        self.delta = nn.Parameter(torch.zeros(net.layers[layer].shape))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.net.run(x, stop=self.layer)
        features = self.net.run(z + self.delta, start=self.layer, stop=len(self.net.layers) - 1)
        return self.head((features - self.data.shift) / self.data.scale)


def by_hand(
    kind: type[nn.Module],
    net: ap.Network,
    layer: int,
    data: Data,
    recipe: Recipe,
    clock: Clock,
    label: str,
) -> tuple[float, float]:
    """Train one prompt with a loop as people write it; (validation, test) accuracy."""
    classes = int(data.y["train"].max()) + 1
    seeded = ap.ActivationPrompt(layer=layer).attach(net, classes=classes, seed=0)
    head = nn.Linear(data.shift.numel(), classes)
    with torch.no_grad():
        head.weight.copy_(dict(seeded.run_parameters(0))["head.weight"])
        head.bias.zero_()
    model = kind(net, layer, head, data)
    optimizer = torch.optim.AdamW(
        [model.delta, *head.parameters()], lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    order = order_generator(0)

    def train(epoch: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.lr_factor(epoch)
        for rows in torch.randperm(len(data.y["train"]), generator=order).split(recipe.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(data.x["train"][rows]), data.y["train"][rows]).backward()
            optimizer.step()

    @torch.no_grad()
    def evaluate(split: str) -> float:
        parts = [model(x).argmax(1) for x in data.x[split].split(recipe.eval_batch_size)]
        return float((torch.cat(parts) == data.y[split]).double().mean())

    every = recipe.validate_every or recipe.epochs
    val = 0.0
    for epoch in range(recipe.epochs):
        clock.add(f"{label} training", lambda epoch=epoch: train(epoch))
        if (epoch + 1) % every == 0 or epoch + 1 == recipe.epochs:
            val = float(clock.add(f"{label} evaluation", lambda: evaluate("val")))
    test = float(clock.add(f"{label} evaluation", lambda: evaluate("test")))
    return val, test


def sweep(
    net: ap.Network, task: ap.Task, options: argparse.Namespace
) -> tuple[dict[str, float], pd.DataFrame]:
    """All loops on one network; seconds by label, and one row a place."""
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch,
        validate_every=options.validate_every,
        **PLAIN,
    )
    places = list(range(0, len(net.layers), options.every))
    if places[-1] != len(net.layers) - 1:
        places.append(len(net.layers) - 1)
    data, clock = Data(net, task), Clock(options.clock)
    kept = kept_for(net, task, recipe)
    evaluation = Loop.evaluate

    def timed(self: Loop, split: str) -> object:
        return clock.add("ours evaluation", lambda: evaluation(self, split))

    rows = []
    for place in places:
        usual = by_hand(Hooked, net, place, data, recipe, clock, "usual")
        careful = by_hand(Careful, net, place, data, recipe, clock, "careful")
        Loop.evaluate = timed  # type: ignore[method-assign, assignment]
        method = ap.ActivationPrompt(layer=place)
        ours = clock.add(
            "ours",
            lambda m=method: fit_many(m, net, task, runs=grid(), recipe=recipe, kept=kept)[0],
        )
        Loop.evaluate = evaluation  # type: ignore[method-assign]
        rows.append(
            {
                "network": net.name,
                "layer": place,
                "name": net.layers[place].name,
                "usual_test": usual[1],
                "careful_test": careful[1],
                "ours_test": ours.test_accuracy,
                "ours_val": ours.val_accuracy,
            }
        )
        print(
            f"{net.name:24} place {place:2} {rows[-1]['name']:12} test accuracy: usual "
            f"{100 * usual[1]:5.1f}  careful {100 * careful[1]:5.1f}  "
            f"ours {100 * ours.test_accuracy:5.1f}",
            flush=True,
        )
    kept.close()
    table = pd.DataFrame(rows)
    seconds = dict(clock.seconds)
    seconds |= search(net, task, options, places, table)
    return seconds, table


def search(
    net: ap.Network,
    task: ap.Task,
    options: argparse.Namespace,
    places: list[int],
    table: pd.DataFrame,
) -> dict[str, float]:
    """The full grid by `fit_many`, and successive halving over it."""
    recipe = Recipe(epochs=options.epochs, batch_size=options.batch, **PLAIN)
    runs = grid(seeds=tuple(range(options.seeds)), lrs=tuple(options.lrs))
    methods = [ap.ActivationPrompt(layer=place) for place in places]
    clock = Clock(options.clock)
    kept = kept_for(net, task, recipe)
    found = []
    for place, method in zip(places, methods, strict=True):
        outcomes = clock.add(
            "grid",
            lambda m=method: fit_many(m, net, task, runs=runs, recipe=recipe, kept=kept),
        )
        found += [
            {"layer": place, "lr": o.lr, "val": o.val_accuracy, "test": o.test_accuracy}
            for o in outcomes
        ]
    kept.close()
    result = clock.add(
        "halving", lambda: halving(methods, net, task, runs=runs, recipe=recipe, least=1)
    )
    full = pd.DataFrame(found).groupby(["layer", "lr"], as_index=False).mean()
    best = full.sort_values("val", ascending=False, kind="stable").iloc[0]
    layer, lr = int(result.best[0].layer), result.best[1].lr
    chosen = full[(full["layer"] == layer) & (full["lr"] == lr)].iloc[0]
    print(
        f"{net.name}: the full grid of {len(places)} places x {len(runs)} runs chooses place "
        f"{int(best['layer'])}, rate {best['lr']:g} (validation {100 * best['val']:.1f}, test "
        f"{100 * best['test']:.1f}); halving chooses place {layer}, rate {lr:g} (in the grid: "
        f"validation {100 * chosen['val']:.1f}, test {100 * chosen['test']:.1f}), with "
        f"{result.epochs} of {result.full_epochs} epochs"
    )
    lost = 100 * (best["val"] - chosen["val"])
    same = "same layer" if int(best["layer"]) == layer else f"{lost:.2f} points of validation lost"
    print(f"{net.name}: halving against the full grid: {same}", flush=True)
    table.attrs["runs"] = len(runs)
    return dict(clock.seconds)


def report(name: str, seconds: dict[str, float], runs: int) -> dict[str, float]:
    """Print one network's ratios, and return the seconds that they are made of."""
    usual = seconds["usual training"] + seconds["usual evaluation"]
    careful = seconds["careful training"] + seconds["careful evaluation"]
    ours = seconds["ours"]
    training = ours - seconds["ours evaluation"]
    print(
        f"{name}: seconds: usual {usual:.1f}, careful {careful:.1f}, ours {ours:.1f}, "
        f"grid of {runs} runs a place {seconds['grid']:.1f}, halving {seconds['halving']:.1f}"
    )
    alone = {k: seconds[f"{k} training"] / training for k in ("usual", "careful")}
    print(
        f"{name}: usual {usual / ours:.2f}  careful {careful / ours:.2f}  (training alone: usual "
        f"{alone['usual']:.2f}, careful {alone['careful']:.2f})  grid "
        f"{runs * careful / seconds['grid']:.2f}  halving "
        f"{runs * careful / seconds['halving']:.2f}",
        flush=True,
    )
    return {
        "usual": usual,
        "careful": careful,
        "ours": ours,
        "careful_runs": runs * careful,
        "halving": seconds["halving"],
    }


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """How many times more than ours: the usual script, the careful loop, and it run by run."""
    return {
        "usual": seconds["usual"] / seconds["ours"],
        "careful": seconds["careful"] / seconds["ours"],
        "halving": seconds["careful_runs"] / seconds["halving"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks, three minutes")
    parser.add_argument("--network", help="one network by name instead of the two")
    parser.add_argument("--weights", help="its weights file")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--images", type=int, help="training images")
    parser.add_argument("--val", type=int, help="validation and test images, each")
    parser.add_argument("--validate-every", type=int, help="epochs; 0 at the end alone")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--every", type=int, help="every n-th place, and the last")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lrs", type=float, nargs="*")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--out", help="write the table of places as CSV")
    parser.add_argument("--ratios", help="write the ratios as CSV")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quick = options.quick
    options.images = options.images or (96 if quick else 256)
    options.epochs = options.epochs or (9 if quick else 10)
    if options.validate_every is None:
        options.validate_every = 0 if quick else 1
    options.every = options.every or (3 if quick else 1)
    options.lrs = options.lrs or ([3e-2, 1e-2, 2e-3] if quick else [3e-2, 1e-2, 3e-3, 1e-3])
    options.seeds = options.seeds or (2 if quick else 1)
    options.val = options.val or (100 if quick else 200)
    networks = QUICK if quick else FULL
    if options.network:
        networks = ((options.network, options.weights, None),)
    task = ap.task(options.task).subset(train=options.images, val=options.val, test=options.val)
    parts, tables = [], []
    for name, weights, shape in networks:
        torch.manual_seed(0)
        net = ap.load(name, weights=weights, input_shape=shape)
        seconds, table = sweep(net, task, options)
        parts.append(report(net.name, seconds, table.attrs["runs"]))
        tables.append(table)
    table = pd.concat(tables)
    worst = (table["careful_test"] - table["ours_test"]).abs().max()
    print(f"largest difference in test accuracy, careful against ours: {100 * worst:.2f} points")
    if options.out:
        table.to_csv(Path(options.out), index=False)
    total = {key: sum(part[key] for part in parts) for key in parts[0]}
    if options.ratios:
        names = [*(table["network"].iloc[0] for table in tables), "together"]
        rows = [{"network": n} | ratios(p) for n, p in zip(names, [*parts, total], strict=True)]
        pd.DataFrame(rows).to_csv(Path(options.ratios), index=False)
    for name, value in ratios(total).items():
        print(f"{name} ratio: {value:.2f}")


if __name__ == "__main__":
    main()
