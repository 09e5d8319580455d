"""VTAB-1K folders, FGVC's JSON splits, webdataset shards, torchvision's sets, Hugging Face."""

import errno
import io
import json
import pickle
import tarfile
import time

import numpy as np
import pytest
import torch
from PIL import Image

import aptheory as ap
from aptheory import hub as connection
from aptheory.errors import InputError
from aptheory.tasks.readers.torchvision_sets import BUILDERS, torchvision_task
from tests.tasks import tasks_fixtures as make


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


def sizes(task):
    return [len(split) for split in (task.train, task.val, task.test)]


# VTAB-1K


@pytest.fixture(scope="module")
def vtab(tmp_path_factory):
    return make.vtab_folder(tmp_path_factory.mktemp("vtab") / "cifar")


def test_vtab_folder_follows_its_lists(vtab):
    task = ap.task(f"vtab:{vtab}")
    assert sizes(task) == [800, 200, 30]
    assert len(task.classes) == 10
    assert task.val.labels[:12].tolist() == [*range(10), 0, 1]
    assert len(task.train_and_val) == 1000
    x = task.val.images([3], (12, 9))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x, make.picture(60))
    assert "1030 .png files" in task.preprocessing


def test_vtab_lists_may_leave_out_the_images_folder_and_have_spaces(tmp_path):
    root = make.vtab_folder(tmp_path / "d", test=2)
    (root / "images/test/with space.png").write_bytes(make.encoded(make.picture(7)))
    (root / "test.txt").write_text("test/with space.png 3\n\ntest/000000.png 0\n")
    task = ap.task(f"vtab:{root}")
    assert task.test.labels.tolist() == [3, 0]
    assert task.test.images([0], (12, 9))[0, 0, 0, 0] == make.picture(7)[0, 0, 0]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("test.txt", None, "test.txt cannot be read"),
        ("test.txt", "", "test.txt is empty"),
        ("val200.txt", "images/val/000000.png\n", "val200.txt, line 1"),
        ("val200.txt", "images/val/000000.png one\n", "val200.txt, line 1"),
        ("test.txt", "images/test/999.png 1\n", "lists images/test/999.png, which is not there"),
        ("train800val200.txt", "images/val/000000.png 1\n", "is not the union"),
    ],
)
def test_vtab_lists_that_cannot_be_used(tmp_path, file, text, message):
    root = make.vtab_folder(tmp_path / "d", test=2)
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    with pytest.raises(InputError, match=message):
        ap.task(f"vtab:{root}")


def test_vtab_labels_beyond_the_known_number_are_refused(tmp_path):
    from aptheory.tasks.readers.vtab_folder import vtab_folder_task

    root = make.vtab_folder(tmp_path / "d", test=2)
    with pytest.raises(InputError, match="labels run from 0 to 9, but there are 5"):
        vtab_folder_task(root, classes=5)
    assert len(vtab_folder_task(root, classes=100).classes) == 100


# FGVC


def fgvc(root, splits, folder="images"):
    for split, entries in splits.items():
        (root / f"{split}.json").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps(entries))
        for number, key in enumerate(entries):
            file = root / folder / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(make.encoded(make.picture(number * 9 % 250, (20, 20)), "JPEG"))
    return root


def test_fgvc_maps_class_ids_over_all_splits_together(tmp_path):
    splits = {
        "train": {"a/1.jpg": 7, "b/2.jpg": 200, "c/3.jpg": 30},
        "val": {"d/4.jpg": 30},
        "test": {"e/5.jpg": 9, "f/6.jpg": 200},
    }
    with pytest.raises(InputError, match="test has images of class '9', of which train has none"):
        ap.task(f"fgvc:{fgvc(tmp_path / 'lacks', splits)}")
    splits["train"]["g/7.jpg"] = 9
    task = ap.task(f"fgvc:{fgvc(tmp_path / 'cub', splits)}")
    assert task.classes == ("7", "9", "30", "200")  # by number, not as text
    assert task.train.labels.tolist() == [0, 3, 2, 1]
    assert task.val.labels.tolist() == [2]
    assert task.test.labels.tolist() == [1, 3]


