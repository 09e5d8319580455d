"""Every reader is held to the same: what a picture is, what a class is, what is refused."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import aptheory as ap
from aptheory.errors import InputError
from aptheory.tasks import catalogue
from aptheory.tasks.readers.files import FileSplit
from tests.tasks.every_reader import NAMED_SETS, READERS
from tests.tasks.tasks_fixtures import encoded, picture

#: "hf" opens what "hub" reads; writing it to disk is slow.
LOOPED = [name for name in READERS if name != "hf"]
ENCODED = [name for name in LOOPED if READERS[name].encoded]
NUMBERED = [name for name in LOOPED if not READERS[name].named]
SIZE = (12, 9)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


def plain(labels=(0, 1), extra=()):
    """Two pictures a class in train, one in val and test; ``extra`` go first in train."""
    shade, out = 0, {}
    for split, times in (("train", 2), ("val", 1), ("test", 1)):
        out[split] = list(extra) if split == "train" else []
        for label in (*labels, *labels)[: times * len(labels)]:
            shade += 13
            out[split].append((label, encoded(picture(shade, SIZE))))
    return out


def read(name, root, pictures):
    root.mkdir(parents=True, exist_ok=True)
    return ap.task(READERS[name].lay(root, pictures))


def look(task):
    for split in (task.train, task.val, task.test):
        split.images(range(len(split)), SIZE)


def refused(name, root, pictures, *words):
    with pytest.raises(InputError) as error:
        look(read(name, root, pictures))
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    for word in words:
        assert word in sentence, sentence


def with_picture(name, root, data):
    """The set with one more picture in class 0 of train, and the pictures of that class."""
    task = read(name, root, plain(extra=[(0, data)]))
    return task, task.train.images(np.flatnonzero(task.train.labels == 0), SIZE)


def as_png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def among(images, expected, tolerance=1):
    """Whether one of the images is the expected one."""
    away = (images.int() - torch.from_numpy(expected).permute(2, 0, 1).int()).abs()
    return bool((away.flatten(1).amax(1) <= tolerance).any())


def test_no_reader_is_left_out():
    assert {*READERS} >= {*catalogue.READERS} - NAMED_SETS


@pytest.mark.parametrize("name", READERS)
def test_a_plain_set_is_read_to_the_byte(name, tmp_path):
    pictures = plain()
    task = read(name, tmp_path / "set", pictures)
    assert task.classes == ("0", "1")
    assert [len(s) for s in (task.train, task.val, task.test)] == [4, 2, 2]
    for split, samples in pictures.items():
        got = getattr(task, split).images(range(len(samples)), SIZE)
        for label, data in samples:
            rows = np.flatnonzero(getattr(task, split).labels == label)
            pixels = np.array(Image.open(io.BytesIO(data)))
            if name != "fgvc":  # which cuts the centre out of an enlarged picture
                assert among(got[rows], pixels, tolerance=0)
    assert len(task.digest) == 64
    assert task.digest == read(name, tmp_path / "again", pictures).digest


@pytest.mark.parametrize("name", [n for n in ENCODED if n != "fgvc"])
def test_what_a_picture_is(name, tmp_path):
    grey = np.tile(np.arange(9, dtype=np.uint16) * 455, (12, 1))  # 0 to 3640: 12 of 16 bits
    glyph = np.zeros((12, 9, 4), dtype=np.uint8)
    glyph[3:6, 3:6, 3] = 255
    on_white = np.full((12, 9, 3), 255, dtype=np.uint8)
    on_white[3:6, 3:6] = 0
    upright = picture(120, (12, 9), seed=3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = io.BytesIO()
    Image.fromarray(np.rot90(upright)).save(turned, "PNG", exif=exif)
    scaled = np.repeat((grey >> 4).astype(np.uint8)[..., None], 3, axis=2)
    for number, (data, expected) in enumerate(
        (
            (as_png(Image.fromarray(grey)), scaled),
            (as_png(Image.fromarray(glyph)), on_white),
            (turned.getvalue(), upright),
            (as_png(Image.fromarray(upright[..., 0])), np.repeat(upright[..., :1], 3, axis=2)),
        )
    ):
        task, images = with_picture(name, tmp_path / str(number), data)
        assert among(images, expected), number
        assert images.shape[1:] == (3, *SIZE)
        assert task.digest != read(name, tmp_path / f"{number} plain", plain()).digest
        assert task.notes  # each of them is said


def bomb(side=13_000):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_pictures_and_bombs_are_named(name, tmp_path):
    whole = encoded(picture(99, (40, 40)))
    for number, data in enumerate((b"", b"hello" * 9, whole[: len(whole) // 2], bomb())):
        refused(name, tmp_path / str(number), plain(extra=[(0, data)]), "cannot be decoded")


@pytest.mark.parametrize("name", NUMBERED)
def test_what_is_no_class(name, tmp_path):
    reader = READERS[name]
    cases = {"float": [0.2, 1.5], "missing": [0, None], "large": [0, 10**9], "huge": [0, 2**62]}
    cases["negative"] = [0, -1]
    if reader.lists:
        cases |= {"list": [[0, 1], [1, 2]], "one-hot": [[0, 1], [1, 0]]}
    for kind, labels in cases.items():
        refused(name, tmp_path / kind, plain(labels))


@pytest.mark.parametrize("name", LOOPED)
def test_a_class_that_train_lacks(name, tmp_path):
    for split in ("val", "test"):
        pictures = plain()
        pictures[split].append((7, encoded(picture(3, SIZE))))
        refused(name, tmp_path / split, pictures, "7")


@pytest.mark.parametrize("name", LOOPED)
def test_a_gap_makes_no_class_and_texts_are_classes(name, tmp_path):
    task = read(name, tmp_path / "gap", plain((5, 3_000_000)))
    assert set(task.classes) == {"5", "3000000"}
    assert sorted(np.unique(task.train.labels)) == [0, 1]
    if READERS[name].texts:
        task = read(name, tmp_path / "texts", plain(("cat", "dog")))
        assert task.classes == ("cat", "dog")
        named = {"001", "2"}  # texts of digits stay texts
        assert set(read(name, tmp_path / "digits", plain(("001", "2"))).classes) == named


@pytest.mark.parametrize("name", LOOPED)
def test_one_class_is_none(name, tmp_path):
    refused(name, tmp_path / "one", plain((4,)), "one class only")


@pytest.mark.parametrize("name", sorted(set(READERS) - {"arrays", "dataset", "hub"}))
def test_what_a_relative_path_names_is_found_after_the_working_directory_changed(
    name, tmp_path, monkeypatch
):
    if name == "hf":
        pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    address = READERS[name].lay(Path("set"), plain())
    task = ap.task(address)
    monkeypatch.chdir("/")
    look(task)


def test_a_digest_is_kept_for_the_folder_that_a_relative_path_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    task = ap.task(READERS["folder"].lay(Path("set"), plain()))
    monkeypatch.chdir("/")
    digest = task.train.digest
    monkeypatch.setattr(FileSplit, "content_digest", lambda _: pytest.fail("read again"))
    assert ap.task(f"folder:{tmp_path / 'set'}").train.digest == digest


def test_a_folder_that_is_called_as_a_table_is_looked_into(tmp_path):
    pytest.importorskip("datasets")
    uri = READERS["hf"].lay(tmp_path, plain())
    (tmp_path / "hub" / "left.parquet").mkdir()
    look(ap.task(uri))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", sorted(set(READERS) - {"arrays", "dataset", "hub"}))
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name, tmp_path):
    if name == "hf":
        pytest.importorskip("datasets")
    root = tmp_path / "set"
    root.mkdir()
    address = READERS[name].lay(root, plain())
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    kinds = {file.suffix or file.name: file for file in files}  # one of each
    said = []
    for file in kinds.values():
        whole = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        try:
            look(ap.task(address))
        except InputError as error:
            said.append(str(error))
        file.unlink()
        file.write_bytes(whole)
    assert said or name == "folder"  # which passes a pipe over, and says so
    look(ap.task(address))


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_an_array_record_is_not_waited_for(tmp_path):
    pytest.importorskip("array_record")
    info = {"name": "toy", "version": "1.0.0", "splits": [{"name": "train", "shardLengths": []}]}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    os.mkfifo(tmp_path / "toy-train.array_record-00000-of-00001")
    with pytest.raises(InputError, match="is no file but a pipe"):
        ap.task(f"tfds:{tmp_path}")
