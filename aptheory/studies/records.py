"""A run's identity, its key, and the checked record of what came out.

A run is known by its *identity*, the values that decide its result; its key is their hash. A record
holds the identity, what came out, and a checksum over both, so a truncated, edited or renamed file
is noticed when it is read and treated as absent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptheory.checked import json_text, json_value, shown
from aptheory.errors import InputError
from aptheory.training.outcome import is_packed

FORMAT = 1
_KINDS: dict[str, Any] = {
    "key": str,
    "identity": dict,
    "status": str,
    "outcome": dict,
    "made_by": dict,
    "reason": str | None,
}


class DamagedError(ValueError):
    """An outcome file that must not be believed; the message says which and why."""


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, non-finite numbers as ``null``."""
    return json_text(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(identity: Any) -> str:
    """The 32 hexadecimal digits that name an identity: SHA-256 of its canonical text, cut."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:32]


_ALREADY_PLAIN = {str, int, bool, type(None)}


def plain(value: Any) -> Any:
    """``value`` with tuples, numpy scalars and paths turned into what JSON can say."""
    if isinstance(value, Mapping):
        return {
            str(key): item if type(item) in _ALREADY_PLAIN else plain(item)
            for key, item in value.items()
        }
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return plain(value.tolist())
    if isinstance(value, Sequence):
        return [item if type(item) in _ALREADY_PLAIN else plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} cannot be written into an outcome file")


@dataclass(frozen=True)
class Record:
    """One run's file, checked: ``status`` is ``"done"`` or ``"failed"`` (then ``reason`` says why).

    ``outcome`` is what was measured and ``made_by`` what made it (versions, device, times): only
    the first goes into tables that must be the same every time.
    """

    key: str
    identity: dict[str, Any]
    status: str
    outcome: dict[str, Any]
    made_by: dict[str, Any]
    reason: str | None = None

    def text(self) -> str:
        body = plain(
            {
                "format": FORMAT,
                "key": self.key,
                "identity": self.identity,
                "status": self.status,
                "reason": self.reason,
                "outcome": self.outcome,
                "made_by": self.made_by,
            }
        )
        body["checksum"] = checksum(body)
        return json_text(body, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, *, name: str) -> Record:
        """Read and check a record; ``name`` is its file, for messages.

        Raises:
            DamagedError: not JSON, a wrong checksum, or an identity that is not the key's.
        """
        try:
            body = json_value(text, name=name)
        except InputError as error:
            raise DamagedError(str(error).removesuffix("; write it again.")) from None
        if not isinstance(body, dict) or "checksum" not in body:
            raise DamagedError(f"{name} is not an outcome file: it has no checksum")
        if body.get("format") != FORMAT:
            raise DamagedError(f"{name} has format {body.get('format')!r}, expected {FORMAT}")
        fingerprint = hashlib.sha256(text.encode()).digest()
        if fingerprint not in _BELIEVED:  # the plan, the sweep and the page read the same files
            _check(body, name)
            _BELIEVED.add(fingerprint)
        return cls(**{field: body[field] for field in _KINDS})


_BELIEVED: set[bytes] = set()
"""SHA-256 of the texts that this process has checked."""


def _check(body: Mapping[str, Any], name: str) -> None:
    content = {field: value for field, value in body.items() if field != "checksum"}
    if body["checksum"] != checksum(content):
        raise DamagedError(f"{name} was changed after it was written: its checksum differs")
    if body.get("key") != key_of(body.get("identity")):
        raise DamagedError(f"{name} holds a key that is not the hash of its identity")
    for field, kind in _KINDS.items():
        if field not in body or not isinstance(body[field], kind):
            raise DamagedError(f"{name} holds no {field} as an outcome has it")
    odd = _odd_number(body["outcome"], body["made_by"])
    if odd:
        raise DamagedError(f"{name} holds {odd}")
    correct = body["outcome"].get("correct")
    if correct is not None and not is_packed(correct):
        raise DamagedError(f"{name} does not say which test pictures its run knew")


_SHARES = ("train_accuracy", "val_accuracy", "test_accuracy")
_AMOUNTS = ("train_loss", "val_loss", "test_loss", "prompt_norm", "lr", "weight_decay")
_COSTS = ("seconds", "batch_seconds", "peak_memory")


def _odd_number(outcome: Mapping[str, Any], made_by: Mapping[str, Any]) -> str:
    """What a number is that no run ends with, or nothing. None stands for what was not measured."""
    for values, names, most in (
        (outcome, _SHARES, 1.0),
        (outcome, _AMOUNTS, math.inf),
        (made_by, _COSTS, math.inf),
    ):
        for name in names:
            value = values.get(name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 <= value <= most):
                wanted = f"a number of 0 to {most:g}" if most == 1 else "a number of at least 0"
                return f"{name} {shown(value)}, which is not {wanted}"
    return ""


def checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def machine_failed(record: Record) -> bool:
    """Whether a run failed by a fault of the machine, which the next sweep tries again."""
    return record.status != "done" and record.made_by.get("fault") == "machine"