def test_fgvc_crops_the_centre_of_an_enlarged_picture(tmp_path):
    splits = {"train": {"1.jpg": 0, "2.jpg": 1}, "val": {"3.jpg": 0}, "test": {"4.jpg": 1}}
    root = fgvc(tmp_path / "cub", splits, folder="")
    pixels = np.zeros((256, 256, 3), dtype=np.uint8)
    pixels[16:240, 16:240] = 255  # just the centre 224
    (root / "4.jpg").write_bytes(make.encoded(pixels, "PNG"))
    x = ap.task(f"fgvc:{root}").test.images([0], (224, 224))
    assert x.shape == (1, 3, 224, 224)
    assert int(x.min()) == 255


def test_fgvc_holds_out_a_tenth_where_there_is_no_val(tmp_path):
    splits = {
        "train": {f"{n:03d}.jpg": n % 4 for n in range(40)},
        "test": {f"t{n}.jpg": n % 4 for n in range(8)},
    }
    root = fgvc(tmp_path / "birds", splits)
    task = ap.task(f"fgvc:{root}")
    assert sizes(task) == [36, 4, 8]
    assert "seed 0" in task.provenance
    keys = {*task.train.split.keys, *task.val.split.keys}
    assert keys == set(splits["train"])
    assert ap.task(f"fgvc:{root}", seed=3).val.split.keys != task.val.split.keys
    task = ap.task(f"fgvc:{root}", group=lambda path: path[:2])
    groups = [{key[:2] for key in part.split.keys} for part in (task.train, task.val)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "train.json cannot be read as JSON"),
        ("[]", "is not a dict"),
        ('{"1.jpg": null}', "expected a whole number or a text"),
        ('{"nowhere.jpg": 1}', "lists nowhere.jpg, which is neither"),
    ],
)
def test_fgvc_files_that_cannot_be_used(tmp_path, text, message):
    root = fgvc(tmp_path / "d", {"train": {"1.jpg": 0}, "val": {"2.jpg": 0}, "test": {"3.jpg": 1}})
    (root / "train.json").write_text(text)
    with pytest.raises(InputError, match=message):
        ap.task(f"fgvc:{root}")


# webdataset


def shard(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, members in samples:
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def samples(count, start=0):
    return [
        (
            f"{number:06d}",
            {
                "jpg": make.encoded(make.picture(number % 200), "JPEG"),
                "cls": str(number % 3).encode(),
            },
        )
        for number in range(start, start + count)
    ]


def test_webdataset_shards(tmp_path):
    root = tmp_path / "shards"
    shard(root / "train-000000.tar", samples(9))
    shard(root / "train-000001.tar", samples(9, 9))
    json_labels = [
        (key, {"png": make.encoded(make.picture(n)), "json": json.dumps({"label": n}).encode()})
        for n, key in enumerate(["x.y/0", "x.y/1", "x.y/2"])
    ]
    shard(root / "test" / "0.tar", json_labels)
    task = ap.task(f"webdataset:{root}")
    assert sizes(task) == [15, 3, 3]
    assert task.test.labels.tolist() == [0, 1, 2]
    x = task.test.images([2], (12, 9))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x, make.picture(2))
    assert "seed 0" in task.provenance
    again = pickle.loads(pickle.dumps(task))
    assert again.digest == task.digest


def test_webdataset_shards_of_the_package_itself(tmp_path):
    wds = pytest.importorskip("webdataset")
    for split, count in (("train", 20), ("test", 6)):
        pattern = str(tmp_path / f"{split}-%06d.tar")
        with wds.ShardWriter(pattern, maxcount=8, verbose=0) as writer:
            for number in range(count):
                pixels = make.picture(number * 5)
                writer.write({"__key__": f"{number:05d}", "png": pixels, "cls": number % 2})
    task = ap.task(f"webdataset:{tmp_path}")
    assert sizes(task) == [16, 4, 6]
    assert task.test.labels.tolist() == [0, 1] * 3
    x = task.test.images([5], (12, 9))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x, make.picture(25))


