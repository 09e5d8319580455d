"""Write paper_repro.md from the result tables, so that it cannot drift from them.

python -m analyses.paper            # run what is missing (short form), then write
python -m analyses.paper --write    # write only
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

from analyses.claims import CLAIMS, NOT_RUN, Claim, judge
from analyses.judges import Finding
from analyses.results import Results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "paper_repro.md"


def page(results: Results) -> str:
    """The whole of paper_repro.md."""
    found = [(claim, judge(claim, results)) for claim in CLAIMS]
    notes = ROOT / "analyses" / "paper_notes.md"
    return "\n\n".join(
        [
            "# What of the papers could be reproduced",
            "Written by `python -m analyses.paper --write` from the tables in `results/`; a test "
            "fails when the two differ. Intervals are 95 %. A claim is *reproduced* when the whole "
            "interval agrees with it, *not reproduced* when the whole interval contradicts it, and "
            "*undecided* in between.",
            _summary(found),
            "## Claims",
            _table(found),
            _reasons(found),
            notes.read_text(encoding="utf-8").strip(),
            "",
        ]
    )


def _summary(found: list[tuple[Claim, Finding]]) -> str:
    counts = Counter(finding.verdict for _, finding in found)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines = [f"**{len(found)} claims: {said}.**", ""]
    for verdict in ("reproduced", "partly reproduced", "not reproduced", "undecided", NOT_RUN):
        rows = [f"{claim.n} ({claim.says})" for claim, one in found if one.verdict == verdict]
        if rows:
            lines.append(f"- {verdict}: " + "; ".join(rows))
    return "\n".join(lines)


def _table(found: list[tuple[Claim, Finding]]) -> str:
    lines = [
        "| n | claim | known by | our setting | number | command | figure | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for claim, finding in found:
        done = claim.experiment
        cells = (
            claim.n,
            claim.says,
            f"[{claim.mark}]",
            done.setting,
            finding.number,
            f"`{done.command}`",
            f"`results/figures/{done.figure}.png`" if done.figure else "–",
            f"**{finding.verdict}**",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _reasons(found: list[tuple[Claim, Finding]]) -> str:
    rows = [f"- {claim.n}: {one.why}." for claim, one in found if one.why]
    return "Reasons and readings:\n\n" + "\n".join(rows) if rows else ""


STEPS: tuple[tuple[str, ...], ...] = (
    ("-m", "analyses.equivalence"),
    ("-m", "analyses.cost_tables"),
    ("-m", "analyses.layer_preference"),
    ("-m", "analyses.cka_between"),
    ("-m", "analyses.method_comparison"),
    ("-m", "analyses.layer_choice"),
    ("-m", "analyses.prompt_views"),
    ("analyses/sample_complexity.py",),
    ("analyses/flip_test.py",),
    ("analyses/steps_to_zero_error.py",),
    ("analyses/experts_rate.py",),
    ("analyses/low_data.py",),
    ("-m", "analyses.collect"),
    ("-m", "figures"),
)


def run(steps: tuple[tuple[str, ...], ...] = STEPS) -> list[str]:
    """Run every analysis in its short form; returns those that failed. Each resumes by itself."""
    failed = []
    for step in steps:
        print(f"\n== python {' '.join(step)}", flush=True)
        if subprocess.run([sys.executable, *step], cwd=ROOT).returncode:
            failed.append(" ".join(step))
    return failed


def main() -> None:
    """Run and write, or only write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write paper_repro.md, run nothing")
    failed = [] if parser.parse_args().write else run()
    PAGE.write_text(page(Results(RESULTS)), encoding="utf-8")
    print(f"{PAGE}")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
