"""What could be read in two ways is asked for, and what is passed over or changed is said."""

import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import aptheory as ap
from aptheory.errors import InputError
from aptheory.tasks.splits import stratified_cut
from tests.tasks import tasks_fixtures as make

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(24) % 2
FLOATS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


def table(root, rows, head="path,label"):
    make.folder(root / "p", {"": {"x": 12}}, "PNG")
    named = [row if "/" in row else f"p/x/{i:03d}.png,{row}" for i, row in enumerate(rows)]
    (root / "t.csv").write_text("\n".join(([head] if head else []) + named))
    return f"csv:{root / 't.csv'}"


def folders(root, *names):
    return make.folder(root / "set", {"": dict.fromkeys(names, 3)}, "PNG")


def hub(names=("cat", "dog"), **columns):
    import datasets

    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    kinds |= dict.fromkeys(columns, datasets.ClassLabel(names=["x", "y"]))
    data = {"image": [Image.fromarray(each) for each in PIXELS], "label": LABELS, **columns}
    return datasets.Dataset.from_dict(data, features=datasets.Features(kinds))


def samples(change):
    return [change(Image.fromarray(PIXELS[i]), int(LABELS[i]), i) for i in range(24)]


UNCLEAR = {
    "splits by other names": (
        lambda root: folders(root, "seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"),
        "look like splits and not like classes",
    ),
    "classes in folds": (
        lambda root: folders(root, "fold1/a", "fold1/b", "fold2/a", "fold2/b"),
        "all hold the same folders 'a', 'b', and which of them are the classes",
    ),
    "splits below classes": (
        lambda root: folders(root, "a/train", "a/test", "b/train", "b/test"),
        "all hold the same folders 'test', 'train'",
    ),
    "folders that differ by a space": (
        lambda root: folders(root, "cat", "cat ", "dog"),
        "'cat' and 'cat ' differ by spaces alone",
    ),
    "labels that differ by a space": (
        lambda root: table(root, ["cat", "cat ", "dog"] * 4),
        "'cat' and 'cat ' differ by spaces alone",
    ),
    "several labels in a cell": (
        lambda root: table(root, ["a|b", "a", "b"] * 4),
        r"label 'a\|b' joins several of the others",
    ),
    "a picture by two paths": (
        lambda root: table(root, [*"abababababab", "./p/x//000.png,b"]),
        "'p/x/000.png' has two labels, 'a' and 'b'",
    ),
    "two columns of one name": (
        lambda root: table(root, [f"{c},{c}" for c in "abababababab"], "path,label,label"),
        "several columns called 'label'",
    ),
    "another encoding": (
        lambda root: _latin(root),
        "save it again as UTF-8",
    ),
    "pictures in the cells": (
        lambda root: pd.DataFrame(
            {"image": [{"bytes": b"x", "path": None}] * 4, "label": [0, 1] * 2}
        ),
        "read it as hf:FOLDER",
    ),
    "numbers around a picture": (
        lambda root: samples(lambda picture, label, i: (i, picture, label)),
        "on both sides of its picture",
    ),
    "one-hot tensors": (
        lambda root: samples(lambda picture, label, i: (picture, torch.eye(2)[label])),
        "labels are one-hot rows",
    ),
    "labels in dicts": (
        lambda root: samples(lambda picture, label, i: (picture, {"class": int(label)})),
        "a label is a dict; expected one class",
    ),
    "lists of several lengths": (
        lambda root: samples(lambda picture, label, i: (picture, [int(label)] * (1 + i % 2))),
        "labels are lists of several lengths",
    ),
    "floats of two ranges": (
        lambda root: TensorDataset(
            FLOATS * torch.tensor([1.0] * 20 + [255.0] * 4).view(-1, 1, 1, 1),
            torch.from_numpy(LABELS),
        ),
        "some images are floats from 0 to 1 and others from 0 to 255",
    ),
    "a tensor with the channels last": (
        lambda root: (torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
        r"seem to come last: permute\(0, 3, 1, 2\)",
    ),
    "two columns of classes": (
        lambda root: hub(colour=LABELS).rename_column("label", "breed"),
        r"several label columns \('breed', 'colour'\)",
    ),
    "a transform without the picture": (
        lambda root: hub().with_transform(
            lambda rows: {"pixels": rows["image"], "label": rows["label"]}
        ),
        "its transform leaves no 'image'",
    ),
    "a transform without the label": (
        lambda root: hub().with_transform(lambda rows: {"image": rows["image"]}),
        "transform leaves no 'label'",
    ),
}


def _latin(root):
    place = table(root, ["é", "ü"] * 6)
    (root / "t.csv").write_bytes((root / "t.csv").read_text().encode("latin-1"))
    return place


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_unclear_is_asked_for(case, tmp_path):
    lay, reason = UNCLEAR[case]
    source = lay(tmp_path)
    with pytest.raises(InputError, match=reason) as error:
        ap.task(source).train.images(range(16), (6, 6))
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_a_group_that_is_no_column_is_named():
    with pytest.raises(InputError, match="no column 'patient'; it has image, label"):
        ap.task(hub(), group="patient")


def test_splits_that_number_their_classes_differently_are_read_by_name():
    task = ap.task({"train": hub(), "test": hub(("dog", "cat"))})
    assert task.classes == ("cat", "dog")
    assert task.test.labels.tolist() == (1 - LABELS).tolist()


def test_what_is_passed_over_is_said(tmp_path):
    rows = [f"{'ab'[i % 2]},{int(i < 8)}" for i in range(12)]
    task = ap.task(table(tmp_path, rows, "path,label,is_train"))
    assert "Columns that are not read: 'is_train'." in task.notes
    loader = DataLoader(
        TensorDataset(FLOATS, torch.from_numpy(LABELS)), batch_size=5, drop_last=True
    )
    assert ap.task(loader).left_out == {"sample that its DataLoader leaves out": 4}
    task = ap.task(((PIXELS > 127).astype(np.uint8), LABELS))
    assert set(task.train.images([0], (6, 6)).unique().tolist()) == {0, 255}
    assert "0 and 1 as 0 and 255." in task.notes


def test_given_splits_that_tear_groups_apart_are_said(tmp_path):
    rows = [f"{'ab'[i % 2]},{'train' if i < 8 else 'test'},p{i % 4}" for i in range(12)]
    place = table(tmp_path, rows, "path,label,split,patient")
    assert "which tear 4 group(s) apart" in ap.task(place, group="patient").provenance


def test_a_head_is_not_needed_nor_the_order_of_columns(tmp_path):
    rows = [f"{'ab'[i % 2]},p/x/{i:03d}.png" for i in range(12)]
    task = ap.task(table(tmp_path, rows, head=""))
    assert task.classes == ("a", "b")


def test_a_zip_file_with_backslashes(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for number in range(12):
            info = zipfile.ZipInfo("x")
            info.filename = f"top\\{'ab'[number % 2]}\\{number}.png"
            archive.writestr(info, make.encoded(make.picture(number * 9)))
    task = ap.task(tmp_path / "w.zip")
    assert task.classes == ("a", "b")
    assert task.train.images([0], (6, 6)).shape == (1, 3, 6, 6)


def test_colours_in_lab_are_not_transparent(tmp_path):
    for number in range(12):
        place = tmp_path / "set" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number], "LAB").save(place / f"{number}.tif")
    assert not ap.task(tmp_path / "set").notes


