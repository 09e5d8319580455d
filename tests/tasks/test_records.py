"""TFRecord, tf.train.Example, array_record and prepared TensorFlow Datasets folders."""

import contextlib
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import aptheory as ap
from aptheory.errors import InputError
from aptheory.tasks.readers import records
from aptheory.tasks.readers.tfds import TfdsFolder, tfds_task
from tests.tasks import tasks_fixtures as make


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


def test_crc32c_is_the_published_one():
    # RFC 3720, B.4: 32 bytes of zeros, of ones, rising, falling
    assert records.crc32c(bytes(32)) == 0x8A9136AA
    assert records.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert records.crc32c(bytes(range(32))) == 0x46DD794E
    assert records.crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


@given(st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=50, deadline=None)
def test_many_checksums_at_a_time(data):
    assert records.crc32c_many(data) == [make.crc_bitwise(record) for record in data]


def test_records_come_back(tmp_path):
    data = [b"", b"one", bytes(range(256)) * 5]
    file = make.tfrecord(tmp_path / "r", data)
    spans = records.record_spans(file)
    assert [records.read_record(file, span)[0] for span in spans] == data
    records.verify_records(file, spans)
    (tmp_path / "empty").write_bytes(b"")
    assert records.record_spans(tmp_path / "empty") == []


@pytest.mark.parametrize("cut", [5, 14, 30])
def test_a_cut_record_file_is_refused(tmp_path, cut):
    file = make.tfrecord(tmp_path / "r", [b"first record", b"second record"])
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(InputError, match="ends within record [01]"):
        records.record_spans(file)


def test_a_damaged_record_file_is_refused(tmp_path):
    file = make.tfrecord(tmp_path / "r", [b"first record", b"second record"])
    data = bytearray(file.read_bytes())
    data[0] ^= 1  # the length
    file.write_bytes(data)
    with pytest.raises(InputError, match="damaged at record 0"):
        records.record_spans(file)
    data[0] ^= 1
    data[14] ^= 1  # the record
    file.write_bytes(data)
    spans = records.record_spans(file)
    with pytest.raises(InputError, match="damaged in the record at byte 12"):
        records.verify_records(file, spans)


def test_an_example_comes_back():
    data = make.example(
        image=b"\x00\xffpixels", label=7, negative=[-1, -(1 << 62), 1 << 62], depth=[1.5, -2.25]
    )
    parsed = records.parse_example(data)
    assert parsed["image"] == [b"\x00\xffpixels"]
    assert parsed["label"].tolist() == [7]
    assert parsed["negative"].tolist() == [-1, -(1 << 62), 1 << 62]
    assert parsed["depth"].tolist() == [1.5, -2.25]
    assert "image" not in records.parse_example(data, skip="image")


def test_an_example_of_the_protobuf_library():
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="e.proto", package="t", syntax="proto3")
    kinds = {"BytesList": 12, "FloatList": 2, "Int64List": 3}
    for name, kind in kinds.items():
        message = file.message_type.add(name=name)
        message.field.add(name="value", number=1, label=3, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(kinds, start=1):
        feature.field.add(
            name=name.lower(),
            number=number,
            label=1,
            type=11,
            type_name=f".t.{name}",
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=9)
    entry.field.add(name="value", number=2, label=1, type=11, type_name=".t.Feature")
    features.field.add(
        name="feature", number=1, label=3, type=11, type_name=".t.Features.FeatureEntry"
    )
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=1, type=11, type_name=".t.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))()
    feature = made.features.feature
    feature["image"].byteslist.value.append(b"abc" * 100)
    feature["objects/location"].floatlist.value.extend([0.5, 1.5, -3.25])
    feature["label"].int64list.value.extend([3, -4, 1 << 40])
    feature["nothing"].int64list.SetInParent()
    parsed = records.parse_example(made.SerializeToString())
    assert parsed["image"] == [b"abc" * 100]
    assert parsed["objects/location"].tolist() == [0.5, 1.5, -3.25]
    assert parsed["label"].tolist() == [3, -4, 1 << 40]
    assert len(parsed["nothing"]) == 0


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_example_are_refused_or_empty(data):
    with contextlib.suppress(InputError):
        records.parse_example(data)


def plain(count, start=0):
    return [
        make.example(image=make.encoded(make.picture(n % 250)), label=n % 5)
        for n in range(start, start + count)
    ]


@pytest.mark.parametrize("form", ["tfrecord", "array_record"])
def test_slices_count_through_the_shards_in_order(tmp_path, form):
    if form == "array_record":
        pytest.importorskip("array_record")
    splits = {
        "train": [plain(20), plain(30, 20), plain(10, 50)],
        "test": [plain(20, 100)],
    }
    root = make.tfds_folder(tmp_path / "toy" / "3.0.2", "toy", splits, form=form)
    task = tfds_task(
        root,
        slices={"train": "train[:30]", "val": "train[45:55]", "test": "test[50%:]"},
        classes=5,
    )
    assert [len(s) for s in (task.train, task.val, task.test)] == [30, 10, 10]
    assert task.val.labels.tolist() == [n % 5 for n in range(45, 55)]
    x = task.val.images([7], (12, 9))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x, make.picture(52))
    assert "val = train[45:55]" in task.provenance
    again = pickle.loads(pickle.dumps(task))
    assert torch.equal(again.test.images([9], (8, 8)), task.test.images([9], (8, 8)))
    (root / "label.labels.txt").write_text("\n".join("abcde") + "\n")
    assert tfds_task(
        root, slices={"train": "train", "val": "train[:9]", "test": "test"}
    ).classes == (tuple("abcde"))


