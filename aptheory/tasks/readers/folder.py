"""``folder:PATH``: one folder a split, one folder a class; or a zip of the same.

PATH/{train,val,test}/CLASS/*.jpg     val may be absent: then it is cut from train
PATH/CLASS/*.jpg                      then all three are cut, 60 / 20 / 20
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import Task
from aptheory.tasks.published_splits import hold_out
from aptheory.tasks.readers.files import SUFFIXES, FileSplit, FolderStore, Store, ZipStore
from aptheory.tasks.readers.npz import require_every_class
from aptheory.tasks.splits import stratified_cut

ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
LAYOUT = "PATH/SPLIT/CLASS/*.jpg with SPLIT train, val, test, or PATH/CLASS/*.jpg"

Files = list[tuple[str, str]]  # (class name, key)


def folder_task(
    path: str | Path, *, name: str | None = None, group: str = "user", seed: int = 0
) -> Task:
    """The task in a folder or zip of images. Classes are the sorted folder names.

    What is not given as a split is cut by ``seed``, each class in the same proportion, and the
    task's ``provenance`` says so. Raises `InputError` naming the place if it is not there,
    holds no image, or a class has no image in a split. A corrupt image is named when it is read.
    """
    path = Path(path)
    store = open_store(path)
    splits = find_splits(store)
    classes = tuple(sorted({label for files in splits.values() for label, _ in files}))
    if len(classes) < 2:
        raise InputError(
            f"{path} holds one class only ({classes[0]!r}); expected two or more, as {LAYOUT}"
        )
    index = {label: number for number, label in enumerate(classes)}

    def labels_of(files: Files) -> np.ndarray:
        return np.array([index[label] for label, _ in files], dtype=np.int64)

    for split, files in splits.items():
        require_every_class(labels_of(files), classes, f"{path}: the {split} split")
    splits, provenance = complete(splits, labels_of, seed, str(path), name or path.stem)
    made = {
        split: FileSplit(store, [key for _, key in files], labels_of(files))
        for split, files in splits.items()
    }
    return Task(
        name=name or path.stem,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing=f"{encodings(splits)}; {SQUASHED}",
        provenance=provenance,
    )


def open_store(path: Path) -> Store:
    """The folder or zip file at ``path``."""
    if path.is_dir():
        return FolderStore(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return ZipStore(path)
    if path.exists():
        raise InputError(f"{path} is neither a folder nor a zip file; expected {LAYOUT}")
    raise InputError(f"{path} does not exist; expected {LAYOUT}")


def find_splits(store: Store) -> dict[str, Files]:
    """``{split: [(class, key), ...]}``; the one split is "" where the top folders are classes."""
    keys = [key for key in store.names() if key.lower().endswith(SUFFIXES)]
    if not keys:
        raise InputError(f"{store.place} holds no image; expected {LAYOUT}")
    parts = {key: key.split("/") for key in keys}
    # A lone folder around everything, as archives often have, is not a class.
    tops = {p[0] for p in parts.values()}
    while len(tops) == 1 and not tops & set(ALIASES) and all(len(p) > 2 for p in parts.values()):
        parts = {key: p[1:] for key, p in parts.items()}
        tops = {p[0] for p in parts.values()}
    if "train" in {ALIASES.get(top.lower()) for top in tops}:
        depth = 1
        parts = {key: p for key, p in parts.items() if p[0].lower() in ALIASES}
    else:
        depth = 0
    splits: dict[str, Files] = defaultdict(list)
    for key, p in parts.items():
        if len(p) < depth + 2:
            raise InputError(f"{store.place}: {key} lies in no class folder; expected {LAYOUT}")
        splits[ALIASES[p[0].lower()] if depth else ""].append((p[depth], key))
    return dict(splits)


def encodings(splits: dict[str, Files]) -> str:
    """ "12 .jpg and 3 .png files": a re-encoded copy of a data set is another data set."""
    suffixes = Counter(
        "." + key.rpartition(".")[2].lower() for files in splits.values() for _, key in files
    )
    return " and ".join(f"{number} {suffix}" for suffix, number in sorted(suffixes.items())) + (
        " files"
    )


def complete(
    splits: dict[str, Files],
    labels_of: Callable[[Files], np.ndarray],
    seed: int,
    where: str,
    name: str = "",
) -> tuple[dict[str, Files], str]:
    """All three splits, cutting what is absent, and the sentence that says what was done."""
    if "" in splits:
        everything = splits[""]
        cut = stratified_cut(labels_of(everything), (0.6, 0.2, 0.2), seed=seed, where=where)
        made = {
            split: [everything[i] for i in chosen]
            for split, chosen in zip(("train", "val", "test"), cut, strict=True)
        }
        return made, f"no split folders; cut 60/20/20 class by class, seed {seed}"
    note = "train, validation and test folders as given"
    if "test" not in splits:
        if "val" not in splits:
            raise InputError(f"{where} has a train folder but no test folder; expected {LAYOUT}")
        # With two folders the second is what results are reported on, whatever it is called.
        splits = {"train": splits["train"], "test": splits["val"]}
        note = "train folder as given, val folder used as test"
    elif "val" not in splits:
        note = "train and test folders as given"
    if "val" not in splits:
        train = splits["train"]
        kept, held, how = hold_out(
            labels_of(train), name=name, seed=seed, where=f"{where}: the train split"
        )
        splits = {
            "train": [train[i] for i in kept],
            "val": [train[i] for i in held],
            "test": splits["test"],
        }
        note += f"; {how}"
    return splits, note
