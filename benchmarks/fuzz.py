"""Harm every kind of input, and count what comes of it.

    python -m benchmarks.fuzz --quick            a few cases a target, about ten seconds
    python -m benchmarks.fuzz --seconds 600      as many as fit

Each case runs in a process of its own, forked from one that has everything imported, under a limit
of time and of memory. An *answer* is a result; a *sentence* an `InputError` of one line; a
*traceback* anything else that was raised; a *hang* took longer than ten seconds; *memory* grew by
more than 200 MB. A case is its target, its number and the seed, so that any can be run again.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import resource
import select
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SECONDS = 10.0
GROWTH = 200 * 2**20
ROOM = 4 * 2**30
"""Of addresses beyond those that the process has already: libraries reserve more than they use."""
QUICK = 2
OUTCOMES = ("answer", "sentence", "traceback", "hang", "memory")


def attempt(case, draw: random.Random) -> tuple[str, str]:
    """(what came of it, the last lines where it was a traceback), in this very process."""
    from aptheory.errors import InputError

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        case(draw)
        outcome = ("answer", "")
    except InputError as error:
        plain = str(error).count("\n") == 0 and len(str(error)) < 4000
        outcome = (
            ("sentence", "") if plain else ("traceback", f"not a sentence: {str(error)[:300]}")
        )
    except BaseException:
        outcome = ("traceback", traceback.format_exc()[-1500:])
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return ("memory", f"{grown / 2**20:.0f} MB") if grown > GROWTH else outcome


def in_a_process(case, draw: random.Random) -> tuple[str, str]:
    """`attempt` in a forked process that is killed when it takes too long."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
        outcome, about = attempt(case, draw)
        os.write(writer, f"{outcome}\n{about}"[:4000].encode("utf-8", "replace"))
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], SECONDS)
        if not ready:
            os.kill(child, 9)
            return "hang", f"more than {SECONDS:.0f} s"
        text = os.read(reader, 8192).decode()
    finally:
        os.waitpid(child, 0)
        os.close(reader)
    if not text:
        return "memory", "the process was killed"
    outcome, _, about = text.partition("\n")
    return outcome, about


def main(words: Sequence[str] | None = None) -> int:
    """Run the cases, print a line a target, and return how many tracebacks there were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} cases a target")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=None, help="targets")
    parser.add_argument("--show", type=int, default=3, help="tracebacks shown a target")
    options = parser.parse_args(words)

    os.environ["APTHEORY_CACHE"] = tempfile.mkdtemp(prefix="fuzz-cache-")
    os.environ["HF_HUB_OFFLINE"] = "1"
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    import torch

    torch.set_num_threads(1)
    from benchmarks.fuzz_targets import TARGETS

    names = options.only or list(TARGETS)
    cases = {}
    for name in names:
        (root / name).mkdir()
        cases[name] = TARGETS[name](root / name)
    gc.freeze()  # the children share these pages
    counts = {name: Counter() for name in names}
    shown = Counter()
    end = time.monotonic() + options.seconds
    number = 0
    while number < QUICK if options.quick else time.monotonic() < end:
        for name in names:
            draw = random.Random(f"{options.seed} {name} {number}")
            outcome, about = in_a_process(cases[name], draw)
            counts[name][outcome] += 1
            if outcome not in ("answer", "sentence") and shown[name] < options.show:
                shown[name] += 1
                print(f"--- {name} {number}: {outcome}\n{about}\n", file=sys.stderr)
        number += 1
    gc.unfreeze()
    for path in (root, Path(os.environ["APTHEORY_CACHE"])):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
    print(f"{'target':18}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    total: Counter[str] = Counter()
    for name in names:
        total += counts[name]
        print(f"{name:18}" + "".join(f"{counts[name][outcome]:11}" for outcome in OUTCOMES))
    print(f"{'all':18}" + "".join(f"{total[outcome]:11}" for outcome in OUTCOMES))
    for outcome in ("hang", "memory"):
        print(f"{outcome}: {total[outcome]}")
    print(f"tracebacks: {total['traceback']} of {total.total()}")
    return total["traceback"]


if __name__ == "__main__":
    sys.exit(main() > 0)
