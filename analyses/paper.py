"""Write paper_repro.md from the result tables, so that it cannot drift from them.

python -m analyses.paper            # judge the committed tables and journals, draw, write
python -m analyses.paper --write    # write only
python -m analyses.paper --full     # train and time everything anew first, in its short form
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyses import (
    campaign_planted,
    campaign_predicted,
    campaign_pretraining,
    campaign_section,
    campaign_survival,
    choice_section,
    more_pictures,
    shift_law,
)
from analyses.claims import CLAIMS, NOT_RUN, Claim, judge
from analyses.judges import (
    NOT_REPRODUCED,
    NOT_TESTABLE,
    NOT_WITH_THESE,
    PARTLY,
    REPRODUCED,
    UNDECIDED,
    Finding,
)
from analyses.results import Results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "paper_repro.md"
VERDICTS = (
    *(REPRODUCED, PARTLY, NOT_REPRODUCED, UNDECIDED),
    *(NOT_WITH_THESE, NOT_TESTABLE, NOT_RUN),
)


def page(results: Results) -> str:
    """The whole of paper_repro.md."""
    found = [(claim, judge(claim, results)) for claim in CLAIMS]
    notes = ROOT / "analyses" / "paper_notes.md"
    return "\n\n".join(
        [
            "# What of the papers could be reproduced",
            "Written by `python -m analyses.paper --write` from the tables in `results/`; a test "
            "fails when the two differ. Intervals are 95 %; what is said of networks has networks "
            "as its units, however many tasks each was run on. A claim with an interval is "
            "*reproduced* when the whole interval agrees with it, *not reproduced* when the whole "
            "interval contradicts it, and *undecided* in between; any other rule stands in the "
            "claim's section.",
            _summary(found),
            "## Claims",
            _table(found),
            "## Settings, further numbers and reasons",
            *_sections(found),
            campaign_section.section(results),
            campaign_planted.section(results),
            campaign_pretraining.section(results),
            choice_section.section(results),
            shift_law.section(results),
            more_pictures.section(results),
            campaign_predicted.section(results),
            campaign_survival.section(results),
            _costs(results),
            notes.read_text(encoding="utf-8").strip(),
            "",
        ]
    )


def _summary(found: list[tuple[Claim, Finding]]) -> str:
    counts = Counter(finding.verdict for _, finding in found)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines = [f"**{len(found)} claims: {said}.**", ""]
    for verdict in VERDICTS:
        rows = [f"{claim.n} ({claim.says})" for claim, one in found if one.verdict == verdict]
        if rows:
            lines.append(f"- {verdict}: " + "; ".join(rows))
    return "\n".join(lines)


def _table(found: list[tuple[Claim, Finding]]) -> str:
    rows = [
        (
            claim.n,
            claim.says,
            finding.number,
            str(finding.n or "–"),
            finding.unit or "–",
            f"**{finding.verdict}**",
        )
        for claim, finding in found
    ]
    return _markdown(("claim", "what it says", "number", "n", "unit", "verdict"), rows)


def _sections(found: list[tuple[Claim, Finding]]) -> list[str]:
    """A section a claim: its setting, its reason, further numbers, and its figure.

    A figure is shown once, under the first of the claims that it belongs to.
    """
    parts: list[str] = []
    shown: dict[str, str] = {}
    for claim, finding in found:
        done = claim.experiment
        parts.append(f"### {claim.n}: {claim.says}")
        number = f"**{finding.verdict}**: {finding.number}"
        parts.append(f"{number}." if finding.number != "–" else f"**{finding.verdict}**.")
        if finding.why:
            parts.append(f"{finding.why[0].upper()}{finding.why[1:]}.")
        if finding.further:
            parts.append("\n".join(f"- {number}" for number in finding.further))
        parts.append(f"Known by [{claim.mark}]. Setting: {done.setting} (`{done.command}`).")
        if done.figure in shown:
            parts.append(f"Its figure is that of claim {shown[done.figure]}.")
        elif done.figure:
            shown[done.figure] = claim.n
            parts.append(f"![{claim.says}](results/figures/{done.figure}.png)")
    return parts


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in rows]
    return "\n".join(lines)


def _costs(results: Results) -> str:
    """The efficiency tables: a training step, a sweep over layers, and how its cost grows."""
    parts = [
        "## What it costs",
        "Random weights, one CPU thread, CPU seconds as ratios in one run.",
    ]
    if results.has("cost/steps"):
        parts += [
            "A training step as a share of visual prompting's, and inference as a share of the "
            "frozen network's (`python -m analyses.cost_tables`, the papers' own networks by "
            "`--full`). Kept: from kept activations.",
            _markdown(
                ("network", "method", "kept", "predicted", "time", "memory", "throughput"),
                [
                    (
                        str(row.network),
                        f"{row.method} ({row.layer_name})" if row.method == "ap" else row.method,
                        "yes" if row.kept else "no",
                        f"{row.predicted_ratio:.2f}",
                        _with_interval(row, "measured_ratio"),
                        f"{row.memory_ratio:.2f}",
                        _with_interval(row, "throughput_ratio"),
                    )
                    for row in results.steps().itertuples()
                ],
            ),
        ]
    parts += _costs_on_a_gpu(results)
    sweeps = {
        "cost/layer_sweep": "`python benchmarks/layer_sweep.py --quick`",
        "cost/layer_sweep_large": "`python benchmarks/layer_sweep.py --images 48 --val 48 --epochs "
        "3 --validate-every 0 --batch 16 --lrs 3e-2 3e-3 --seeds 1`",
    }
    for name, command in sweeps.items():
        if results.has(name):
            parts += [
                "A sweep over layers, training and evaluation together: how many times the usual "
                "script (hooks, frozen weights collecting gradients) and a careful loop cost ours, "
                "and the careful loop run by run what successive halving over layers, rates and "
                f"seeds costs ({command}).",
                _markdown(
                    ("network", "usual", "careful", "halving"),
                    [
                        (row.network, *(f"{v:.2f}" for v in (row.usual, row.careful, row.halving)))
                        for row in results.table(name).itertuples()
                    ],
                ),
            ]
    if results.has("cost/growth"):
        parts += [
            "How the cost of a sweep grows: the slope of log seconds against log size, 1 being "
            "linear (`python benchmarks/cost_growth.py`; resolution is the side of the image).",
            _markdown(("network", "in", "sizes", "exponent"), _exponents(results)),
        ]
    return "\n\n".join(parts)


def _costs_on_a_gpu(results: Results) -> list[str]:
    """The papers' own networks on a GPU, and several runs at once against one by one."""
    if not results.has("cost/gpu"):
        return []
    table, both = results.table("cost/gpu"), results.table("cost/gpu_together")
    measured = " and ".join(
        f"{', '.join(rows['network'].unique())} in {precision}"
        for precision, rows in table.groupby("precision", sort=False)
    )
    return [
        f"On a GPU ({table['gpu'].iloc[0]}; {measured}; random weights, batches of 128): a "
        "training step as a share of visual prompting's, and inference as a share of the frozen "
        "network's (`python benchmarks/efficiency_gpu.py --out TABLE`).",
        _markdown(
            (
                *("network", "precision", "method", "kept", "predicted", "time", "step (ms)"),
                *("memory (GB)", "throughput"),
            ),
            [
                (
                    *(row.network, row.precision),
                    f"{row.method} ({row.layer_name})" if row.method == "ap" else row.method,
                    *("yes" if row.kept else "no", f"{row.predicted_ratio:.2f}"),
                    *(_with_interval(row, "measured_ratio"), f"{row.step_ms:.1f}"),
                    *(f"{row.peak_memory_mb / 1e3:.1f}", _with_interval(row, "throughput_ratio")),
                )
                for row in table.itertuples()
            ],
        ),
        "There, eight runs (rates and seeds) at once from kept activations against the careful "
        "loop run by run, bfloat16, batches of 64; in brackets the share of the GPU's measured "
        "matrix throughput: "
        + "; ".join(
            f"{row.network} {row.ratio:.1f} times as fast ({row.of_roofline:.0%})"
            for row in both.itertuples()
        )
        + ".",
    ]


