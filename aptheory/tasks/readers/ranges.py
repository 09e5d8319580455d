"""The range of values that the deep pictures of a set share."""

import itertools
import json
import threading
from collections.abc import Sequence
from typing import Any

from aptheory.errors import InputError
from aptheory.tasks import pictures
from aptheory.tasks.cache import remember, remembered
from aptheory.tasks.pictures import Scale
from aptheory.tasks.readers.stores import Store
from aptheory.tasks.readers.suffixes import suffix_of

NEVER_DEEP = (".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")


def may_be_deep(key: str) -> bool:
    """Whether a picture of this name may have more than 8 bits a value, if the name is right."""
    return suffix_of(key) not in NEVER_DEEP


class SetRange:
    """Calling it gives the `Scale` of a set. All its pictures are read for that, once, and only
    when one of more than 8 bits turns up."""

    def __init__(self, store: Store, keys: Sequence[Sequence[str]]) -> None:
        self.store = store
        self.keys = keys
        self.scale: Scale | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __call__(self) -> Scale:
        with self._lock:
            if self.scale is None:
                self.scale = self._remembered()
            return self.scale

    @property
    def known(self) -> bool:
        """Whether it was asked for, as whoever reads a deep picture does."""
        return self.scale is not None

    def _remembered(self) -> Scale:
        stamp = self.store.stamp([key for keys in self.keys for key in keys])
        try:
            low, high, whole = json.loads(remembered("ranges", stamp) or "")
            return Scale(float(low), float(high), bool(whole))
        except (ValueError, TypeError):
            scale = self._measure()
            remember("ranges", stamp, json.dumps([scale.low, scale.high, scale.whole]))
            return scale

    def _measure(self) -> Scale:
        low, high, whole = float("inf"), float("-inf"), True
        for key in itertools.chain(*self.keys):
            values = self._values(key)
            if values is not None and values.size:
                least, greatest, integers = pictures.range_of(values)
                low, high, whole = min(low, least), max(high, greatest), whole and integers
        if low > high:  # every one of them is damaged: whoever reads one is told its name
            return Scale.of(0, 255, True)
        return Scale.of(low, high, whole)

    def _values(self, key: str) -> Any:
        try:
            data = self.store.read(key)
            with pictures.opened(data) as image:
                return (
                    pictures.deep_values(image, data) if pictures.bits_of(image, data) > 8 else None
                )
        except InputError:
            raise
        except Exception:  # a damaged picture; whoever reads it is told its name
            return None