def test_webdataset_shards_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="holds no tar shard"):
        ap.task(f"webdataset:{tmp_path}")
    shard(tmp_path / "train-0.tar", samples(9))
    shard(tmp_path / "test-0.tar", samples(3))
    data = (tmp_path / "train-0.tar").read_bytes()
    with tarfile.open(tmp_path / "train-0.tar") as archive:
        between = archive.getmembers()[8].offset
    for name, content, message in (
        ("train-0.tar", data[: len(data) // 2 - 700], "cut short|cannot be read as tar"),
        ("train-0.tar", data[:between], "cut short"),  # between two samples: tarfile sees nothing
        ("train-0.tar", b"", "cannot be read as tar|is empty"),
        ("other.tar", data, "tells no split"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            ap.task(f"webdataset:{tmp_path}")
        assert name in str(error.value)
    (tmp_path / "other.tar").unlink()
    with pytest.raises(InputError, match="is a file; give the folder"):
        ap.task(f"webdataset:{tmp_path / 'train-0.tar'}")
    for members, message in (
        ({"cls": b"1"}, "has no image"),
        ({"jpg": b"x"}, "has no label"),
        ({"jpg": b"x", "cls": b"0.5"}, "labels are floats"),
        ({"jpg": b"x", "cls": b""}, "the label of row 0 is missing"),
        ({"jpg": b"x", "png": b"x", "cls": b"1"}, r"several images \('.jpg', '.png'\)"),
        ({"JPG": b"x", "jpg": b"y", "cls": b"1"}, "several files .jpg, which differ by case"),
        ({"jpg": b"x", "cls": b"-1"}, "label -1 is below 0"),
        ({"jpg": b"x", "json": b"{}"}, "has no label"),
    ):
        shard(tmp_path / "train-0.tar", [("000", members)])
        with pytest.raises(InputError, match=message):
            ap.task(f"webdataset:{tmp_path}")


# torchvision


def cifar(root, train=50, test=20):
    """CIFAR-10's python batches, whole but small, with the checksums of the real ones replaced."""
    from torchvision.datasets import CIFAR10

    base = root / CIFAR10.base_folder
    base.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def batch(name, count):
        content = {
            "data": generator.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": [number % 10 for number in range(count)],
        }
        (base / name).write_bytes(pickle.dumps(content))

    for name, _ in CIFAR10.train_list:
        batch(name, train // 5)
    batch("test_batch", test)
    names = pickle.dumps({"label_names": [f"kind {n}" for n in range(10)]})
    (base / "batches.meta").write_bytes(names)
    return base


def test_torchvision_arrays(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    base = cifar(tmp_path)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    task = ap.task("torchvision:CIFAR10", root=tmp_path)
    assert sizes(task) == [40, 10, 20]
    assert task.classes[3] == "kind 3"
    raw = pickle.loads((base / "test_batch").read_bytes())["data"][7].reshape(3, 32, 32)
    assert torch.equal(task.test.images([7], (32, 32))[0], torch.from_numpy(raw))
    assert np.bincount(task.val.labels).tolist() == [1] * 10
    (base / "data_batch_3").write_bytes(b"\x80nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        ap.task("torchvision:CIFAR10", root=tmp_path)


# torchvision itself leaves a damaged file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_torchvision_picture_files(tmp_path):
    base = tmp_path / "gtsrb" / "GTSRB"
    for label in range(2):
        for number in range(10):
            folder = base / "Training" / f"{label:05d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(make.picture(label * 50 + number)).save(folder / f"{number:05d}.ppm")
    test = base / "Final_Test" / "Images"
    test.mkdir(parents=True)
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number in range(4):
        Image.fromarray(make.picture(100 + number)).save(test / f"{number:05d}.ppm")
        lines.append(f"{number:05d}.ppm;9;12;0;0;8;11;{number % 2}")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("\n".join(lines))
    task = torchvision_task("GTSRB", root=tmp_path)
    assert sizes(task) == [16, 4, 4]
    x = task.test.images([2], (12, 9))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x, make.picture(102))
    before = task.digest
    file = test / "00002.ppm"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="image 2 of torchvision's GTSRB"):
        torchvision_task("GTSRB", root=tmp_path).test.images([0, 1, 2], (8, 8))
    Image.fromarray(make.picture(9)).save(file)
    assert torchvision_task("GTSRB", root=tmp_path).digest != before


@pytest.mark.parametrize("builder", sorted(BUILDERS))
def test_torchvision_sets_that_are_not_there_tell_the_command(builder, tmp_path):
    with pytest.raises(InputError) as error:
        ap.task(f"torchvision:{builder}", root=tmp_path)
    assert f"datasets.{builder}" in str(error.value)
    assert "download=True" in str(error.value)


def test_torchvision_unknown_name():
    with pytest.raises(InputError, match="known are CIFAR10"):
        ap.task("torchvision:CIFAR11")


# Hugging Face


def hub(count=40, classes=("cat", "dog")):
    datasets = pytest.importorskip("datasets")
    names = list(classes)
    features = datasets.Features(
        {"img": datasets.Image(), "kind": datasets.ClassLabel(names=names)}
    )
    rows = {
        "img": [{"bytes": make.encoded(make.picture(n)), "path": None} for n in range(count)],
        "kind": [n % len(names) for n in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_huggingface_saved_to_disk(tmp_path):
    import datasets

    both = datasets.DatasetDict({"train": hub(40), "test": hub(6)})
    both.save_to_disk(str(tmp_path / "pets"))
    task = ap.task(f"hf:{tmp_path / 'pets'}")
    assert (sizes(task), task.classes) == ([32, 8, 6], ("cat", "dog"))
    x = task.test.images([5], (12, 9))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x, make.picture(5))
    assert "a fifth of train" in task.provenance
    assert ap.task(f"hf:{tmp_path / 'pets'}").digest == task.digest
    part = ap.task(f"hf:{tmp_path / 'pets'}?streaming=1&limit=20")
    assert (sum(sizes(part)[:2]), sizes(part)[2]) == (20, 6)
    assert "streamed (at most 20 a split" in part.provenance
    hub(40).save_to_disk(str(tmp_path / "one"))
    assert sum(sizes(ap.task(f"hf:{tmp_path / 'one'}?streaming=1&limit=15"))) == 15


def test_huggingface_a_cache_that_cannot_be_written_is_told_as_such(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def stopped(*_, **__):
        try:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", "/file/datasets")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("generating failed") from error

    monkeypatch.setattr(datasets, "load_dataset", stopped)
    with pytest.raises(InputError, match="directory: /file/datasets.; name a folder .* HF_HOME"):
        ap.task(f"hf:{tmp_path}")


def test_huggingface_names_of_files_are_no_pictures():
    datasets = pytest.importorskip("datasets")
    rows = {"image": [f"{i}.png" for i in range(12)], "label": [i % 2 for i in range(12)]}
    with pytest.raises(InputError, match="the text '0.png'.*make a picture of it first"):
        ap.Task.from_hub(datasets.Dataset.from_dict(rows))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (8, 8, 3), (3, 8, 8)])
def test_huggingface_arrays_of_pixels_and_lists_of_one_label(shape):
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (12, *shape))
    rows = {"image": pixels.tolist(), "label": [[i % 2] for i in range(12)]}
    split = datasets.Dataset.from_dict(rows)
    task = ap.Task.from_hub({"train": split, "test": split})
    assert task.test.labels.tolist() == [0, 1] * 6
    names = {split: datasets.ClassLabel(names=[split, "b"]) for split in "ac"}
    for kinds, classes in (("aa", ("a", "b")), ("ac", ("a", "b", "c"))):
        cast = [split.cast_column("label", datasets.Sequence(names[kind])) for kind in kinds]
        if kinds == "ac":  # the second numbers its classes otherwise: of its own name it has none
            cast[1] = cast[1].filter(lambda row: row["label"] == [1])
            classes = ("a", "b")
        made = ap.Task.from_hub(dict(zip(("train", "test"), cast, strict=True)))
        assert made.classes == classes
    first = pixels[0]
    if shape[0] < 4:
        first = first.transpose(1, 2, 0)
    expected = np.broadcast_to(first.reshape(8, 8, -1), (8, 8, 3)).transpose(2, 0, 1)
    assert np.array_equal(task.test.images(np.array([0]), (8, 8))[0], expected)


@pytest.mark.parametrize("streaming", [0, 1])
def test_huggingface_parquet(tmp_path, monkeypatch, streaming):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    # The package waits five seconds after each stream of parquet files.
    monkeypatch.setattr("datasets.iterable_dataset.time.sleep", lambda seconds: None)
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    hub(30).to_parquet(str(data / "train-00000-of-00001.parquet"))
    hub(6).to_parquet(str(data / "validation-00000-of-00001.parquet"))
    hub(8).to_parquet(str(data / "test-00000-of-00001.parquet"))
    limit = "&limit=20" if streaming else ""
    task = ap.task(f"hf:{tmp_path / 'set'}?streaming={streaming}{limit}")
    assert sizes(task) == ([20, 6, 8] if streaming else [30, 6, 8])
    rows = {tuple(row) for row in (task.test.images(range(8), (12, 9)).flatten(1).tolist())}
    real = [make.picture(n).transpose(2, 0, 1).reshape(-1).tolist() for n in range(8)]
    assert rows == {tuple(row) for row in real}
    if streaming:
        assert "streamed" in task.provenance
        assert ap.task(f"hf:{tmp_path / 'set'}?streaming=1&limit=20").digest == task.digest
        other = ap.task(f"hf:{tmp_path / 'set'}?streaming=1&limit=20", seed=1)
        assert other.digest != task.digest


@pytest.mark.parametrize("name", ["beans", "nobody/nothing", "file.csv", "beans?streaming=1"])
def test_huggingface_asks_once_and_only_where_it_can(monkeypatch, name):
    asked = []
    pytest.importorskip("datasets")
    monkeypatch.setattr(connection, "reachable", lambda url: bool(asked.append(url)))
    start = time.monotonic()
    with pytest.raises(InputError, match="and no connection to the hub"):
        ap.task(f"hf:{name}")
    # A second on a quiet machine; with the package's own retries it takes 25.
    assert time.monotonic() - start < 15
    assert set(asked) == {"https://huggingface.co"}


@pytest.mark.parametrize("name", ["../nowhere", "a b", "x/y/z", "./x"])
def test_huggingface_names_that_nobody_can_have_ask_nobody(monkeypatch, name):
    pytest.importorskip("datasets")
    monkeypatch.setattr(connection, "reachable", lambda url: pytest.fail("asked"))
    with pytest.raises(InputError, match="there is no such folder, and a repository"):
        ap.task(f"hf:{name}")


def test_huggingface_data_that_cannot_be_used(tmp_path):
    import datasets

    plain = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1, 2]})})
    plain.save_to_disk(str(tmp_path / "plain"))
    hub(4).save_to_disk(str(tmp_path / "pets"))
    hub(4).select([]).save_to_disk(str(tmp_path / "empty"))
    for uri, message in {
        f"hf:{tmp_path / 'plain'}": "no image column",
        f"hf:{tmp_path / 'empty'}": "a split of it holds no pictures",
        f"hf:{tmp_path / 'pets'}?label=nothing": "has no column 'nothing'",
        f"hf:{tmp_path / 'pets'}?colour=1": "no option 'colour'",
        f"hf:{tmp_path / 'pets'}?limit=2": "give streaming=1 with it",
        f"hf:{tmp_path / 'pets'}?streaming=x": "streaming is 'x'; give 1 or 0",
        f"hf:{tmp_path / 'pets'}?config=a": "give no config",
        f"hf:{tmp_path / 'nowhere'}": "there is no such folder",
        f"hf:{tmp_path / 'pets'}": "needs at least 3",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            ap.task(uri)
        assert "\n" not in str(error.value)
    (tmp_path / "pets.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="pets.parquet is a file; name the folder"):
        ap.task(f"hf:{tmp_path / 'pets.parquet'}")
    broken = datasets.Dataset.from_dict(
        {"img": [{"bytes": b"no %d" % n, "path": None} for n in range(30)], "kind": [0, 1] * 15},
        features=hub(2).features,
    )
    broken.save_to_disk(str(tmp_path / "broken"))
    with pytest.raises(InputError, match="cannot be decoded"):
        ap.task(f"hf:{tmp_path / 'broken'}").train.images([0], (8, 8))


def cells(tmp_path, **cell):
    """A folder of a parquet table whose first picture is ``cell``."""
    from datasets import Dataset, Features, Image, Value

    good = {"bytes": b"no picture", "path": None}
    rows = {"image": [{"bytes": None, "path": None, **cell}] + [good] * 11, "label": [0, 1] * 6}
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    (tmp_path / "cells").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "cells" / "train.parquet")
    return f"hf:{tmp_path / 'cells'}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/dev/zero", "/dev/zero is no file")],
)
def test_a_cell_that_names_no_picture_is_refused_at_once(tmp_path, path, reason):
    pytest.importorskip("datasets")
    with pytest.raises(InputError, match=reason):
        ap.task(cells(tmp_path, path=path)).train.images(range(8), (8, 8))


