"""Decoding that does not hold up the network: ahead of time in a thread, or once and for all."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.cache import cache_folder

if TYPE_CHECKING:
    from aptheory.tasks.base import ArraySplit, Split, Task

BATCH = 64


def ahead_of(
    work: Callable[[Any], Any], parts: Iterable[Any], *, ahead: int
) -> Iterator[tuple[Any, Any]]:
    """``(part, work(part))`` in order, with the next ``ahead`` parts worked on in a thread."""
    if ahead < 1:
        for part in parts:
            yield part, work(part)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="aptheory-decode")
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for part in parts:
            waiting.append((part, pool.submit(work, part)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:  # also when the consumer stops in the middle
        pool.shutdown(wait=True, cancel_futures=True)


def decoded(
    split: "Split",
    size: tuple[int, int],
    *,
    folder: str | Path | None = None,
    progress: bool = True,
) -> "ArraySplit":
    """The split with every image decoded and resized once, into a memory-mapped uint8 file.

    ``size`` is (height, width). The file, (n, height, width, 3), is called after the split's
    digest and the size, and is used again by every later call; it lies in ``folder`` (the cache
    folder's ``decoded`` by default), n * height * width * 3 bytes long. Images asked for in this
    size are the very ones that the split itself gives. Raises :class:`InputError` if the folder
    cannot be written to or is full, and for an image that cannot be decoded: then nothing is left.
    """
    from tqdm import tqdm

    from aptheory.tasks.base import ArraySplit

    place = Path(folder) if folder is not None else cache_folder() / "decoded"
    shape = (len(split), *size, 3)
    identity = hashlib.sha256(f"{split.digest} {shape}".encode()).hexdigest()[:32]
    file = place / f"{identity}.npy"
    if not file.exists():
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            place.mkdir(parents=True, exist_ok=True)
            # Ordinary writes, not a writable map: on a full disk a map kills the process.
            with unfinished.open("wb") as out:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(out, header)
                parts = [range(s, min(s + BATCH, len(split))) for s in range(0, len(split), BATCH)]
                made = ahead_of(lambda part: split.images(part, size), parts, ahead=2)
                for _, images in tqdm(
                    made, total=len(parts), desc="decoding", disable=not progress, leave=False
                ):
                    out.write(images.permute(0, 2, 3, 1).contiguous().numpy().data)
                out.flush()
                os.fsync(out.fileno())
            unfinished.replace(file)
        except OSError as error:
            raise InputError(
                f"{file} cannot be written ({error.strerror or error}); it needs "
                f"{np.prod(shape) / 1e6:.0f} MB: free some space or name another folder"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
    return ArraySplit(_opened(file, shape), split.labels)


def decoded_task(
    task: "Task", size: tuple[int, int], *, folder: str | Path | None = None, progress: bool = True
) -> "Task":
    """The task with its three splits decoded once (see :func:`decoded`). Pictures are the same,
    but the digest is that of the decoded pixels."""
    made = {
        name: decoded(getattr(task, name), size, folder=folder, progress=progress)
        for name in ("train", "val", "test")
    }
    note = f"{task.preprocessing}; decoded once at {size[0]}x{size[1]}"
    return replace(
        task, train=made["train"], val=made["val"], test=made["test"], preprocessing=note
    )


def _opened(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise InputError(f"{file} has shape {pixels.shape}, expected {shape}; delete it")
    return pixels
