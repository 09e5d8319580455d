"""What `benchmarks.fuzz` harms: every reader, checkpoint, study, outcome, prompt, rule and report.

A target is made once in a folder of its own; each case draws one harmed input and reads it.
"""

from benchmarks.fuzz_targets import (  # noqa: F401 - each registers its targets
    data,
    outputs,
    settings,
    studies,
    weights,
)
from benchmarks.fuzz_targets.registry import TARGETS

__all__ = ["TARGETS"]
