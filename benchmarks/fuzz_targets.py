"""What `benchmarks.fuzz` harms: every reader, checkpoint, study, outcome, prompt, rule and report.

A target is made once in a folder of its own; each case draws one harmed input and reads it.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shlex
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutations import (
    HOSTILE,
    either,
    encoded,
    harm_bytes,
    harm_cells,
    harm_text,
    harm_value,
)

Case = Callable[[random.Random], Any]
Target = Callable[[Path], Case]
TARGETS: dict[str, Target] = {}


def target(make: Target) -> Target:
    """Register a target under its function's name."""
    TARGETS[make.__name__] = make
    return make


def _picture(shade: int, form: str = "PNG") -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (9, 8), (shade % 256, 40, 90)).save(data, form)
    return data.getvalue()


def _read_task(uri: str) -> Any:
    """Open a task and look at a picture of each split."""
    import aptheory as ap

    task = ap.task(uri)
    return [getattr(task, split).images([0], (8, 8)) for split in ("train", "val", "test")]


def _file_case(
    path: Path, harmed: Callable[[random.Random], bytes], read: Callable[[], Any]
) -> Case:
    def case(draw: random.Random) -> Any:
        path.write_bytes(harmed(draw))
        return read()

    return case


# ---------------------------------------------------------------------------------- data sets


def _arrays() -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(40) % 4
    return {
        "x_train": pixels,
        "y_train": labels,
        "x_test": pixels[:12],
        "y_test": labels[:12],
        "class_names": np.array(["ant", "bee", "cow", "dog"]),
    }


@target
def npz(folder: Path) -> Case:
    path = folder / "a.npz"
    np.savez(path, **_arrays())  # type: ignore[arg-type]
    whole = path.read_bytes()
    odd: list[Any] = [
        np.zeros(()), np.zeros((0, 0)), np.array("x"), np.array([1e300]), np.array([2**62]),
        np.array([b"\xff"]), np.array([np.nan]), np.zeros((3, 2), bool), np.array(["a", "a"]),
        np.zeros((40, 6, 6, 3), np.float16), np.arange(40) * 10**8, np.array([1j]),
    ]  # fmt: skip

    def structured(draw: random.Random) -> bytes:
        arrays: dict[str, Any] = _arrays()
        key = draw.choice(list(arrays))
        match draw.randrange(3):
            case 0:
                del arrays[key]
            case 1:
                arrays[key] = draw.choice(odd)
            case 2:
                arrays[draw.choice(("x_val", "y_val", "", "a/b"))] = draw.choice(odd)
        data = io.BytesIO()
        np.savez(data, **arrays)
        if draw.random() < 0.3:
            with zipfile.ZipFile(data, "a") as archive:
                archive.writestr(draw.choice(("x_val.npy", "note.txt", "y_test.npy")), b"no array")
        return data.getvalue()

    return _file_case(path, either(structured, whole), lambda: _read_task(f"npz:{path}"))


def _picture_tree(root: Path) -> list[str]:
    names = [
        f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("ant", "bee") for i in range(6)
    ]
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_picture(9 * number))
    return names