def test_a_folder_of_that_name_elsewhere_is_not_taken_for_it(tmp_path, monkeypatch):
    """The package keeps what it read under the folder's last name, and finds it by that."""
    pytest.importorskip("datasets")
    uri = cells(tmp_path, path="/dev/zero")
    with pytest.raises(InputError, match="is no file"):
        ap.task(uri).train.images(range(8), (8, 8))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="there is no such folder"):
        ap.task("hf:cells")


def test_a_table_that_swells_is_refused_by_its_footer(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = pyarrow.table({"path": ["a.png", "b.png"], "label": [0, 1], "junk": ["x" * 2**28, ""]})
    write_table(table, tmp_path / "t.parquet", compression="zstd")
    with pytest.raises(InputError, match="would grow from 0.0 to"):
        ap.task(f"csv:{tmp_path / 't.parquet'}")


def test_a_folder_is_found_after_the_working_directory_changed(tmp_path, monkeypatch):
    from PIL import Image

    for number in range(12):
        place = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(place)
    monkeypatch.chdir(tmp_path)
    task = ap.task("folder:set")
    monkeypatch.chdir("/")
    assert len(task.train.images([0], (8, 8))) == 1


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.jsonl", '{"path": "a.png", "label": "x"}\n', "is JSON, and csv: reads a table"),
        ("t.json", '[{"path": "a.png", "label": "x"}]\n', "is JSON, and csv: reads a table"),
        ("t.csv", "path,label\n/dev/zero,x\n/dev/zero,y\n", "/dev/zero, which is no file"),
        ("t.csv", "path,label\npictures,x\npictures,y\n", "pictures, which is no file"),
    ],
)
def test_what_is_no_table_or_names_no_picture_is_refused_with_the_reason(
    tmp_path, name, text, reason
):
    (tmp_path / "pictures").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        ap.task(f"csv:{tmp_path / name}")
