"""Where encoded pictures lie: the files below a folder, the members of a zip. Bytes by name."""

import os
import threading
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from aptheory.checked import require_file
from aptheory.errors import InputError
from aptheory.tasks.pictures import MAX_BYTES

#: Folders and files that machines leave behind; whatever begins with a dot is one of them too.
SYSTEM = {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"} | {
    "__pycache__",
    "Thumbs.db",
    "desktop.ini",
}
LONGEST_KEY = 4096  # of a path, as of most systems
RATIO = 100  # of a compressed member's size to its bytes; pictures stay far below


@runtime_checkable
class Store(Protocol):
    """Bytes by name. ``place`` says in messages where they are."""

    place: str

    def names(self) -> list[str]: ...

    def read(self, key: str) -> bytes: ...

    def stamp(self, keys: Sequence[str]) -> str:
        """Changes when the bytes of one of ``keys`` may have changed (sizes and times), or "" if
        that cannot be told without reading them."""
        ...


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a machine's own."""
    return name.startswith((".", "__MACOSX")) or name in SYSTEM


class FolderStore:
    """The files below a folder; a key is a path relative to it, with forward slashes.

    Links are followed, but never into a folder that they lie in, and into each folder once.
    ``left_out`` counts what `names` passed over.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()  # the working directory may change before it is read
        self.place = str(root)
        self.left_out: Counter[str] = Counter()
        self.folders: list[str] = []  # those that are read, "path/"
        self._twice: dict[str, tuple[int, int]] = {}  # folders that are reached by a link

    def names(self) -> list[str]:
        self.left_out.clear()
        self._twice.clear()
        self.folders.clear()
        names: list[str] = []
        for inside, files in self._folders():
            self.folders.append(inside)
            names += [f"{inside}{name}" for name in files]
        return sorted(names)

    def _folders(self) -> Iterator[tuple[str, list[str]]]:
        """("" or "path/", names of files) of every folder, each link followed once."""
        start = _identity(self.root)
        stack: list[tuple[str, tuple[tuple[int, int], ...], bool]] = [("", (start,), False)]
        through_links: set[tuple[int, int]] = set()
        while stack:
            inside, chain, linked = stack.pop()
            files = []
            for entry in _entries(self.root / inside):
                if is_system(entry.name):
                    kind = "folder" if _is_folder(entry) else "file"
                    self.left_out[f"hidden or system {kind} {entry.name}"] += 1
                elif _is_folder(entry):
                    identity = _identity(Path(entry.path))
                    by_link = linked or entry.is_symlink()
                    if identity in chain or (by_link and identity in through_links):
                        self.left_out["link into a folder that is read already"] += 1
                        continue
                    if by_link:
                        through_links.add(identity)
                        self._twice[f"{inside}{entry.name}/"] = identity
                    stack.append((f"{inside}{entry.name}/", (*chain, identity), by_link))
                elif _is_file(entry):
                    files.append(entry.name)
                else:
                    kind = "link that leads nowhere" if entry.is_symlink() else "pipe or device"
                    self.left_out[kind] += 1
            yield inside, files

    def once(self, keys: Sequence[str]) -> list[str]:
        """``keys`` without those files that a link shows a second time (they are counted)."""
        if not self._twice:
            return list(keys)
        identities = dict(self._twice)
        taken: dict[tuple[Any, str], str] = {}
        for key in sorted(keys, key=lambda key: (_folder(key) in self._twice, key)):
            folder, name = _folder(key), key.rpartition("/")[2]
            if folder not in identities:
                identities[folder] = _identity(self.root / folder)
            taken.setdefault((identities[folder], name), key)
        if len(taken) < len(keys):
            self.left_out["file that a link shows a second time"] += len(keys) - len(taken)
        kept = set(taken.values())
        return [key for key in keys if key in kept]

    def read(self, key: str) -> bytes:
        return self._read(key, MAX_BYTES)

    def head(self, key: str) -> bytes:
        """The first bytes of a file."""
        return self._read(key, MAX_BYTES, first=32)

    def _read(self, key: str, limit: int, first: int = -1) -> bytes:
        path = self.root / key
        require_file(path)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > limit:
                    raise InputError(
                        f"{path} has more than {limit >> 20} MB; take it out, or save it smaller."
                    )
                return file.read(first)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = getattr(error, "strerror", None) or error
            gone = isinstance(error, FileNotFoundError)
            advice = "put it back" if gone else "check the file and the disk"
            raise InputError(f"{path} cannot be read ({reason}); {advice}.") from error

    def glimpses(self, keys: Iterable[str]) -> list[Hashable]:
        """(bytes, the last of them) of each file: unequal for unequal contents, nearly always."""
        root = os.path.join(self.root, "")  # which an absolute key does without
        seen: list[Hashable] = []
        for key in keys:
            try:
                path = key if key.startswith("/") else root + key
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:  # whoever reads the picture is told
                seen.append(("unreadable", key))
                continue
            size = os.lseek(descriptor, 0, os.SEEK_END)
            seen.append(b"%d " % size + os.pread(descriptor, 24, max(0, size - 24)))
            os.close(descriptor)
        return seen

    def stamp(self, keys: Sequence[str]) -> str:
        files = (f"{key} {file_stamp(self.root / key)}" for key in keys)
        return "\n".join([f"{self.root}", *files])


class ZipStore:
    """The members of a zip file. Each thread and each process opens it for itself."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.place = str(path)
        self.left_out: Counter[str] = Counter()
        self.folders: list[str] = []
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_local": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _open(self) -> zipfile.ZipFile:
        if not hasattr(self._local, "archive"):
            require_file(self.path)
            try:
                self._local.archive = _with_slashes(zipfile.ZipFile(self.path))
            except Exception as error:  # a damaged directory may raise anything
                raise InputError(
                    f"{self.path} cannot be read as a zip file ({error}); fetch it again."
                ) from error
        return self._local.archive

    def names(self) -> list[str]:
        self.left_out.clear()
        names = set()
        self.folders = []
        for info in self._open().infolist():
            if ".." in info.filename.split("/"):
                self.left_out["file whose path leads out of the zip file"] += 1
                continue
            system = next(filter(is_system, info.filename.split("/")), None)
            if info.is_dir():
                if system is None:
                    self.folders.append(info.filename)
            elif system is not None:
                self.left_out[f"file in or called {system}"] += 1
            elif info.filename in names:
                raise InputError(
                    f"{self.path} holds {info.filename} twice; make the zip file again."
                )
            else:
                names.add(info.filename)
        return sorted(names)

    def once(self, keys: Sequence[str]) -> list[str]:
        """A zip file has no links."""
        return list(keys)

    def read(self, key: str) -> bytes:
        try:
            archive = self._open()
            info = archive.getinfo(key)
            large = info.file_size > MAX_BYTES
            if large or info.file_size > max(1 << 24, RATIO * info.compress_size):
                raise InputError(
                    f"{self.path}: {key} would grow to {info.file_size / 1e6:.0f} MB; take it out."
                )
            return archive.read(info)
        except InputError:
            raise
        except Exception as error:  # also zlib's, struct's and lzma's errors
            reason = str(error) or type(error).__name__
            raise InputError(
                f"{self.path}: {key} cannot be read ({reason}); fetch the file again."
            ) from error

    def head(self, key: str) -> bytes:
        """The first bytes of a member."""
        return self.read(key)[:32]

    def glimpses(self, keys: Iterable[str]) -> list[Hashable]:
        """(bytes, stored checksum) of each member."""
        archive = self._open()
        return [(info.file_size, info.CRC) for info in map(archive.getinfo, keys)]

    def stamp(self, keys: Sequence[str]) -> str:
        return "\n".join([f"{self.path.resolve()} {file_stamp(self.path)}", *keys])