@target
def pictures(folder: Path) -> Case:
    _picture_tree(folder)
    path = folder / "train/ant/0.png"
    forms = [_picture(5, form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]

    def harmed(draw: random.Random) -> bytes:
        return harm_bytes(draw.choice(forms), draw)

    return _file_case(path, harmed, lambda: _read_task(f"folder:{folder}"))


@target
def folder_names(folder: Path) -> Case:
    def case(draw: random.Random) -> Any:
        import shutil

        root = folder / "data"
        shutil.rmtree(root, ignore_errors=True)
        names = _picture_tree(root)
        for name in draw.sample(names, 3):
            match draw.randrange(4):
                case 0:
                    (root / name).unlink(missing_ok=True)
                case 1:
                    with contextlib.suppress(OSError, ValueError):
                        other = root / name
                        other.replace(other.with_name(str(draw.choice(HOSTILE))[:60]))
                case 2:
                    with contextlib.suppress(OSError):
                        (root / "train" / f"loop{draw.randrange(9)}").symlink_to(root)
                case 3:
                    shutil.rmtree((root / name).parent, ignore_errors=True)
        return _read_task(f"folder:{root}")

    return case


@target
def zipped(folder: Path) -> Case:
    names = _picture_tree(folder / "data")

    def archive(changed: dict[str, str]) -> bytes:
        data = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(data, "w") as file:
            warnings.simplefilter("ignore")
            for name in names:
                file.writestr(changed.get(name, name), (folder / "data" / name).read_bytes())
        return data.getvalue()

    def structured(draw: random.Random) -> bytes:
        odd = ("../x.png", "/etc/x.png", "a\\b.png", "x" * 300, "train/é/1.png", "train//.png")
        return archive({draw.choice(names): draw.choice(odd) for _ in range(3)})

    path = folder / "a.zip"
    return _file_case(path, either(structured, archive({})), lambda: _read_task(f"folder:{path}"))


@target
def webdataset(folder: Path) -> Case:
    def shard(harm: Callable[[str], tuple[str, bytes]] | None = None) -> bytes:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as file:
            for number in range(20):
                parts = ((f"{number:04d}.png", _picture(number)), (f"{number:04d}.cls", b"%d"))
                for name, body in parts:
                    body = b"%d" % (number % 2) if name.endswith("cls") else body
                    if harm is not None and number == 3:
                        name, body = harm(name)
                    info = tarfile.TarInfo(name)
                    info.size = len(body)
                    file.addfile(info, io.BytesIO(body))
        return data.getvalue()

    def structured(draw: random.Random) -> bytes:
        odd = ("9" * 400, "-1", "1e9", "Infinity", "²", "", "[1]", "null", str(2**70))
        forms = ("cls", "json", "txt", "png", "label", "__x")
        return shard(lambda _: (f"0003.{draw.choice(forms)}", draw.choice(odd).encode()))

    path = folder / "train-000000.tar"
    (folder / "test-000000.tar").write_bytes(shard())
    return _file_case(path, either(structured, shard()), lambda: _read_task(f"webdataset:{folder}"))


@target
def fgvc(folder: Path) -> Case:
    entries = {f"images/{number}.png": number % 3 for number in range(30)}
    for name in entries:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(_picture(7 * len(name) + int(Path(name).stem)))
    (folder / "test.json").write_text(json.dumps(entries))
    whole = json.dumps(entries).encode()

    def structured(draw: random.Random) -> bytes:
        return encoded(harm_value(entries, draw)).encode("utf-8", "surrogatepass")

    path = folder / "train.json"
    return _file_case(path, either(structured, whole), lambda: _read_task(f"fgvc:{folder}"))


@target
def vtab(folder: Path) -> Case:
    (folder / "images").mkdir()
    for number in range(10):
        (folder / f"images/{number}.png").write_bytes(_picture(number))
    lists = {"train800": 800, "val200": 200, "test": 30}
    for name, count in lists.items():
        lines = [f"images/{index % 10}.png {index % 5}" for index in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    path = folder / "val200.txt"
    whole = path.read_text()

    def structured(draw: random.Random) -> bytes:
        lines = whole.splitlines()
        for _ in range(3):
            at = draw.randrange(len(lines))
            lines[at] = harm_text(lines[at], draw)
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    read = lambda: _read_task(f"vtab:{folder}")  # noqa: E731
    return _file_case(path, either(structured, whole.encode()), read)


def _crc(data: bytes) -> bytes:
    """TFRecord's masked CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    crc ^= 0xFFFFFFFF
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _record(body: bytes) -> bytes:
    length = len(body).to_bytes(8, "little")
    return length + _crc(length) + body + _crc(body)


def _example(picture: bytes, label: int) -> bytes:
    """A tf.train.Example with the features ``image`` and ``label``, in protocol buffers."""

    def field(number: int, payload: bytes) -> bytes:
        size, length = len(payload), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    features = {b"image": field(1, field(1, picture)), b"label": field(3, field(1, bytes([label])))}
    return field(1, b"".join(field(1, field(1, k) + field(2, v)) for k, v in features.items()))


@target
def tfds(folder: Path) -> Case:
    info = {
        "name": "x", "version": "1.0.0", "fileFormat": "tfrecord",
        "splits": [
            {"name": name, "shardLengths": [count], "numBytes": "100",
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}
            for name, count in (("train", "12"), ("validation", "4"), ("test", "4"))
        ],
    }  # fmt: skip
    (folder / "features.json").write_text(json.dumps({"pythonClassName": "FeaturesDict"}))
    record = folder / "x-train.tfrecord-00000-of-00001"
    train = b"".join(_record(_example(_picture(40 * n), n % 2)) for n in range(12))
    test = b"".join(_record(_example(_picture(40 * n + 9), n % 2)) for n in range(4))
    for name in ("validation", "test"):
        (folder / f"x-{name}.tfrecord-00000-of-00001").write_bytes(test)

    def case(draw: random.Random) -> Any:
        of_list = draw.random() < 0.5
        value = harm_value(info, draw) if of_list else info
        text = encoded(value).encode("utf-8", "surrogatepass")
        (folder / "dataset_info.json").write_bytes(text)
        if draw.random() < 0.5:  # with checksums that fit: what somebody would write who knows them
            harmed = harm_bytes(_example(_picture(3), 1), draw)
            record.write_bytes(_record(harmed) * 6 + train[len(train) // 2 :])
        else:
            record.write_bytes(train if of_list else harm_bytes(train, draw))
        return _read_task(f"tfds:{folder}")

    return case


@target
def task_names(folder: Path) -> Case:
    names = (
        "digits", "folder:nowhere", "npz:a.npz", "hf:a/b?config=x&limit=3", "torchvision:CIFAR10",
        "cub200", "vtab:x", "tfds:x/1.0.0", "webdataset:x", "fgvc:",
    )  # fmt: skip

    def case(draw: random.Random) -> Any:
        import aptheory as ap

        name = harm_text(draw.choice(names), draw)
        if name.startswith(("hf:", "torchvision:")):
            return None  # these ask the network
        return ap.task(name, root=folder)

    return case


# ------------------------------------------------------------------------------------- weights


def _state() -> dict[str, Any]:
    import torch

    return {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "layer.0.scale": torch.ones(2)}


@target
def safetensors(folder: Path) -> Case:
    from safetensors.torch import save

    from aptheory.networks.checkpoint import read_checkpoint

    whole = save(_state())
    length = int.from_bytes(whole[:8], "little")

    def structured(draw: random.Random) -> bytes:
        header = encoded(harm_value(json.loads(whole[8 : 8 + length]), draw))
        head = header.encode("utf-8", "surrogatepass")
        return len(head).to_bytes(8, "little") + head + whole[8 + length :]

    path = folder / "a.safetensors"
    return _file_case(path, either(structured, whole), lambda: read_checkpoint(path))


@target
def pickled_weights(folder: Path) -> Case:
    import torch

    from aptheory.networks.checkpoint import read_checkpoint

    data = io.BytesIO()
    torch.save({"state_dict": _state(), "epoch": 3}, data)
    path = folder / "a.pt"

    def structured(draw: random.Random) -> bytes:
        odd = [None, 3, "x", [1], {"a": 1}, {1: torch.zeros(2)}, {}, torch.zeros(0)]
        out = io.BytesIO()
        torch.save(draw.choice([draw.choice(odd), {**_state(), "x": draw.choice(odd)}]), out)
        return out.getvalue()

    return _file_case(path, either(structured, data.getvalue()), lambda: read_checkpoint(path))


@target
def saved_prompts(folder: Path) -> Case:
    from safetensors import safe_open
    from safetensors.torch import save_file

    import aptheory as ap

    net = ap.load("aptheory_resnet_mini")
    net.digest  # noqa: B018 (remembered, so that no case computes it)
    path = folder / "a.safetensors"
    ap.save(ap.ActivationPrompt(layer=9).attach(net, classes=3), path)
    whole = path.read_bytes()
    with safe_open(str(path), framework="pt") as file:
        note, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def case(draw: random.Random) -> Any:
        if draw.random() < 0.3:
            path.write_bytes(harm_bytes(whole, draw))
        else:
            changed = dict(note)
            if draw.random() < 0.5:
                method = harm_value(json.loads(note["method"]), draw)
                changed["method"] = encoded(method)
            else:
                changed = {key: encoded(item) for key, item in harm_value(note, draw).items()}
            with contextlib.suppress(Exception):  # not even the writer takes it
                save_file(tensors, str(path), metadata=changed)
        return ap.attach_saved(net, path)

    return case


# ------------------------------------------------------------------------------------- studies

STUDY: dict[str, Any] = {
    "name": "where",
    "networks": [{"name": "aptheory_resnet_mini", "weights": "random", "seed": 1, "options": {}}],
    "tasks": [{"name": "digits", "train": 40, "val": 20, "test": 20, "label": "d"}],
    "methods": ["ap", "vpt:tokens=5", {"name": "lora", "rank": 2}],
    "layers": [0, 0.5, "head", -2],
    "recipes": [{"name": "quick", "epochs": 2, "lr": 0.1}],
    "seeds": [0, 1],
    "search": {"lr": [0.1, 0.01]},
    "together": 4,
    "device": "auto",
    "protocol": "standard",
}


@target
def study_values(folder: Path) -> Case:
    from aptheory.studies.study import Study

    return lambda draw: Study.from_dict(harm_value(STUDY, draw))


@target
def study_files(folder: Path) -> Case:
    from aptheory.studies.study import Study

    text = """
name = "where"
networks = ["aptheory_vit_mini", { name = "x", weights = "w.safetensors", options = { a = 1 } }]
tasks = ["digits", { name = "textures", train = 200, val = 100, test = 500 }]
methods = ["ap", "ap:shape=channel", "vpt:tokens=5"]
layers = "all"
recipe = { name = "quick", epochs = 10 }
seeds = [0, 1, 2]
search = { lr = [0.1, 0.01], weight_decay = [0.0, 1e-4] }
"""
    path = folder / "study.toml"

    def structured(draw: random.Random) -> bytes:
        return harm_text(text, draw).encode("utf-8", "surrogatepass")

    whole = text.encode()
    return _file_case(path, either(structured, whole), lambda: Study.from_toml(path))


@target
def plans(folder: Path) -> Case:
    """A harmed study that is still a study, laid out on its network."""
    from aptheory.studies.plan import make_plan
    from aptheory.studies.sources import load_network, load_task
    from aptheory.studies.study import Opened, OpenNetwork, OpenTask, Study

    spec, task_spec = STUDY["networks"][0], STUDY["tasks"][0]
    network = OpenNetwork(spec, load_network(spec))
    task = OpenTask(task_spec, load_task(task_spec))
    network.identity, task.identity, network.predictor.pace  # noqa: B018 (remembered)

    def case(draw: random.Random) -> Any:
        part = {key: STUDY[key] for key in ("methods", "layers", "recipes", "seeds", "search")}
        harmed = harm_value(part, draw)
        study = Study.from_dict({**harmed, "networks": [spec], "tasks": [task_spec]})
        if len(study.seeds) * len(study.recipes) * len(study.methods) > 200:
            return None
        return make_plan(Opened(study, (network,), (task,)))

    return case


def _records() -> list[Any]:
    from aptheory.studies.records import Record, key_of

    records = []
    for seed in range(2):
        identity = {
            "network": {"name": "n", "digest": "0"},
            "task": {"name": "t", "digest": "0", "group": "user"},
            "method": {"method": "ap", "layer": 1},
            "layer": {"index": 1, "name": "b", "depth": 0.5},
            "seed": seed,
        }
        outcome = {"test_accuracy": 0.5, "val_accuracy": 0.5, "labels": {"method": "ap"}}
        key = key_of(identity)
        records.append(Record(key, identity, "done", outcome, {"batch_seconds": 1.0}))
    return records


def _study_folder(folder: Path) -> Any:
    from aptheory.studies.store import Store

    store = Store(folder).create()
    records = _records()
    store.write_batch("a", records)
    labels = {"method": "ap", "role": "prompt", "recipe": "quick", "settings": ""}
    batch = {"runs": [record.key for record in records], "seconds": 1.0, "labels": labels}
    plan = {"name": "x", "not_applicable": [], "batches": {"a": batch}, "workers": 1}
    (folder / "plan.json").write_text(json.dumps(plan))
    return store


def _table_and_status(folder: Path) -> Any:
    from aptheory.studies.status import status
    from aptheory.studies.tables import runs, table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return status(folder).text(), len(table(folder)), len(runs(folder))


@target
def outcomes(folder: Path) -> Case:
    from aptheory.studies.records import checksum, key_of

    store = _study_folder(folder)
    record = _records()[0]
    whole = record.text().encode()

    def structured(draw: random.Random) -> bytes:
        """What somebody who can compute a checksum would write."""
        body = harm_value(json.loads(whole), draw)
        with contextlib.suppress(Exception):
            body.pop("checksum", None)
            if draw.random() < 0.5:
                body["key"] = key_of(body["identity"])
            body["checksum"] = checksum(body)
        return encoded(body).encode("utf-8", "surrogatepass")

    path = store.path(record.key)
    return _file_case(path, either(structured, whole), lambda: _table_and_status(folder))


@target
def journals(folder: Path) -> Case:
    from aptheory.studies.records import FORMAT, checksum

    store = _study_folder(folder)
    body = {"format": FORMAT, "records": [record.text() for record in _records()]}
    body["checksum"] = checksum(body)
    path = store.journal / "b.json"

    def structured(draw: random.Random) -> bytes:
        changed = harm_value(body, draw)
        with contextlib.suppress(Exception):
            changed.pop("checksum", None)
            changed["checksum"] = checksum(changed)
        return encoded(changed).encode("utf-8", "surrogatepass")

    whole = json.dumps(body).encode()
    return _file_case(path, either(structured, whole), store.recover)


@target
def plan_files(folder: Path) -> Case:
    _study_folder(folder)
    path = folder / "plan.json"
    whole = path.read_bytes()

    def structured(draw: random.Random) -> bytes:
        return encoded(harm_value(json.loads(whole), draw)).encode("utf-8", "surrogatepass")

    return _file_case(path, either(structured, whole), lambda: _table_and_status(folder))


# ------------------------------------------------------------------------------- methods, rules


@target
def method_texts(folder: Path) -> Case:
    from aptheory.methods import parse

    texts = (
        "ap:layer=5,shape=channel", "vpt:tokens=5,deep=true", "ap:layer=2+5", "lora:rank=2",
        "vp:frame=4,shrink=True", "norm_tuning:scale=False", "layer_probe:pooling=class",
        "mine:Class:layer=3", "adapter:bottleneck=8,scale=0.1", "full", "e2vpt:tokens=3",
    )  # fmt: skip
    return lambda draw: parse(harm_text(draw.choice(texts), draw))


@target
def method_settings(folder: Path) -> Case:
    from aptheory.methods import applicable, from_settings
    from aptheory.networks.loading import load

    settings = [method.settings() for method in applicable(load("aptheory_vit_mini", None))]
    return lambda draw: from_settings(harm_value(draw.choice(settings), draw), code=False)


@target
def recipes(folder: Path) -> Case:
    from aptheory.studies.plan import _recipe
    from aptheory.training.recipe import Recipe

    settings = Recipe().settings()
    return lambda draw: _recipe(harm_value(settings, draw))


@target
def places(folder: Path) -> Case:
    from aptheory.networks.loading import load

    net = load("aptheory_vit_mini", None)
    texts = ("all", "blocks", "blocks.3", "0.5", "-2", "11", "head", "1e3", "nan")

    def case(draw: random.Random) -> Any:
        text = harm_text(draw.choice(texts), draw)
        return net.places(draw.choice([text, [text], draw.choice(HOSTILE[5:16])]))

    return case


@target
def rules(folder: Path) -> Case:
    from aptheory.choosing.rule import Rule

    Rule.packaged().save(folder / "rule.json")
    path = folder / "rule.json"
    whole = path.read_bytes()

    def structured(draw: random.Random) -> bytes:
        return encoded(harm_value(json.loads(whole), draw)).encode("utf-8", "surrogatepass")

    return _file_case(path, either(structured, whole), lambda: Rule.load(path))


# -------------------------------------------------------------------------- reports, commands


def _tables(folder: Path) -> dict[str, str]:
    import pandas as pd

    methods = {"ap": (0, 1, 2, 3, 4), "linear_probe": (4,), "layer_probe": (0, 1, 2, 3)}
    accuracy = [
        {"network": "n", "task": "t", "group": "user", "method": method, "layer": layer,
         "layer_name": f"b{layer}", "depth": layer / 4, "recipe": "quick", "seed": seed,
         "measure": f"{split}_accuracy", "value": 0.5 + 0.01 * layer + 0.001 * seed}
        for method, layers in methods.items() for layer in layers for seed in range(3)
        for split in ("val", "test")
    ]  # fmt: skip
    profile = [
        {"network": "n", "task": "t", "layer": layer, "layer_name": f"b{layer}", "depth": layer / 4,
         "measure": measure, "other_layer": other, "value": 0.5, "low": 0.4, "high": 0.6}
        for layer in range(5)
        for measure, other in (("globality", None), ("cka", 0), ("cka", 1))
    ]  # fmt: skip
    return {
        "accuracy.csv": pd.DataFrame(accuracy).to_csv(index=False),
        "profile.csv": pd.DataFrame(profile).to_csv(index=False),
        "settings.json": json.dumps({"study": "x", "seeds": [0], "networks": {"n": "0"}}),
    }


@target
def reports(folder: Path) -> Case:
    """The tables of a folder as a page; the plots are drawn from the same tables."""
    from aptheory.reporting.page import html
    from aptheory.reporting.report import findings
    from aptheory.reporting.run_folder import Tables

    good = _tables(folder)

    def case(draw: random.Random) -> Any:
        name = draw.choice(list(good))
        for other, text in good.items():
            (folder / other).write_text(text)
        if name == "settings.json":
            harmed = encoded(harm_value(json.loads(good[name]), draw))
        else:
            harmed = harm_cells(good[name], draw)
        data = harmed.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(harm_bytes(data, draw) if draw.random() < 0.3 else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tables = Tables.read(folder)
            return findings(tables), html(tables)

    return case


@target
def command_line(folder: Path) -> Case:
    from aptheory.cli import app

    (folder / "accuracy.csv").write_text(_tables(folder)["accuracy.csv"])
    commands = (
        "layers aptheory_resnet_mini --granularity stage", "status x", "relate x", "report x",
        "sweep x.toml --dry-run", "sweep -n nowhere -t digits --layers 0,3 --seeds 2 --dry-run",
        "cost nowhere ap:layer=3 --batch-size 2 --classes 3", "tasks check nowhere",
        "profile nowhere -t digits -o out --subset 1,2,3 --images 3", "tasks",
        "recommend nowhere -t digits --images 20 --budget 0.1",
    )  # fmt: skip

    def case(draw: random.Random) -> Any:
        text = harm_text(draw.choice(commands), draw)
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        words = [word.replace("\0", "") for word in words]
        if any(word.split(".")[0].startswith(("vit", "resnet")) for word in words):
            return None  # a name of timm's asks the network for its weights
        with contextlib.chdir(folder), contextlib.suppress(SystemExit):
            app(words)
        return None

    return case