def _with_interval(row: Any, name: str) -> str:
    value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _exponents(results: Results) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    table = results.table("cost/growth")
    for (network, what), part in table.groupby(["network", "grows"], sort=False):
        slope = np.polyfit(np.log(part["size"]), np.log(part["cpu_seconds"]), 1)[0]
        sizes = ", ".join(f"{size:g}" for size in part["size"])
        rows.append((str(network), str(what), sizes, f"{slope:.2f}"))
    return rows


TRAINED: tuple[tuple[str, ...], ...] = (
    ("-m", "analyses.equivalence"),
    ("-m", "analyses.cost_tables"),
    ("benchmarks/layer_sweep.py", "--quick", "--ratios", "runs/cost/layer_sweep.csv"),
    ("benchmarks/cost_growth.py", "--quick", "--out", "runs/cost/growth.csv"),
    ("-m", "analyses.layer_preference"),
    ("-m", "analyses.cka_between"),
    ("-m", "analyses.method_comparison"),
    ("-m", "analyses.layer_choice"),
    ("-m", "analyses.predicted_curves"),
    ("-m", "analyses.prompt_views"),
    ("-m", "analyses.two_layer"),
    ("-m", "analyses.steps_to_zero_error"),
    ("-m", "analyses.experts_rate"),
    ("-m", "analyses.low_data"),
    ("-m", "analyses.collect"),
)
"""What trains or times, and puts its tables into results/. Each resumes by itself."""

JUDGED: tuple[tuple[str, ...], ...] = (
    ("-m", "analyses.theory_verdicts", "--runs", "results/theory"),
    ("-m", "analyses.campaign_tables"),
    ("-m", "analyses.campaign_methods"),
    ("-m", "analyses.campaign_pretraining"),
    ("-m", "analyses.campaign_dial"),
    ("-m", "analyses.campaign_parts"),
    ("-m", "analyses.campaign_planted"),
    ("-m", "analyses.layer_front"),
    ("-m", "analyses.shift_law"),
    ("-m", "analyses.campaign_predicted", "--seconds", "0"),
    ("-m", "analyses.campaign_survival", "--seconds", "0"),
    ("-m", "figures"),
)
"""What reads the tables and journals of results/ and judges and draws them."""


def run(steps: tuple[tuple[str, ...], ...]) -> list[str]:
    """Run one after the other; returns those that failed."""
    failed = []
    for step in steps:
        print(f"\n== python {' '.join(step)}", flush=True)
        if subprocess.run([sys.executable, *step], cwd=ROOT).returncode:
            failed.append(" ".join(step))
    return failed


def main() -> None:
    """Train if asked, judge and draw unless only to write, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--write", action="store_true", help="write paper_repro.md, run nothing")
    asked.add_argument("--full", action="store_true", help="train and time everything anew first")
    given = parser.parse_args()
    steps = () if given.write else (*TRAINED, *JUDGED) if given.full else JUDGED
    failed = run(steps)
    PAGE.write_text(page(Results(RESULTS)), encoding="utf-8")
    print(f"{PAGE}")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