def _with_slashes(archive: zipfile.ZipFile) -> zipfile.ZipFile:
    """The archive, its members' names with forward slashes: some of Windows' tools write others."""
    for info in archive.infolist():
        if "\\" in info.filename and "/" not in info.filename:
            plain = info.filename.replace("\\", "/")
            archive.NameToInfo[plain] = archive.NameToInfo.pop(info.filename, info)
            info.filename = plain
    return archive


def file_stamp(path: Path) -> str:
    """Size, times of change (contents, and anything at all) and number of a file."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it back.") from error
    # The second time cannot be set back by whoever edits the file.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def listed_path(folder: Path, key: str, where: str, *, below: str = "") -> str:
    """``key`` of a list, counted from ``below``, as it is on disk below ``folder``; `InputError`
    for a path that leads out of it, and for one that is not there."""
    if os.path.isabs(key) or ".." in key.replace("\\", "/").split("/"):
        raise InputError(
            f"{where} lists {key}, which leads out of {folder}; write the path relative to it."
        )
    return found_spelling(folder, below + key, where)


def found_spelling(folder: Path, key: str, where: str) -> str:
    """``key`` as it is on disk: names may be composed or not (NFC, NFD)."""
    for spelled in (key, unicodedata.normalize("NFC", key), unicodedata.normalize("NFD", key)):
        if "\0" not in spelled and os.path.isfile(folder / spelled):
            return spelled
    if len(key) > LONGEST_KEY:
        raise InputError(
            f"{where} lists a path of {len(key):,} letters ({key[:40]}...); write one that a file "
            "can have."
        )
    if "\0" not in key and os.path.exists(folder / key):
        raise InputError(f"{where} lists {key}, which is no file; name a picture.")
    raise InputError(
        f"{where} lists {key}, which is not there (in {folder}); put the picture there."
    )


def refuse_pipes(folder: Path) -> None:
    """Refuse a folder that holds a pipe or a device, for a library that opens what lies there."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            refuse_pipes(Path(entry.path))
        elif not _is_file(entry) and not _is_folder(entry):
            require_file(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror}); check its permissions."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _folder(key: str) -> str:
    head, slash, _ = key.rpartition("/")
    return head + slash
