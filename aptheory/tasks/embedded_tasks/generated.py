"""The generated tasks' common part: 800 training, 200 validation and 1,000 test pictures, 32×32.

Each split is drawn from a random stream of its own, so that no picture can be in two of them.
"""

from collections.abc import Callable

import numpy as np

from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.embedded_tasks.drawing import Picture, draw_split
from aptheory.tasks.views import ArraySplit

SIZES = {"train": 800, "val": 200, "test": 1000}

Draw = Callable[[np.random.Generator, np.ndarray], Picture]


def generated_task(
    name: str,
    classes: tuple[str, ...],
    group: str,
    draw: Draw,
    seed: int,
    *,
    grain: float = 0.02,
) -> Task:
    """The task that ``draw`` paints: it takes a generator and labels (count,) and gives pictures
    (count, 32, 32, 3) in [0, 1]. Another ``seed`` is another draw of every picture."""
    stream = int.from_bytes(name.encode(), "little")  # no two tasks share a random stream
    made = {}
    for number, split in enumerate(SPLITS):
        pixels, labels = draw_split(
            draw, len(classes), SIZES[split], (seed, stream, number), grain=grain
        )
        made[split] = ArraySplit(pixels, labels)
    return Task(
        name=name,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing=f"drawn at 32x32 with grain {grain:g}; {SQUASHED}",
        provenance=f"generated, seed {seed}",
    )
