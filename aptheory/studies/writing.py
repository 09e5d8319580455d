"""A study as the text of a study file, so that what a command line said can be kept and given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from aptheory.checked import spelt
from aptheory.errors import InputError
from aptheory.studies import entries
from aptheory.studies.runtime import Runtime
from aptheory.studies.study import Study

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def study_text(study: Study) -> str:
    """The study file (TOML) that `Study.from_toml` reads back; file names are made absolute.

    Raises:
        InputError: the study holds networks or tasks that are objects of Python.
    """
    folder = Path(study.base or ".").absolute()
    default = {f.name: f.default for f in fields(Study)}
    values: dict[str, Any] = {"name": study.name}
    for word in ("networks", "tasks"):
        named = [_named(entry, word) for entry in getattr(study, word)]
        values[word] = [entries.rebased(entry, word, folder) for entry in named]
    for word in ("methods", "recipes"):
        values[word] = [e.settings() if hasattr(e, "settings") else e for e in getattr(study, word)]
    values["layers"] = study.layers
    values["seeds"] = study.seeds
    values["search"] = dict(study.search)
    for word in ("protocol", "search_seed", "controls", "equal"):
        values[word] = getattr(study, word)
    values = {word: value for word, value in values.items() if value != default.get(word)}
    common = asdict(Runtime())
    values |= {w: v for w, v in asdict(study.runtime).items() if v != common[w]}
    lines = [
        f"{word} = {_toml(value)}" for word, value in values.items() if value not in (None, {})
    ]
    return "\n".join(lines) + "\n"


def _named(entry: Any, word: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise InputError(
            f"the study has {word} that are objects of Python; a study file can only name them."
        )
    return {key: value for key, value in entry.items() if value is not None}


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = [f"{_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    if isinstance(value, list | tuple | range):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str | Path):
        if spelt(str(value)) != str(value):
            raise InputError(
                f"{spelt(str(value))} is no text (UTF-8), and a study file is one; rename what "
                "it names, or leave the study's file out."
            )
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _key(word: str) -> str:
    return word if _BARE.fullmatch(word) else json.dumps(word)
