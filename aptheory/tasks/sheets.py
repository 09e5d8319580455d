"""Contact sheets: what the pictures of each class look like, as the task reads them."""

import re
from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.base import Task
from aptheory.tasks.pictures import with_channels

SIDE = 96  # pixels of a picture on the sheet
COLUMNS, ROWS = 8, 3


def write_sheets(task: Task, folder: str | Path) -> list[Path]:
    """A PNG for each class in ``folder``, with up to 24 of its training pictures in their order;
    what cannot be read stays grey. Returns the files."""
    from PIL import Image

    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        files = []
        for label, name in enumerate(task.classes):
            rows = np.flatnonzero(task.train.labels == label)[: COLUMNS * ROWS]
            down = max(1, -(-len(rows) // COLUMNS))
            sheet = np.full((down * SIDE, COLUMNS * SIDE, 3), 128, dtype=np.uint8)
            for number, row in enumerate(rows.tolist()):
                top, left = divmod(number, COLUMNS)
                cell = _cell(task, row)
                if cell is not None:
                    sheet[top * SIDE : (top + 1) * SIDE, left * SIDE : (left + 1) * SIDE] = cell
            plain = re.sub(r"[^\w.-]+", "_", name)[:60]
            files.append(place / f"{label:03d}_{plain}.png")
            Image.fromarray(sheet).save(files[-1])
    except OSError as error:
        raise InputError(
            f"{place} cannot be written ({error.strerror or error}); check the disk, or name "
            "another folder."
        ) from error
    return files


def _cell(task: Task, row: int) -> np.ndarray | None:
    try:
        images = task.train.images([row], (SIDE, SIDE))
        if images.shape[1] > 3:  # bands: the first three are shown
            images = images[:, :3]
        return with_channels(images, 3, "a sheet")[0].permute(1, 2, 0).numpy()
    except InputError:
        return None
