"""What comes from outside, looked at before it is believed: JSON, TOML, names of code and files.

Size and depth are bounded before anything walks through a value, so that a hostile file costs a
sentence. Code is imported for ``module:name`` alone, and only where a user says so: on the command
line, in a study file, in Python. What a *data* file names is never imported.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
import sys
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

from aptheory.errors import InputError, reason_of

MOST_BYTES = 64 * 2**20
"""Of a text that is read whole."""
MOST_HEADER = 8 * 2**20
"""Of a safetensors file, in bytes: some eighty thousand tensors."""
DEEPEST = 64
"""Lists and tables within one another."""
LARGEST_INTEGER = 10**300
"""In size, of a whole number in a file: larger ones turn into no float."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


# ------------------------------------------------------------------------------------ values


def read_text(path: str | Path, *, most: int = MOST_BYTES, errors: str = "strict") -> str:
    """The text of a file of at most ``most`` bytes; ``errors`` as `bytes.decode` has it.

    Raises:
        FileNotFoundError: there is none; what that means is the caller's to say.
        InputError: it cannot be read, is too large, or is no UTF-8.
    """
    path = Path(path)
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{path} is a folder; give a file.")
        if stat.S_ISFIFO(kind) and not str(path).startswith(("/dev/fd/", "/dev/stdin", "/proc/")):
            raise InputError(f"{path} is a pipe, which may wait for ever; give a file.")
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except (FileNotFoundError, InputError):
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); check the file.") from None
    if len(data) > most:
        raise InputError(f"{path} is larger than {most / 1e6:.0f} MB; it is not what it should be.")
    try:
        return data.decode("utf-8-sig", errors)  # Windows puts a mark before the text
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text (UTF-8); write it again.") from None


def require_file(path: str | Path) -> None:
    """Refuse to open what is no file: a folder, a pipe, which waits for a writer, a device, which
    has no end. Where there is nothing at all, whoever opens it says so.

    Raises:
        InputError: it is none.
    """
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
        raise InputError(f"{path} is no file but {what}; put the file there.")


def check_tensor_header(path: str | Path) -> None:
    """Refuse a safetensors file whose header is larger than that of any network: it is parsed as a
    whole, and a million empty tensors take gigabytes.

    Raises:
        InputError: it is; what else is wrong with the file is left to its reader.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if MOST_HEADER < size < os.path.getsize(path):
        raise InputError(
            f"{path} has a header of {size / 1e6:.0f} MB, for {MOST_HEADER / 1e6:.0f} at most; it "
            "is not a file of weights."
        )


def json_value(text: str, *, name: str, finite: bool = True) -> Any:
    """What a JSON text says; ``name`` is where it comes from, for messages.

    Raises:
        InputError: not JSON, not ``finite`` where it must be, nested deeper than `DEEPEST`, or a
            whole number beyond `LARGEST_INTEGER`.
    """
    try:
        value = json.loads(text, parse_constant=_no_number if finite else float)
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{name} is not JSON ({_reason(error)}); write it again.") from None
    bounded(value, name, finite=finite)
    if "\\ud" in text.lower():  # the escape of half a character, unless the other half follows
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{name} holds half a character, which no text can hold; write it again."
            ) from None
    return value


def json_text(value: Any, **options: Any) -> str:
    """What `json.dumps` makes of a value, so that `json_value` takes it: names of files that are no
    UTF-8, in a path or a command, are spelt out."""
    text = json.dumps(value, **options)
    if "\\ud" not in text:  # the escape of half a character, or of a whole one beyond 16 bits
        return text
    return json.dumps(_spelt_out(json.loads(text)), **options)


def _spelt_out(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {spelt(key): _spelt_out(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelt_out(item) for item in value]
    return spelt(value) if isinstance(value, str) else value


def json_table(text: str, *, name: str, finite: bool = True) -> dict[str, Any]:
    """The same where it must be a table (a JSON object)."""
    value = json_value(text, name=name, finite=finite)
    if not isinstance(value, dict):
        raise InputError(f"{name} holds a {type(value).__name__}, not a table; write it again.")
    return value


def toml_table(text: str, *, name: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        InputError: not TOML, nested deeper than `DEEPEST`, or a whole number beyond
            `LARGEST_INTEGER`.
    """
    try:
        value = tomllib.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{name} is not valid TOML: {_reason(error)}.") from None
    bounded(value, name, finite=False)
    return value


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 4, 160, 160