def test_the_two_record_formats_hold_the_same_task(tmp_path):
    pytest.importorskip("array_record")
    splits = {"train": [plain(20)], "validation": [plain(10, 20)], "test": [plain(10, 30)]}
    digests = {
        ap.task(f"tfds:{make.tfds_folder(tmp_path / form, 'toy', splits, form=form)}").digest
        for form in ("tfrecord", "array_record")
    }
    assert len(digests) == 1


def test_clevr_kitti_dsprites_and_smallnorb_labels(tmp_path):
    image = make.encoded(make.picture(50))
    clevr = [
        make.example(image=image, objects__pixel_coords=[0.0, 0.0, 12.0, 5.0, 5.0, depth] * 2)
        for depth in (7.5, 8.4, 9.9)
    ]
    kitti = [
        make.example(image=image, objects__type=[3, 1], objects__location=[0.0, 0.0, 1.0, 0, 0, z])
        for z in (5.0, 12.0, 40.0)
    ] + [make.example(image=image, objects__type=[], objects__location=[])]
    binary = make.encoded((make.picture(0) > 3).astype(np.uint8)[..., 0])
    dsprites = [
        make.example(image=binary, label_x_position=x, label_orientation=o)
        for x, o in ((0, 0), (31, 39), (16, 19))
    ]
    norb = [make.example(image=image, label_azimuth=a, label_elevation=8 - a) for a in (0, 5, 8)]
    cases = [
        ("clevr_count", clevr, 8, [1, 1, 1]),
        ("clevr_distance", clevr, 6, [0, 1, 4]),
        ("kitti_distance", kitti, 4, [0, 1, 2, 3]),
        ("dsprites_location", dsprites, 16, [0, 15, 8]),
        ("dsprites_orientation", dsprites, 16, [0, 15, 7]),
        ("smallnorb_azimuth", norb, 18, [0, 5, 8]),
        ("smallnorb_elevation", norb, 9, [8, 3, 0]),
    ]
    for rule, data, classes, labels in cases:
        root = make.tfds_folder(tmp_path / rule, "toy", {"train": [data], "test": [data]})
        slices = {"train": "train", "val": "train[:1]", "test": "test"}
        task = tfds_task(root, slices=slices, rule=rule, classes=classes)
        assert task.train.labels.tolist() == labels, rule
        x = task.train.images([0], (12, 9))
        assert x.shape == (1, 3, 12, 9)
        if rule.startswith("dsprites"):
            assert set(x.unique().tolist()) == {0, 255}


