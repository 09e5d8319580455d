"""The 29 data sets: facts, finding, checking, label rules, published splits."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

import aptheory as ap
from aptheory import tasks
from aptheory.errors import InputError
from aptheory.tasks.embedded_tasks import EMBEDDED, EMBEDDED_FACTS
from aptheory.tasks.present import bring_command, locate
from aptheory.tasks.published_splits import PUBLISHED, checksum
from aptheory.tasks.readers import labels
from aptheory.tasks.readers.tfds import RULES
from aptheory.tasks.registry import REGISTRY, VTAB_GROUPS, DataSet
from tests.tasks import tasks_fixtures as make


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("APTHEORY_DATA", raising=False)


def test_there_are_29_in_the_right_groups():
    assert len(REGISTRY) == 29
    assert {group: len(names) for group, names in VTAB_GROUPS.items()} == {
        "natural": 7,
        "specialized": 4,
        "structured": 8,
    }
    suites = [entry.suite for entry in REGISTRY.values()]
    assert [suites.count(suite) for suite in ("VTAB-1K", "FGVC", "full")] == [19, 5, 5]
    names = [name for entry in REGISTRY.values() for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    assert not set(names) & set(EMBEDDED)


@pytest.mark.parametrize("entry", [e for e in REGISTRY.values() if e.suite == "VTAB-1K"])
def test_the_slices_lie_in_their_splits_and_have_their_sizes(entry: DataSet):
    """Slices are recomputed from the sizes in full, without the reader."""
    train, val, test = entry.slices
    assert train == "train[:800]"
    name, start, stop = val.replace("]", "").replace("[", ":").split(":")
    assert (int(stop) - int(start or 0)) == 200
    # A validation that is cut from train begins where the training part of it ends.
    if name == "train":
        assert int(start) == entry.sizes[0]
        assert int(stop) <= entry.sizes[0] + entry.sizes[1]
    whole = {"train[663552:]": 737280, "train[21600:]": 27000, "train[25200:]": 31500}
    if test in whole:
        assert whole[test] == sum(entry.sizes)
        assert whole[test] - int(test[6:-2]) == entry.sizes[2]
    else:
        assert test in ("test", "validation", "test[50%:]")
    assert entry.used == (800, 200, entry.sizes[2])
    assert entry.rule in RULES


def test_fgvc_and_full_sizes_fit_the_published_splits():
    for name, split in PUBLISHED.items():
        sizes = REGISTRY[name].sizes
        assert (sizes[0] + sizes[1], sizes[1]) == (split.total, split.held_out), name


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_splits_are_a_partition_and_fit_their_checksum(name, tmp_path):
    split = tasks.published(name)
    train, val = split.indices()
    assert len(val) == split.held_out
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(split.total))
    assert checksum(val) == split.checksum
    file = tmp_path / "split.txt"
    tasks.write_split(name, file)
    assert np.array_equal(tasks.read_split(file), val)
    text = file.read_text().splitlines()
    text[5] = str(int(text[5]) + 1)
    file.write_text("\n".join(text))
    with pytest.raises(InputError, match="was changed"):
        tasks.read_split(file)


def test_published_splits_refuse_what_they_are_not(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no split is published for 'digits'"):
        tasks.published("digits")
    (tmp_path / "a").write_text("1\n2\n3\n")
    with pytest.raises(InputError, match="not a split file"):
        tasks.read_split(tmp_path / "a")
    import aptheory.tasks.published_splits as module

    monkeypatch.setattr(module, "SEED", 1)
    with pytest.raises(InputError, match="cannot be made again"):
        tasks.published("cub200").indices()


def test_label_rules_on_and_between_the_borders():
    depth = np.array([[0.0, 0.0, 50.0], [0.0, 0.0, 0.0]])

    def clevr(value):
        depth[1, 2] = value
        return labels.clevr_distance(depth)

    values = [1.0, 8.0, 8.01, 8.5, 8.6, 9.0, 9.4, 9.5, 9.51, 10.0, 10.1, 49.0]
    assert [clevr(v) for v in values] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [labels.clevr_count(n) for n in range(3, 11)] == list(range(8))

    def kitti(kind, z):
        return labels.kitti_distance(np.array([kind]), np.array([[1.0, 1.0, z]]))

    assert [kitti(0, z) for z in (-3.0, 8.0, 8.1, 20.0, 20.1, 500.0)] == [0, 0, 1, 1, 2, 2]
    assert [kitti(k, 5.0) for k in range(5)] == [0, 0, 0, 3, 3]
    assert labels.kitti_distance(np.array([], dtype=np.int64), np.empty((0, 3))) == 3
    bins = [labels.dsprites_bin(n, 32) for n in range(32)]
    assert np.bincount(bins).tolist() == [2] * 16
    turns = [labels.dsprites_bin(n, 40) for n in range(40)]
    assert np.bincount(turns).tolist() == [3, 2] * 8


def test_listing_tells_what_is_here_and_how_to_get_the_rest(tmp_path):
    make.vtab_folder(tmp_path / "vtab-1k" / "clevr_dist", classes=6, test=3)
    table = tasks.list_tasks(tmp_path).set_index("name")
    assert len(table) == 29 + len(EMBEDDED)
    assert table.loc["clevr_distance", "layout"] == "vtab"
    assert table.loc["clevr_distance", "command"] == ""
    assert table.loc["digits", "layout"] == "embedded"
    absent = table[table["layout"] == ""]
    assert len(absent) == 28
    assert (absent["command"].str.len() > 20).all()
    assert "tfds.builder('dtd:3.0.1'" in table.loc["dtd", "command"]
    assert "datasets.GTSRB" in table.loc["gtsrb", "command"]
    assert str(tmp_path / "cub200") in table.loc["cub200", "command"]
    assert table.loc["resisc45", "command"].startswith("by hand")
    assert table.loc["svhn", ["train", "val", "test"]].tolist() == [800, 200, 26032]


def test_the_data_folder_is_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_DATA", str(tmp_path / "here"))
    with pytest.raises(InputError) as error:
        ap.task("cifar100")
    assert str(tmp_path / "here") in str(error.value)
    assert "tfds.builder('cifar100:3.0.2'" in str(error.value)


def test_every_layout_is_found_and_opened(tmp_path):
    make.vtab_folder(tmp_path / "cifar", test=4)
    image = make.encoded(make.picture(9))
    records = [make.example(image=image, label=n % 47) for n in range(900)]
    few = records[:50]
    make.tfds_folder(
        tmp_path / "tfds/dtd/3.0.1",
        "dtd",
        {"train": [records], "validation": [records[:300]], "test": [few]},
    )
    make.folder(tmp_path / "ucf101", {"train": {"a": 5, "b": 5}, "test": {"a": 2, "b": 2}})
    np.savez(tmp_path / "gtsrb.npz", **make.arrays())
    place = tmp_path / "CUB_200_2011"
    place.mkdir()
    for split in ("train", "val", "test"):
        (place / f"{split}.json").write_text(json.dumps({"1.png": 3, "2.png": 4}))
    for name in ("1.png", "2.png"):
        (place / name).write_bytes(image)
    found = {
        name: locate(REGISTRY[name], tmp_path).layout
        for name in ("cifar100", "dtd", "ucf101", "gtsrb", "cub200")
    }
    assert found == {
        "cifar100": "vtab",
        "dtd": "tfds",
        "ucf101": "folder",
        "gtsrb": "npz",
        "cub200": "fgvc",
    }
    for name in found:
        task = ap.task(name, root=tmp_path)
        assert task.name == name
        assert task.group == REGISTRY[name].group
    assert len(ap.task("cifar100", root=tmp_path).classes) == 100
    assert ap.task("cifar", root=tmp_path).name == "cifar100"
    task = ap.task("dtd", root=tmp_path)
    assert [len(s) for s in (task.train, task.val, task.test)] == [800, 200, 50]


def test_check_passes_whole_data_and_writes_the_digest_that_runs_record(tmp_path, monkeypatch):
    make.vtab_folder(tmp_path / "clevr_count", classes=8, test=16)
    checked = tasks.check("clevr_count", tmp_path, progress=False)
    table = checked.table.set_index("what")
    assert table[~table["ok"]].index.tolist() == ["test images"]  # 16, not 15,000
    assert table.loc["classes", "found"] == "8"
    assert checked.digest == ""  # what is not as it should be gets none
    place = make.folder(tmp_path / "mine", {"train": {"a": 9, "b": 9}, "test": {"a": 3, "b": 3}})
    checked = tasks.check(f"folder:{place}", tmp_path, progress=False)
    assert checked.ok
    record = json.loads(checked.digest_file.read_text())
    assert record["digest"] == checked.digest == ap.task(f"folder:{place}").digest
    assert record["splits"]["test"]["images"] == 6
    again = tasks.check(f"folder:{place}", tmp_path, progress=False)
    assert again.table.set_index("what").loc["digest since the last check", "ok"]
    (place / "test/a/000.jpg").write_bytes(make.encoded(make.picture(250), "JPEG"))
    changed = tasks.check(f"folder:{place}", tmp_path, progress=False)
    row = changed.table.set_index("what").loc["digest since the last check"]
    assert not row["ok"]
    assert not changed.ok
    (tmp_path / "elsewhere").mkdir()  # another folder of the same name is not this one changed
    monkeypatch.chdir(tmp_path / "elsewhere")
    make.folder(Path("mine"), {"train": {"a": 9, "b": 9}, "test": {"a": 3, "b": 3}}).touch()
    assert tasks.check("folder:mine", tmp_path, progress=False).ok
    monkeypatch.chdir(tmp_path)
    assert tasks.check("folder:mine", tmp_path, progress=False).digest_file == checked.digest_file


def test_check_names_damaged_pictures_and_records(tmp_path):
    place = make.folder(tmp_path / "mine", {"train": {"a": 9, "b": 9}, "test": {"a": 3, "b": 3}})
    (place / "test/b/001.jpg").write_bytes(b"not a picture")
    table = tasks.check(f"folder:{place}", tmp_path, progress=False).table.set_index("what")
    assert not table.loc["test pictures readable", "ok"]
    assert "test/b/001.jpg" in table.loc["test pictures readable", "found"]
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    records = [make.example(image=make.encoded(pixels), label=n % 2) for n in range(12)]
    splits = {"train": [records], "validation": [records], "test": [records]}
    root = make.tfds_folder(tmp_path / "t", "toy", splits)
    assert tasks.check(f"tfds:{root}", tmp_path, progress=False).ok
    file = root / "toy-test.tfrecord-00000-of-00001"
    data = bytearray(file.read_bytes())
    place = data.index(b"label")
    data[place - 200] ^= 1  # within the picture
    file.write_bytes(data)
    table = tasks.check(f"tfds:{root}", tmp_path, progress=False).table.set_index("what")
    assert "damaged in the record" in table.loc["record checksums", "found"]


def test_check_of_an_unwritable_folder_goes_to_the_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checked = tasks.check("digits", tmp_path / "file", progress=False)
    assert checked.ok
    assert checked.digest_file.parent == tmp_path / "cache" / "checks"


def test_check_of_nothing():
    with pytest.raises(InputError, match="did you mean cifar100"):
        tasks.check("cifar1000")


def test_commands_name_no_machinery():
    from pathlib import Path

    for entry in REGISTRY.values():
        command = bring_command(entry, Path("DATA"))
        assert "http" not in command
        assert "DATA" in command


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_facts_of_the_embedded_tasks(name):
    task = ap.task(name)
    sizes = (len(task.train), len(task.val), len(task.test))
    assert EMBEDDED_FACTS[name] == (task.group, len(task.classes), sizes)


def test_a_folder_of_data_that_cannot_be_read_is_said_and_the_list_is_there(
    tmp_path, monkeypatch, caplog
):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    table = tasks.list_tasks(tmp_path).set_index("name")
    assert len(table) > 29
    assert caplog.text.count("cannot be read (Permission denied)") == 1
    with pytest.raises(InputError, match="let yourself read it, or name another"):
        ap.task("cifar100", root=tmp_path)
