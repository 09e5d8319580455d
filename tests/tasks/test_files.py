"""folder:, npz: and zip: what is read, what is cut, and what is refused with one sentence."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import aptheory as ap
from aptheory.errors import InputError
from aptheory.tasks.readers.files import decode_image
from tests.tasks import tasks_fixtures as make


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def sizes(task):
    return [len(split) for split in (task.train, task.val, task.test)]


THREE = {"train": {"a": 5, "b": 4}, "val": {"a": 2, "b": 2}, "test": {"a": 3, "b": 3}}
TWO = {"train": {"a": 10, "b": 20}, "test": {"a": 3, "b": 3}}


def test_three_split_folders_are_taken_as_they_are(tmp_path):
    task = ap.task(f"folder:{make.folder(tmp_path / 'pets', THREE)}")
    assert (task.name, task.classes, sizes(task)) == ("pets", ("a", "b"), [9, 4, 6])
    assert task.train.labels.tolist() == [0] * 5 + [1] * 4
    x = task.train.images([0, 8], (9, 12))
    assert x.shape == (2, 3, 9, 12)
    assert "19 .jpg files" in task.preprocessing
    whole = task.train.images([3], (12, 9))[0].permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "pets/train/a/003.jpg") as image:
        assert np.array_equal(whole, np.asarray(image))


def test_validation_is_cut_from_train_and_said(tmp_path):
    place = make.folder(tmp_path / "d", TWO)
    task = ap.task(f"folder:{place}")
    assert sizes(task) == [24, 6, 6]
    assert np.bincount(task.val.labels).tolist() == [2, 4]
    assert "seed 0" in task.provenance
    assert not set(task.train.keys) & set(task.val.keys)
    assert ap.task(f"folder:{place}", seed=1).val.keys != task.val.keys
    assert ap.task(f"folder:{place}").val.keys == task.val.keys


def test_without_split_folders_60_20_20(tmp_path):
    task = ap.task(f"folder:{make.folder(tmp_path / 'd', {'': {'x': 10, 'y': 20}})}")
    assert sizes(task) == [18, 6, 6]
    assert "60/20/20" in task.provenance


def test_train_and_val_alone_report_on_val(tmp_path):
    place = make.folder(tmp_path / "d", {"train": {"a": 10, "b": 10}, "valid": {"a": 2, "b": 3}})
    task = ap.task(f"folder:{place}")
    assert sizes(task) == [16, 4, 5]
    assert "val folder used as test" in task.provenance


def test_a_zip_is_the_folder_and_has_its_digest(tmp_path):
    place = make.folder(tmp_path / "d", THREE)
    (tmp_path / "around").mkdir()
    shutil.copytree(place, tmp_path / "around" / "d")
    plain = ap.task(f"folder:{place}")
    for file, root in (("d.zip", place), ("nested.zip", tmp_path / "around")):
        task = ap.task(f"folder:{make.zipped(root, tmp_path / file)}")
        assert sizes(task) == sizes(plain)
        assert task.train.digest == plain.train.digest
        x, y = (t.train.images(range(9), (8, 8)) for t in (task, plain))
        assert torch.equal(x, y)
        elsewhere = pickle.loads(pickle.dumps(task))  # what a worker process gets
        assert torch.equal(elsewhere.train.images(range(9), (8, 8)), y)


def test_digest_follows_the_bytes_not_the_names_or_the_place(tmp_path):
    place = make.folder(tmp_path / "d", THREE)
    before = ap.task(f"folder:{place}").digest
    copy = shutil.copytree(place, tmp_path / "copy")
    assert ap.task(f"folder:{copy}").digest == before
    (copy / "train/a/000.jpg").write_bytes(make.encoded(make.picture(200), "JPEG"))
    assert ap.task(f"folder:{copy}").digest != before
    assert list((tmp_path / "cache" / "digests").iterdir())


def test_a_digest_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
    place = make.folder(tmp_path / "d", THREE)
    first = ap.task(f"folder:{place}").digest
    from aptheory.tasks.readers.files import FileSplit

    monkeypatch.setattr(FileSplit, "content_digest", lambda self: pytest.fail("read again"))
    assert ap.task(f"folder:{place}").digest == first


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_corrupt_picture_is_named(tmp_path, damage):
    place = make.folder(tmp_path / "d", THREE)
    file = place / "train/a/002.jpg"
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello" * 50}[damage])
    task = ap.task(f"folder:{place}")
    task.train.images([0, 1, 3], (8, 8))
    with pytest.raises(InputError) as error:
        task.train.images(range(9), (8, 8))
    assert "train/a/002.jpg cannot be decoded" in one_sentence(error)


def test_a_picture_that_goes_away_is_named(tmp_path):
    place = make.folder(tmp_path / "d", THREE)
    task = ap.task(f"folder:{place}")
    (place / "val/b/001.jpg").unlink()
    with pytest.raises(InputError, match=r"val/b/001\.jpg cannot be read"):
        task.val.images([3], (8, 8))


def test_empty_missing_and_wrong_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no zip")
    flat = make.folder(tmp_path / "flat", {"": {"": 3}})
    cases = {
        tmp_path / "empty": "holds no image",
        tmp_path / "nowhere": "does not exist",
        tmp_path / "file.txt": "neither a folder nor a zip",
        flat: "lies in no class folder",
        make.folder(tmp_path / "one", {"": {"only": 5}}): "one class only",
        make.folder(tmp_path / "t", {"train": {"a": 2, "b": 2}}): "no test folder",
        make.folder(tmp_path / "few", {"": {"a": 9, "b": 2}}): "needs at least 3",
    }
    for place, message in cases.items():
        with pytest.raises(InputError) as error:
            ap.task(f"folder:{place}")
        assert message in one_sentence(error)
        assert str(place) in str(error.value)


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    counts = {"train": {"a": 5, "b": 5, "c": 5}, "test": {"a": 2, "c": 2}}
    with pytest.raises(InputError, match="test split has no image of class 'b'"):
        ap.task(f"folder:{make.folder(tmp_path / 'd', counts)}")


def test_a_broken_zip_is_named(tmp_path):
    file = make.zipped(make.folder(tmp_path / "d", THREE), tmp_path / "d.zip")
    data = bytearray(file.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cut.zip cannot be read as a zip"):
        ap.task(f"folder:{tmp_path / 'cut.zip'}")
    start = data.index(b"\xff\xd8\xff") + 40  # within the first picture: the member's checksum
    data[start] ^= 0xFF
    (tmp_path / "flip.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"flip.zip: .*jpg cannot be read"):
        ap.task(f"folder:{tmp_path / 'flip.zip'}").digest  # noqa: B018


def test_modes_of_pictures(tmp_path):
    pixels = make.picture(90)
    grey = Image.fromarray(pixels).convert("L")
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16) << 8) | 37)
    for name, image in {"L": grey, "deep": deep}.items():
        image.save(tmp_path / f"{name}.png")
        out = decode_image((tmp_path / f"{name}.png").read_bytes(), name)
        assert np.array_equal(out, np.repeat(np.asarray(grey)[..., None], 3, axis=2)), name
    clear = Image.fromarray(pixels).convert("RGBA")
    clear.putalpha(3)
    clear.save(tmp_path / "RGBA.png")
    on_white = np.rint((pixels * 3.0 + 255 * 252) / 255)
    out = decode_image((tmp_path / "RGBA.png").read_bytes(), "")
    assert np.abs(out - on_white).max() <= 1
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "P.png", transparency=b"\x00\x80")
    assert decode_image((tmp_path / "P.png").read_bytes(), "").shape == pixels.shape


def test_npz_with_and_without_validation(tmp_path):
    data = make.arrays()
    np.savez(tmp_path / "d.npz", **data)
    task = ap.task(f"npz:{tmp_path / 'd.npz'}")
    assert (task.classes, sizes(task)) == (("ant", "bee", "cow", "dog"), [32, 8, 12])
    assert np.bincount(task.val.labels).tolist() == [2] * 4
    assert torch.equal(
        task.test.images([3], (6, 6))[0].permute(1, 2, 0), torch.from_numpy(data["x_test"][3])
    )
    del data["class_names"]
    np.savez(tmp_path / "v.npz", **data, x_val=data["x_test"], y_val=data["y_test"])
    task = ap.task(f"npz:{tmp_path / 'v.npz'}")
    assert (task.classes, sizes(task)) == (("0", "1", "2", "3"), [40, 12, 12])


def test_npz_of_grey_and_of_floats_says_what_it_did(tmp_path):
    data = make.arrays()
    grey = {**data, "x_train": data["x_train"][..., 0], "x_test": data["x_test"][..., :1]}
    np.savez(tmp_path / "grey.npz", **grey)
    task = ap.task(f"npz:{tmp_path / 'grey.npz'}")
    assert "grey repeated" in task.preprocessing
    x = task.test.images([0], (6, 6))[0]
    assert torch.equal(x[0], x[2])
    floats = {**data, "x_train": data["x_train"] / 255, "x_test": data["x_test"] / np.float32(255)}
    np.savez(tmp_path / "floats.npz", **floats)
    task = ap.task(f"npz:{tmp_path / 'floats.npz'}")
    assert np.array_equal(task.test.pixels, data["x_test"])
    assert "8 bits" in task.preprocessing


def _spoil(data: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    x = data["x_train"]
    nan = x / 255
    nan[7, 0, 0, 0] = np.nan
    changes = {
        "nan": {"x_train": nan},
        "range": {"x_train": x.astype(np.float32)},
        "channels": {"x_train": np.repeat(x, 2, axis=3)},  # of train alone
        "first": {"x_train": x.transpose(0, 3, 1, 2)},
        "type": {"x_train": x.astype(np.complex64)},
        "empty": {"x_train": x[:0], "y_train": data["y_train"][:0]},
        "count": {"y_train": data["y_train"][:-1]},
        "label": {"y_train": data["y_train"] + 1},
        "text": {"y_train": np.array(["ant"] * 40)},
        "class": {"y_test": np.zeros(12, dtype=np.int64)},
        "object": {"y_test": np.array([None] * 12, dtype=object)},
    }
    return {**data, **changes[what]}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", r"x_train holds NaN or infinity \(first in image 7\)"),
        ("range", "from 0 to 255; expected uint8"),
        ("channels", "unlike channels"),
        ("first", "channels seem to come first"),
        ("type", "complex64; expected uint8"),
        ("empty", "is empty"),
        ("count", "40 images but y_train has 39"),
        ("label", "labels run from 1 to 4"),
        ("text", "is none of the classes"),
        ("class", "test split has no image of class 'bee', 'cow', 'dog'"),
        ("object", "an array of Python objects"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, what, message):
    file = tmp_path / "bad.npz"
    np.savez(file, **_spoil(make.arrays(), what))
    with pytest.raises(InputError, match=message) as error:
        ap.task(f"npz:{file}")
    assert "bad.npz" in one_sentence(error)


def test_npz_files_that_are_none(tmp_path):
    np.savez(tmp_path / "d.npz", **make.arrays())
    data = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    damaged = bytearray(data)
    damaged[200] ^= 0xFF
    (tmp_path / "flip.npz").write_bytes(damaged)
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "lacks.npz", x_train=np.zeros(3))
    for name, message in {
        "cut.npz": "cannot be read as npz",
        "flip.npz": "cannot be read as npz",
        "single.npy": "single array",
        "lacks.npz": "lacks y_train, x_test, y_test",
        "none.npz": "is not a file",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            ap.task(f"npz:{tmp_path / name}")
        assert name in one_sentence(error)


@pytest.mark.slow
def test_the_real_assets(assets):
    for name, expected in {"dtd10": [480, 120, 400], "hymenoptera": [196, 48, 153]}.items():
        task = ap.task(f"folder:{assets / name}.zip")
        assert sizes(task) == expected
        assert task.test.images([0, 1], (32, 32)).shape == (2, 3, 32, 32)
    assert sizes(ap.task(f"npz:{assets / 'gtsrb32'}.npz")) == [2064, 516, 1290]