def test_prepared_folders_that_cannot_be_used(tmp_path):
    def made(name):
        splits = {"train": [plain(9), plain(9)], "validation": [plain(3)], "test": [plain(3)]}
        return make.tfds_folder(tmp_path / name, "toy", splits)

    root = made("missing")
    (root / "toy-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(InputError, match="holds 1 of 2 record files of split 'train'"):
        ap.task(f"tfds:{root}")
    root = made("cut")
    file = root / "toy-train.tfrecord-00001-of-00002"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="00001-of-00002 ends within record 8"):
        ap.task(f"tfds:{root}")
    root = made("short")
    make.tfrecord(root / "toy-train.tfrecord-00001-of-00002", plain(5))
    with pytest.raises(InputError, match="holds 5 records, but dataset_info.json says 9"):
        ap.task(f"tfds:{root}")
    root = made("nolabel")
    make.tfrecord(root / "toy-test.tfrecord-00000-of-00001", [make.example(image=b"x")] * 3)
    with pytest.raises(InputError, match="has no whole number 'label'"):
        ap.task(f"tfds:{root}")
    root = made("noexample")
    make.tfrecord(root / "toy-test.tfrecord-00000-of-00001", [b"\xff\xff\xff"] * 3)
    with pytest.raises(InputError, match="#0: the record is not"):
        ap.task(f"tfds:{root}")
    root = made("noimage")
    make.tfrecord(root / "toy-test.tfrecord-00000-of-00001", [make.example(label=1)] * 3)
    with pytest.raises(InputError, match="has no feature 'image'"):
        ap.task(f"tfds:{root}").test.images([0], (8, 8))
    root = made("info")
    (root / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="dataset_info.json cannot be read"):
        ap.task(f"tfds:{root}")
    with pytest.raises(InputError, match=r"has no dataset_info.json"):
        ap.task(f"tfds:{tmp_path}")


@pytest.mark.parametrize(
    ("splits", "said"), [(["train", "test"], "validation"), (["train"], "cut")]
)
def test_a_split_that_the_set_does_not_have_is_cut(tmp_path, splits, said):
    made = {split: [plain(30)] for split in splits}
    root = make.tfds_folder(tmp_path / "t/1.0.0", "toy", made)
    task, again = ap.task(f"tfds:{root}"), ap.task(f"tfds:{root}")
    sizes = [len(split) for split in (task.train, task.val, task.test)]
    assert sum(sizes) == 30 * len(splits)
    assert min(sizes) > 0
    assert said in task.provenance
    assert task.digest == again.digest
    (root / "toy-train.tfrecord-00000-of-00001").unlink()  # which dataset_info.json speaks of
    with pytest.raises(InputError, match="no record file of split 'train'"):
        ap.task(f"tfds:{root}")


def test_what_a_prepared_folder_says_of_itself(tmp_path):
    several = {"train": [[make.example(image=b"x", label=[1, 2])] * 3]}
    with pytest.raises(InputError, match=r"no whole number 'label' \(2 numbers\)"):
        ap.task(f"tfds:{make.tfds_folder(tmp_path / 'a', 'toy', several)}")
    root = make.tfds_folder(tmp_path / "set/1.0.0", "toy", {"train": [plain(30)]})
    info = json.loads((root / "dataset_info.json").read_text())
    for name in ("n" * 10**5, ["a"], ""):
        (root / "dataset_info.json").write_text(json.dumps({**info, "name": name}))
        task = ap.task(f"tfds:{root}")
        assert task.name == "set"
        assert len(str(task)) < 2000


def test_slices_that_cannot_be_had(tmp_path):
    folder = TfdsFolder(make.tfds_folder(tmp_path / "t", "toy", {"train": [plain(9)]}))
    assert len(folder.keys("train[2:]")) == 7
    for text, message in {
        "train[:10]": "records 0 to 10 of 9",
        "train[5:5]": "records 5 to 5",
        "train[a:b]": "not a slice",
        "test": "no record file of split 'test'",
    }.items():
        with pytest.raises(InputError, match=message):
            folder.keys(text)


def test_shard_lengths_are_counted_where_the_info_lacks_them(tmp_path):
    root = make.tfds_folder(tmp_path / "t", "toy", {"train": [plain(4), plain(5)]})
    info = json.loads((root / "dataset_info.json").read_text())
    del info["splits"][0]["shardLengths"]
    (root / "dataset_info.json").write_text(json.dumps(info))
    assert len(TfdsFolder(root).keys("train")) == 9
