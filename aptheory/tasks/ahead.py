"""Work that is done in a thread before it is asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


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