def test_whatever_can_be_cut_is_cut():
    """Copies and groups that the first cut would leave without a class somewhere."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = np.repeat([0, 1, 2], 6)
        bound = rng.permutation(18) % rng.integers(9, 18)
        enough = all(len(np.unique(bound[labels == label])) >= 6 for label in range(3))
        for how in ("copies", "groups"):
            try:
                parts = stratified_cut(labels, (0.6, 0.2, 0.2), seed=0, **{how: bound})
            except InputError:
                assert not enough
                continue
            assert sorted(np.concatenate(parts)) == list(range(18))
            assert all(set(labels[part]) == {0, 1, 2} for part in parts)
            assert sum(len(np.unique(bound[part])) for part in parts) == len(np.unique(bound))


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ({}, r"class 'dog' has 2 image\(s\)"),
        ({"copies": [0, 1, 2, 3, 4]}, r"class 'dog' has 2 image\(s\)"),
        ({"groups": [0, 1, 2, 3, 3]}, r"class 'dog' has 1 group\(s\); a cut"),
        (
            {"groups": [0, 1, 2, 3, 4], "copies": [0, 1, 2, 3, 3]},
            r"class 'dog' has 1 group\(s\), those that share a picture counted as one; a cut",
        ),
    ],
)
def test_the_class_that_is_too_small_is_named_and_counted(bound, reason):
    bound = {name: np.array(values) for name, values in bound.items()}
    with pytest.raises(InputError, match=reason):
        stratified_cut(
            np.array([0, 0, 0, 1, 1]),
            (0.6, 0.2, 0.2),
            seed=0,
            classes=("cat", "dog"),
            **bound,
        )
