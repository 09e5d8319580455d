"""Compute a table for every pair of the campaign, resumably: the pairs that are there are passed.

What `analyses.campaign_predicted` and `analyses.campaign_survival` share.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from analyses.campaign_plan import NEAR, NETWORKS, load_network, load_task

KEYS = ["network", "kind", "task", "near"]

CIFAR_FIRST = (
    *("cifar_vit128", "cifar_vit_postnorm", "resnet32", "resnet56"),
    *("mobilenetv2_035", "vit_tiny", "efficientnet_lite0", "vit_small"),
)
"""The networks in the order of what a pass costs."""


def arguments(description: str) -> argparse.Namespace:
    """``--assets``, ``--out``, ``--seconds`` and which pairs; without assets what is there is
    judged anew."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="then stop; go on later"
    )
    parser.add_argument("--network", action="append", choices=CIFAR_FIRST, help="these alone")
    parser.add_argument("--task", action="append", help="these alone")
    return parser.parse_args()


def extend(
    path: Path, compute: Callable[[ap.Network, ap.Task], pd.DataFrame], asked: argparse.Namespace
) -> pd.DataFrame:
    """Append to a table what it lacks, a pair at a time (seed 0's draw); returns the table.

    Nothing is computed without assets.
    """
    if asked.assets is None:
        return _read(path)
    torch.set_num_threads(1)
    end = time.monotonic() + asked.seconds
    done = _read(path)
    finished = set(zip(done["network"], done["task"], strict=True))
    for name, task in _in_turn():
        unwanted = name not in (asked.network or CIFAR_FIRST) or task not in (asked.task or [task])
        if unwanted or (name, task) in finished:
            continue
        if time.monotonic() > end:
            break
        start = time.process_time()
        rows = compute(load_network(name, asked.assets), load_task(task, 0, asked.assets))
        about = dict(zip(KEYS, (name, NETWORKS[name].kind, task, task in NEAR), strict=True))
        rows = pd.concat([pd.DataFrame([about] * len(rows)), rows.reset_index(drop=True)], axis=1)
        rows.to_csv(path, mode="a", header=not path.is_file(), index=False, float_format="%.5g")
        print(f"{name}, {task}: {time.process_time() - start:.0f} s", flush=True)
    return _read(path)


def _in_turn() -> list[tuple[str, str]]:
    """The campaign's pairs, a task of each network after the other: the networks are the units."""
    tasks = zip_longest(*(NETWORKS[name].tasks for name in CIFAR_FIRST))
    return [
        (name, task)
        for some in tasks
        for name, task in zip(CIFAR_FIRST, some, strict=True)
        if task is not None
    ]


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=KEYS)
