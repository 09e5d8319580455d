"""What the main job costs beside its work: loads, a finished folder, and where the time goes.

    python -m benchmarks.spine           the demo's study (two networks, two tasks), in one process
    python -m benchmarks.spine --quick   one task, few images, one epoch

Prints a line each: how often networks and tasks were loaded, how often a method was attached while
the study was planned, the CPU seconds of the same command on the finished folder, and the share of
the first command's CPU time that was spent training and evaluating, and profiling.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any
from unittest import mock

import torch

from aptheory import exploration
from aptheory.cli.application import collect_rarely
from aptheory.exploration import DEMO, explore
from aptheory.methods.base import Method
from aptheory.studies import job_trainer, sources

CALLS: Counter[str] = Counter()
CPU: Counter[str] = Counter()


def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its calls counted and its CPU seconds added up."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        CALLS[name] += 1
        start = time.process_time()
        try:
            return function(*args, **options)
        finally:
            CPU[name] += time.process_time() - start

    return call


@contextmanager
def watching() -> Iterator[None]:
    """Count and time the loads, the plan, the training and the profiling of what runs inside."""
    CALLS.clear(), CPU.clear()
    with ExitStack() as stack:
        for name, owner, attribute in (
            ("network", sources, "load_network"),
            ("task", sources, "load_task"),
            ("plan", exploration, "planned"),
            ("attach", Method, "attach"),
            ("training", job_trainer.JobTrainer, "__call__"),
            ("profiling", exploration, "profile"),
            ("sweep", exploration, "execute_study"),
            ("page", exploration, "report"),
        ):
            function = watched(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, function))
        yield


def main(words: Sequence[str] | None = None) -> None:
    """Run the job twice and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    collect_rarely()  # as the command line does
    study, images = DEMO, 256
    if options.quick:
        tasks = ({"name": "digits", "train": 40, "val": 20, "test": 20},)
        recipe = ({"name": "quick", "epochs": 1},)
        study, images = replace(DEMO, tasks=tasks, recipes=recipe), 32
    with tempfile.TemporaryDirectory() as out:
        with watching():
            start = time.process_time()
            explore(study, out, images=images, engine="here", progress=False)
            whole = time.process_time() - start
        networks, tasks_ = len(study.networks), len(study.tasks)
        print(
            f"loads: {CALLS['network']} of {networks} networks, {CALLS['task']} of {tasks_} tasks"
        )
        print(f"plans: {CALLS['plan']}; page: {CPU['page']:.1f} s")
        work = CPU["training"] + CPU["profiling"]
        print(
            f"CPU: {whole:.1f} s, of which training and evaluating {CPU['training'] / whole:.1%}, "
            f"profiling {CPU['profiling'] / whole:.1%}, together {work / whole:.1%}"
        )
        with watching():
            start = time.process_time()
            explore(study, out, images=images, engine="here", progress=False)
            again = time.process_time() - start
        parts = ", ".join(f"{name} {CPU[name]:.2f}" for name in CPU)
        print(f"finished folder: {again:.2f} s of CPU beyond the import ({parts})")
        print(f"attached on a finished folder: {CALLS['attach']} methods, to plan what they cost")


if __name__ == "__main__":
    main()
