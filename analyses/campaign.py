"""Run the evidence campaign: every unit of `analyses.campaign_plan`, in processes, resumably.

    python -m analyses.campaign --assets DIR [--out results/evidence] [--device cuda]
        [--precision bfloat16] [--workers 14] [--seconds 560]
        [--question sweep] [--network vit_tiny] [--task gtsrb32] [--seed 0]

A unit is one network on one draw of one task, for one question. What it found is appended to
OUT/runs.jsonl.gz in one piece when it is done, a run a line. A unit that stands there is passed
over, and one that was killed goes on from OUT/parts, so the command may be killed and called again,
also on another machine. A GPU trains in bfloat16, a processor in float32 unless --precision says
otherwise.
`analyses.campaign_tables` turns the journal into tables.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import aptheory as ap
from analyses import campaign_questions
from analyses.campaign_bench import Machine
from analyses.campaign_plan import NETWORKS, Unit, units
from aptheory.studies.engines import stay_with

JOURNAL = "runs.jsonl.gz"


def finished(out: Path) -> set[str]:
    """Names of the units that the journal holds."""
    return {row["unit"] for row in read(out)}


def read(out: Path) -> Iterator[dict[str, Any]]:
    """The runs of a journal, one after the other."""
    if not (out / JOURNAL).is_file():
        return
    with gzip.open(out / JOURNAL, "rt") as file:
        try:
            for line in file:
                yield json.loads(line)
        except (EOFError, ValueError):
            return  # a kill cut the last piece short


def parts_of(out: Path, unit: Unit) -> Path:
    """The file of what a unit has come to before it is done."""
    return out / "parts" / f"{unit.name.replace('/', '.')}.jsonl"


def run_unit(job: tuple[Unit, Machine]) -> tuple[Unit, list[dict[str, Any]], float, str]:
    """(unit, its runs, seconds, why it failed or nothing)."""
    unit, on = job
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        rows = list(campaign_questions.QUESTIONS[unit.question](unit, on))
    except (ap.InputError, RuntimeError) as error:
        return unit, [], time.perf_counter() - start, f"{type(error).__name__}: {error}"
    return unit, rows, time.perf_counter() - start, ""


def journal(out: Path, unit: Unit, rows: Sequence[dict[str, Any]], seconds: float) -> None:
    """Append a unit's runs in one write."""
    about = {"unit": unit.name, "seconds": round(seconds, 1), "runs": len(rows)}
    lines = [json.dumps({**about, **row}, separators=(",", ":")) for row in rows]
    piece = gzip.compress(("\n".join(lines) + "\n").encode())  # gzip files may be joined
    with open(out / JOURNAL, "ab") as file:
        file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def run(
    chosen: Sequence[Unit],
    assets: Path,
    out: Path,
    *,
    device: str,
    precision: str,
    workers: int,
    seconds: float,
    log: Callable[[str], None] = print,
) -> int:
    """Run units until all are done or the time is spent; returns how many are left."""
    out.mkdir(parents=True, exist_ok=True)
    done = finished(out)
    todo = [unit for unit in chosen if unit.name not in done]
    log(f"{len(todo)} of {len(chosen)} units to run")
    end = time.monotonic() + seconds
    left = len(todo)
    context = multiprocessing.get_context("spawn")
    watch = {"initializer": stay_with, "initargs": (os.getpid(),)}  # no worker outlives a kill
    with context.Pool(workers, maxtasksperchild=8, **watch) as pool:
        jobs = [
            (unit, Machine(assets, device, precision, parts=parts_of(out, unit))) for unit in todo
        ]
        results: Iterator[Any] = pool.imap_unordered(run_unit, jobs)
        while left and (rest := end - time.monotonic()) > 0:
            try:
                unit, rows, spent, why = results.next(timeout=rest)  # type: ignore[attr-defined]
            except multiprocessing.TimeoutError:
                break
            left -= 1
            if why:
                log(f"FAILED {unit.name}: {why}")
            else:
                journal(out, unit, rows, spent)
                parts_of(out, unit).unlink(missing_ok=True)
                log(f"{unit.name}: {len(rows)} runs in {spent:.0f} s; {left} units left")
        pool.terminate()
    return left


def main() -> None:
    """Run the units that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--question", action="append", choices=[*campaign_questions.QUESTIONS])
    parser.add_argument("--network", action="append", choices=[*NETWORKS])
    parser.add_argument("--task", action="append")
    parser.add_argument("--seed", action="append", type=int)
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    chosen = [
        unit
        for unit in units()
        if (asked.question is None or unit.question in asked.question)
        and (asked.network is None or unit.network in asked.network)
        and (asked.task is None or unit.task in asked.task)
        and (asked.seed is None or unit.seed in asked.seed)
    ]
    seconds = min(asked.seconds, 1e9)
    left = run(
        chosen,
        asked.assets,
        asked.out,
        device=asked.device,
        precision=asked.precision or ("bfloat16" if asked.device == "cuda" else "float32"),
        workers=asked.workers,
        seconds=seconds,
    )
    print(f"{len(chosen) - left} of {len(chosen)} units done, {left} left")


if __name__ == "__main__":
    main()