def shown(value: Any) -> str:
    """A value as a message may show it, on one line, however deep or long it is."""
    return " ".join(_SHORT.repr(value).split())


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply"
    if "set_int_max_str_digits" in str(error):
        return "it holds a number of thousands of digits"
    return str(error).rstrip(".") or type(error).__name__


def bounded(value: Any, name: str, *, finite: bool = True) -> Any:
    """``value``, held to `DEEPEST` levels and to numbers that are finite as floats, too."""
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, int) and abs(item) > LARGEST_INTEGER:
                raise InputError(
                    f"{name} holds a whole number of more than 300 digits; write it again."
                )
            elif finite and isinstance(item, float) and math.isinf(item):  # "1e999" is JSON
                raise InputError(f"{name} holds a number beyond all bounds; write it again.")
        if not below:
            return value
        level = below
    raise InputError(f"{name} is nested more than {DEEPEST} levels deep; write it again.")


# -------------------------------------------------------------------------------------- code


def imported(factory: str, *, beside: Sequence[str | Path] = ()) -> Any:
    """The object that ``"module:name"`` names.

    Modules that Python finds anyway come first, then those in the folders ``beside``, then those
    in the working directory. Importing a module runs it.

    Raises:
        InputError: another form, no such module or name, or a module that fails.
    """
    if not _FACTORY.fullmatch(factory):
        raise InputError(f"{factory!r} names no code; expected 'module:name'.")
    module, _, name = factory.partition(":")
    try:
        with importable(*beside):
            found = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module of the user's may raise
        place = getattr(sys.modules.get(module), "__file__", None)
        where = f" from {place}" if place else ""
        reason = reason_of(error, kind=True)
        raise InputError(
            f"{factory!r} cannot be imported{where} ({reason}); check the module's name, and that "
            "it lies in the working directory or beside the study."
        ) from error
    return found


@contextmanager
def importable(*folders: str | Path) -> Iterator[None]:
    """Look for modules in ``folders`` and the working directory too, after everywhere else."""
    before = list(sys.path)
    places = [os.path.abspath(folder) for folder in (*folders, os.getcwd())]
    sys.path += [place for place in dict.fromkeys(places) if place not in before]
    invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


# ------------------------------------------------------------------------------------- names


def expanded(path: str | Path) -> Path:
    """A path with its ~ replaced; of a user who is not known it stays as it is.

    Raises:
        InputError: no file of this system can have that name.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{str(path)!a} has letters that names of files cannot have in the encoding of this "
            f"system ({error.encoding}); set PYTHONUTF8=1, or LC_ALL=C.UTF-8, and run it again."
        ) from None
    return Path(os.path.expanduser(path))


def spelt(name: str) -> str:
    """A name as text that can be written anywhere: bytes of a file's name that are no UTF-8 are
    spelt out, ``\\xff``."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which no file's name holds
        return name.encode("utf-8", "backslashreplace").decode()


_LONGEST_STEM = 160


def safe_stem(*parts: object) -> str:
    """A file's name without its suffix, made from names that may hold anything.

    Letters and digits of every script, ``-`` and ``_`` stay; a dot between them stays too, so
    ``resnet50.a1_in1k`` keeps its tag: add a suffix to the name, do not replace one. What is
    changed or cut is told apart by eight digits of a hash, so different names give different
    stems.
    """
    import hashlib

    name = unicodedata.normalize("NFC", "-".join(str(part) for part in parts))
    stem = re.sub(r"[^\w.-]", "_", name)
    stem = re.sub(r"\.(?=\.|$)|^\.", "_", stem)
    while len(stem.encode()) > _LONGEST_STEM:
        stem = stem[:-1]
    told_apart = not any("-" in str(part) for part in parts[:-1])  # a-b, c is not a, b-c
    if stem == name and stem.isascii() and stem and told_apart:
        return stem
    stem = stem.rstrip(".")
    return f"{stem or '_'}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def safe_cell(value: Any) -> Any:
    """A table's cell that no spreadsheet reads as a formula: text that begins one gets a quote."""
    return "'" + value if isinstance(value, str) and _FORMULA.match(value) else value


def plain_cell(value: Any) -> Any:
    """What `safe_cell` was given."""
    return value[1:] if isinstance(value, str) and _FORMULA.match(value[1:]) else value
