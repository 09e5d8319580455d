"""One picture a class, many tokens: VPT against VAPT as published, and what prompts do untrained.

VAPT's paper reports 60.1 % against VPT's 3.6 % on Stanford Dogs with 1 % of the data, about one
picture a class and p = 100 tokens. Here on a ViT-Tiny with ImageNet weights at 96 pixels and ten
classes of textures, with p from 5 to 200:

- *trained*: the published recipe (SGD, 100 epochs of which 10 warm up, base rates up to 25, a
  cold head, the same for both), one picture a class, several draws; each method picks its rate on
  the same 200 validation pictures.
- *untrained*: a probe of the network without any prompt, trained on 400 pictures, is held fixed
  and reads the features with prompts as they start: VPT's random tokens, and VAPT's, which are
  zero but for those of the first block. The further it falls, the further training must first
  undo what the start does.

    python -m analyses.token_count --assets DIR [--out runs/theory/token_count] [--seconds 3000]

Writes token_count.csv and untrained.csv; goes on where it stopped, from the table too. One network,
one task: the test is of the gap and of its growth with p, not of its published size.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from analyses.campaign_plan import load_network, load_task
from analyses.theory_output import interval, part
from aptheory.findings.statistics import mean_interval
from aptheory.tasks import loader
from aptheory.training.fit import grid

NAME = "token_count"
NETWORK, TASK = "vit_tiny", "dtd10"


@dataclass(frozen=True)
class Plan:
    """What is run: the draws of the training pictures at each p, rates, pictures, and p untrained.

    A draw at p = 200 costs about six times as much as at p = 5.
    """

    draws: dict[int, int] = field(default_factory=lambda: {5: 10, 50: 10, 200: 10})
    rates: tuple[float, ...] = (25.0, 2.5, 0.25)
    epochs: int = 100
    validation: int = 200
    test: int = 300
    tokens: tuple[int, ...] = (1, 5, 20, 50, 100, 200)
    starts: int = 3


def methods(tokens: int) -> dict[str, ap.Method]:
    return {"VPT": ap.VPT(tokens=tokens), "VAPT": ap.VAPT(tokens=tokens)}


def one_draw(
    net: ap.Network, whole: ap.Task, plan: Plan, method: str, tokens: int, draw: int
) -> pd.DataFrame:
    """One method with so many tokens on one draw: the row of the rate that validation chooses."""
    classes = len(whole.classes)
    task = whole.subset(train=classes, seed=draw)
    task = task.subset(
        val=min(plan.validation, len(whole.val)), test=min(plan.test, len(whole.test)), seed=0
    )
    recipe = ap.Recipe.named("vapt", epochs=plan.epochs)
    outcomes = ap.fit_many(
        methods(tokens)[method], net, task, runs=grid(seeds=[draw], lrs=plan.rates), recipe=recipe
    )
    best = max(outcomes, key=lambda one: -1.0 if one.failed else one.val_accuracy)
    about = {"network": net.name, "task": whole.name, "method": method, "tokens": tokens}
    return pd.DataFrame(
        [
            about
            | {
                "seed": draw,
                "lr": best.lr,
                "parameters": best.parameters_without_head,
                "train_accuracy": best.train_accuracy,
                "val_accuracy": best.val_accuracy,
                "test_accuracy": best.test_accuracy,
                "classes": classes,
            }
        ]
    )


def untrained(net: ap.Network, whole: ap.Task, plan: Plan, tokens: Sequence[int]) -> pd.DataFrame:
    """Test accuracy of a fixed probe on features with prompts as they start."""
    task = whole.subset(
        train=min(400, len(whole.train)), test=min(plan.test, len(whole.test)), seed=0
    )
    probe = ap.LinearProbe().attach(net, classes=len(whole.classes))
    ap.fit(probe, task, seed=0)
    batches = list(loader(task.test, net, 50))
    rows = [{"method": "no prompt", "tokens": 0, "seed": 0, "accuracy": _accuracy(probe, batches)}]
    for count in tokens:
        for seed in range(plan.starts):
            for name, method in methods(count).items():
                prompted = method.attach(net, classes=len(whole.classes), seed=seed)
                prompted.head.load_state_dict(probe.head.state_dict())
                accuracy = _accuracy(prompted, batches)
                rows.append({"method": name, "tokens": count, "seed": seed, "accuracy": accuracy})
    return pd.DataFrame(rows).assign(network=net.name, task=whole.name, classes=len(whole.classes))


@torch.no_grad()
def _accuracy(adapted: torch.nn.Module, batches: Sequence[tuple[torch.Tensor, ...]]) -> float:
    adapted.eval()
    right = sum(int((adapted(x).argmax(1) == labels).sum()) for x, labels in batches)
    return right / sum(len(labels) for _, labels in batches)


def findings(trained: pd.DataFrame, start: pd.DataFrame) -> list[str]:
    """Accuracies, paired differences, and what untrained prompts cost, in words."""
    lines = ["Test accuracy in points; mean and 95 % interval (Student's t) over draws."]
    for tokens, gap, wide in gaps(trained):
        lines.append(
            f"p = {tokens}, {len(gap)} draws: VPT {_said(wide['VPT'])}, "
            f"VAPT {_said(wide['VAPT'])}, VAPT − VPT {_said(gap)}, "
            f"single draws {gap.min():.1f} to {gap.max():.1f}."
        )
    for (method, tokens), rows in start.groupby(["method", "tokens"], sort=False):
        lines.append(f"untrained, {method}, p = {tokens}: {_said(100 * rows['accuracy'])}.")
    return lines


def gaps(trained: pd.DataFrame) -> list[tuple[int, pd.Series, pd.DataFrame]]:
    """(p, VAPT − VPT in points by draw, accuracies by method) for each p that both were run at."""
    found = []
    for tokens, rows in trained.groupby("tokens"):
        wide = 100 * rows.pivot(index="seed", columns="method", values="test_accuracy")
        if {"VPT", "VAPT"} <= set(wide) and len(wide := wide.dropna()):
            found.append((int(str(tokens)), wide["VAPT"] - wide["VPT"], wide))
    return found


def _said(values: pd.Series) -> str:
    return interval((values.mean(), *mean_interval(values.to_numpy(float))), 1)


def main(
    out: str | Path, assets: Path, *, plan: Plan | None = None, seconds: float = float("inf")
) -> pd.DataFrame:
    """Run what is missing until the time is spent; write both tables, print the findings."""
    torch.set_num_threads(1)
    out, plan, end = Path(out), plan or Plan(), time.monotonic() + seconds
    net, whole = load_network(NETWORK, assets), load_task(TASK, 0, assets)
    before = out / "untrained.csv"
    start = (
        pd.read_csv(before)
        if before.is_file()
        else part(out, "untrained", lambda: untrained(net, whole, plan, plan.tokens))
    )
    frames, done = [], finished(out / f"{NAME}.csv")
    most = max(plan.draws.values())
    for draw in range(most):  # all p of a draw before the next draw
        for tokens in (p for p, draws in plan.draws.items() if draw < draws):
            for method in methods(tokens):

                def compute(method: str = method, tokens: int = tokens, draw: int = draw):
                    return one_draw(net, whole, plan, method, tokens, draw)

                name = f"{method}_{tokens}_{draw}_{plan.epochs}_{len(plan.rates)}"
                if (method, tokens, draw) in done:
                    frames.append(done[method, tokens, draw])
                elif time.monotonic() < end or (out / "parts" / f"{name}.csv").is_file():
                    frames.append(part(out, name, compute))
                    print(f"{name}: test {frames[-1]['test_accuracy'].iloc[0]:.3f}", flush=True)
    table = pd.concat(frames, ignore_index=True)
    table.to_csv(out / f"{NAME}.csv", index=False)
    start.to_csv(out / "untrained.csv", index=False)
    said = findings(table, start)
    (out / "findings.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
    print("\n".join(said))
    return table


def finished(path: Path) -> dict[tuple[str, int, int], pd.DataFrame]:
    """The rows of a table that was written before, by method, tokens and draw."""
    if not path.is_file():
        return {}
    rows = pd.read_csv(path)
    keys = rows.groupby(["method", "tokens", "seed"])
    return {(str(m), int(t), int(s)): each for (m, t, s), each in keys}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("runs/theory") / NAME)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    if given.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    main(given.out, Path(given.assets), seconds=given.seconds)
