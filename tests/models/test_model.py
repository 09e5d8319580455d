"""A model as something to use: kept in one file, brought back, asked about pictures."""

import copy
import io
import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import aptheory as ap
from aptheory.models.card import Card, deep_range
from aptheory.models.evaluation import evaluate
from tests.quarters import RECIPE, small_cnn, small_task


@pytest.fixture(scope="module")
def net():
    return small_cnn()


@pytest.fixture(scope="module")
def model(net):
    return ap.fit_model(net, small_task(), method="ap:shape=channel", layer=2, recipe=RECIPE)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def pixels():
    return small_task().test.pixels


def reference(model, pixels):
    """Class and probability, written out: one picture at a time through the plain module."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.network.mean, model.network.std))
    rows = []
    for picture in pixels:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255
        with torch.no_grad():
            logits = model.module(((x - mean) / std).float())[0].double().numpy()
        shares = np.exp(logits - logits.max())
        rows.append((model.classes[int(logits.argmax())], shares.max() / shares.sum()))
    return rows


def test_predictions_are_those_of_the_plain_module(model, pixels):
    table = model.predict(pixels, batch_size=7)
    for (name, share), row in zip(
        reference(model, pixels), table.itertuples(index=False), strict=True
    ):
        assert row[1] == name
        assert row[2] == pytest.approx(share, abs=1e-5)


def test_deep_pictures_are_brought_to_bytes_as_in_training(net, tmp_path):
    """By the range of the set that it was trained on, which one picture does not tell."""
    rng = np.random.default_rng(0)
    for number in range(24):
        place = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        top = (4095, 900)[number // 2 % 2]  # half of them are dark
        Image.fromarray(rng.integers(0, top, (16, 16)).astype(np.uint16)).save(place)
    task = ap.task(tmp_path / "set")
    model = ap.fit_model(net, task, method="linear_probe", recipe=RECIPE)
    assert model.card.task["deep"] == [0, 4095, True]
    model.save(tmp_path / "m.safetensors")
    model = ap.load_model(tmp_path / "m.safetensors", network=net)
    images = task.test.images(range(len(task.test)), model.preprocessing)
    expected = model.probabilities(images)
    for key, shares in zip(task.test.keys, expected, strict=True):
        row = model.predict(tmp_path / "set" / key).iloc[0]
        assert row["probability"] == pytest.approx(shares.max(), abs=1e-6)


def test_one_deep_picture_among_many_is_noticed(net, tmp_path, monkeypatch):
    """Wherever it lies: the headers of a few do not tell."""
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("aptheory.tasks.readers.files.PEEKED", 1)
    rng = np.random.default_rng(0)
    for number in range(160):
        place = tmp_path / "set" / "ab"[number % 2] / f"{number:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        deep = number in (31, 63)
        values = rng.integers(0, 65535 if deep else 255, (16, 16))
        Image.fromarray(values.astype(np.uint16 if deep else np.uint8)).save(place)
    for _ in range(2):  # found, and kept in the cache
        task = ap.task(tmp_path / "set")
        # Before a picture is read: whoever saves a model may not be who trained it.
        assert deep_range(task) == {"deep": [0, 65535, True]}
        model = ap.fit_model(net, task, method="linear_probe", recipe=RECIPE)
        assert model.card.task["deep"] == [0, 65535, True]
    assert not model.predict(tmp_path / "set" / "b" / "031.png").empty
    assert evaluate(model, task).scores["value"].notna().any()
    for number in (31, 63):
        (tmp_path / "set" / "b" / f"{number:03d}.png").unlink()
    shallow = ap.fit_model(net, ap.task(tmp_path / "set"), method="linear_probe", recipe=RECIPE)
    assert "deep" not in shallow.card.task
    with pytest.raises(ap.InputError, match="pictures of set have more than 8 bits"):
        evaluate(shallow, task)


def test_a_deep_picture_is_noticed_under_a_wrong_name(net, tmp_path):
    """A PNG of 16 bits that is called .jpg, which never has more than 8."""
    for number in range(24):
        place = tmp_path / "set" / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 60000, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(place, "PNG")
    task = ap.task(tmp_path / "set")
    assert "values 0 to 65535 brought to 0 to 255" in " ".join(task.notes)
    images = task.train.images(range(4), (16, 16))
    assert len(images.unique()) > 100
    model = ap.fit_model(net, task, method="linear_probe", recipe=RECIPE)
    assert model.card.task["deep"] == [0, 65535, True]


def test_few_deep_pictures_of_another_set_are_evaluated_as_in_training(net, tmp_path, monkeypatch):
    """Also where they lie so that the headers of a few do not tell."""
    monkeypatch.setattr("aptheory.tasks.readers.files.PEEKED", 1)
    rng = np.random.default_rng(0)
    for name, count in (("set", 24), ("few", 160)):
        for number in range(count):
            place = tmp_path / name / "test" / "ab"[number % 2] / f"{number:03d}.tif"
            place.parent.mkdir(parents=True, exist_ok=True)
            deep = name == "set" or number in (31, 63)
            values = rng.integers(0, 4095 if name == "set" else 900 if deep else 255, (16, 16))
            Image.fromarray(values.astype(np.uint16 if deep else np.uint8)).save(place)
    model = ap.fit_model(net, ap.task(tmp_path / "set" / "test"), recipe=RECIPE, method="ap")
    task = ap.task(tmp_path / "few" / "test")
    found = evaluate(model, task)
    asked = model.predict([name.replace(": ", "/") for name in found.names])
    assert found.shares.max(1) == pytest.approx(asked["probability"].to_numpy(), abs=1e-6)
    augmented = evaluate(model, task.augmented(lambda image: image), split="train")
    assert augmented.shares == pytest.approx(evaluate(model, task, split="train").shares, abs=1e-6)


def test_deep_pictures_say_nothing_to_a_model_of_8_bits(model, pixels, tmp_path, caplog):
    """By its own range one of a single brightness would be black."""
    for name, values in {
        "bright.png": np.full((16, 16), 60000, np.uint16),
        "float.tif": np.full((16, 16), 0.9, np.float32),
    }.items():
        Image.fromarray(values).save(tmp_path / name)
        assert model.predict(tmp_path / name).empty
        assert f"{name} has more than 8 bits a value" in caplog.messages[-1]
    values = pixels.astype(np.uint16)[..., 0] * 257
    deep = ap.Task.from_arrays(values, np.arange(len(values)) % 4, names=model.classes)
    with pytest.raises(ap.InputError, match="learned on pictures of 8 bits"):
        evaluate(model, deep)


def test_deep_pictures_are_evaluated_as_in_training(net, tmp_path):
    """The dark half of a set is not stretched to the range that it has by itself."""
    rng = np.random.default_rng(0)
    for name, top in (("set", 4095), ("dark", 900)):
        for number in range(24):
            place = tmp_path / name / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            values = rng.integers(0, top, (16, 16))
            values.flat[0] = top
            Image.fromarray(values.astype(np.uint16)).save(place)
    model = ap.fit_model(net, ap.task(tmp_path / "set"), method="linear_probe", recipe=RECIPE)
    dark = ap.task(tmp_path / "dark").subset(test=4)
    found = evaluate(model, dark)
    asked = model.predict([name.replace(": ", "/") for name in found.names])
    assert found.shares.max(1) == pytest.approx(asked["probability"].to_numpy(), abs=1e-6)
    own = model.probabilities(dark.test.images(range(4), model.preprocessing))
    assert np.abs(own - found.shares).max() > 1e-3


def test_arrays_of_more_than_8_bits_leave_their_range_to_new_pictures(net, tmp_path):
    rng = np.random.default_rng(0)

    def arrays(top):
        values = rng.integers(0, top, (24, 16, 16)).astype(np.uint16)
        values.flat[0] = top
        return ap.Task.from_arrays(values, np.arange(24) % 2)

    task = arrays(4095)
    model = ap.fit_model(net, task, method="linear_probe", recipe=RECIPE)
    assert model.card.task["deep"] == [0, 4095, True]
    assert evaluate(model, task.subset(test=2)).shares.shape == (2, 2)
    with pytest.raises(ap.InputError, match=r"values 0 to 1023 .* learned on values 0 to 4095"):
        evaluate(model, arrays(900).subset(test=2))
    dark = rng.integers(0, 900, (16, 16)).astype(np.uint16)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    share = model.predict(tmp_path / "dark.png")["probability"].iloc[0]
    as_bytes = model.predict((dark >> 4).astype(np.uint8))["probability"].iloc[0]
    assert share == pytest.approx(as_bytes, abs=1e-6)


def test_the_batch_size_changes_nothing(model, pixels):
    one, many = model.predict(pixels[:9], batch_size=1), model.predict(pixels[:9], batch_size=9)
    assert one["class"].tolist() == many["class"].tolist()
    assert np.allclose(one["probability"], many["probability"], atol=1e-6)


def test_top_k_are_ordered_and_sum_to_one(model, pixels):
    table = model.predict(pixels[:5], top=99)  # no more than there are classes
    assert list(table.columns[:3]) == ["path", "class", "probability"]
    shares = table[[c for c in table if c.startswith("probability")]].to_numpy()
    assert shares.shape == (5, 4)
    assert (np.diff(shares, axis=1) <= 0).all()
    assert np.allclose(shares.sum(1), 1)
    names = table[[c for c in table if c.startswith("class")]]
    assert all(set(row) == set(model.classes) for row in names.to_numpy())


def test_files_folders_pictures_and_arrays_give_the_same(model, pixels, tmp_path):
    for number, picture in enumerate(pixels[:3]):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    sources = [
        tmp_path,
        str(tmp_path),
        paths,
        [Image.open(path) for path in paths],
        list(pixels[:3]),
        torch.from_numpy(pixels[:3]).permute(0, 3, 1, 2),
    ]
    wanted = model.predict(pixels[:3]).drop(columns="path")
    for source in sources:
        assert model.predict(source).drop(columns="path").equals(wanted), source
    assert model.predict(paths)["path"].tolist() == [str(path) for path in paths]


def test_grey_and_transparent_pictures_are_taken(model, pixels):
    grey = Image.fromarray(pixels[0]).convert("L")
    asked = model.predict([grey, grey.convert("RGBA"), np.asarray(grey)])
    assert list(asked["path"]) == ["picture 0", "picture 1", "array 2"]


def test_damaged_pictures_are_named_and_passed_over(model, pixels, tmp_path, caplog):
    Image.fromarray(pixels[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    table = model.predict(tmp_path)
    assert len(table) == 1
    assert "bad.jpg" in table.attrs["passed_over"][0]
    (tmp_path / "a\nb.png").write_bytes(b"no picture")
    model.predict([tmp_path / "a\nb.png"])
    assert "a\\nb.png" in caplog.messages[-1]
    (tmp_path / "link.png").symlink_to("nowhere.png")
    with pytest.raises(ap.InputError, match="link.png is a link that leads nowhere"):
        model.predict(tmp_path / "link.png")
    assert "bad.jpg" in caplog.text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere.png", "does not exist"),
        (7, "expected paths"),
        ([], "no picture"),
        (np.zeros((4, 4, 3), np.float32), "expected bytes .uint8, from 0 to 255."),
        (torch.rand(2, 3, 4, 5), r"shape \(2, 3, 4, 5\) and type torch.float32"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), "expected bytes"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"of shape \(0, 4, 4, 3\) holds no picture"),
    ],
)
def test_what_is_no_picture_is_refused(model, source, reason):
    with pytest.raises(ap.InputError, match=reason):
        model.predict(source)


def test_a_closed_picture_is_damaged(model, pixels, caplog):
    closed = Image.fromarray(pixels[0])
    closed.close()
    table = model.predict([closed, Image.fromarray(pixels[1])])
    assert len(table) == 1
    assert "give it open and whole" in caplog.text


def test_what_a_folder_holds_that_is_not_there_is_said(model, pixels, tmp_path, caplog):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert len(model.predict(tmp_path)) == 1
    assert "left out 1 × link that leads nowhere" in caplog.text
    assert "left out 1 × pipe or device" in caplog.text


def test_an_empty_folder_is_refused(model, tmp_path):
    with pytest.raises(ap.InputError, match="holds no picture"):
        model.predict(tmp_path)


def test_transform_is_what_the_module_takes(model, pixels):
    x = model.transform(pixels[0])
    expected = model.network.normalize(torch.from_numpy(pixels[:1]).permute(0, 3, 1, 2))[0]
    assert torch.equal(x, expected)
    with pytest.raises(ap.InputError, match="one picture"):
        model.transform(list(pixels[:2]))


def test_the_file_brings_back_the_model(model, net, file, pixels):
    again = ap.load_model(file, network=net)
    assert again.predict(pixels).equals(model.predict(pixels))
    assert again.classes == model.classes
    assert not again.module.training
    assert again.card == Card.read(file)
    assert again.card.scores == model.card.scores


def test_the_card_says_how_it_was_made(model, net):
    card = model.card
    assert (card.name, card.digest) == (net.name, net.digest)
    assert card.method["layer"] == 2
    assert card.task["train"] == 90
    assert card.training["recipe"]["epochs"] == RECIPE.epochs
    assert 0 <= card.scores["val_accuracy"] <= 1
    assert "layer 2" in str(model)


def test_another_networks_weights_are_refused(file):
    torch.manual_seed(1)
    other = ap.load(
        "resnet10t", weights=None, input_shape=(3, 16, 16), channels=(8, 8, 16, 16), stem_width=8
    )
    with pytest.raises(ap.InputError, match="other weights"):
        ap.load_model(file, network=other)


def rewritten(file, tmp_path, **changes):
    """The same tensors under a header whose card says something else."""
    with safe_open(str(file), framework="pt") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    values = json.loads(header["model"])
    for name, value in changes.items():
        values[name] = value(values) if callable(value) else value
    path = tmp_path / "rewritten.safetensors"
    save_file(tensors, str(path), metadata={**header, "model": json.dumps(values)})
    return path


def test_a_changed_note_is_told(net, file, tmp_path, caplog):
    ap.load_model(file, network=net)
    assert not caplog.records
    swapped = rewritten(file, tmp_path, classes=lambda card: card["classes"][::-1])
    ap.load_model(swapped, network=net)
    assert "its note was changed after it was written" in caplog.text


@pytest.mark.parametrize(
    "network",
    [
        {"factory": "os:getcwd"},
        {"factory": "os:getcwd", "name": "resnet10t"},
        {"name": "hf-hub:somebody/network"},
        {"name": "local-dir:somewhere"},
        {"name": "torchvision:somebody:network"},
        {"name": "resnet10t", "options": {"checkpoint_path": "somewhere.bin"}},
        {"name": "resnet10t", "options": {"pretrained_cfg": {"file": "somewhere.bin"}}},
        {"name": ["resnet10t"]},
    ],
)
def test_a_file_never_runs_code(file, tmp_path, network, monkeypatch):
    monkeypatch.setattr("aptheory.models.model.load_network", lambda spec: pytest.fail(str(spec)))
    with pytest.raises(ap.InputError, match="made by code"):
        ap.load_model(rewritten(file, tmp_path, network=network))


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "vit_tiny_patch16_224"])
def test_a_file_makes_the_networks_of_the_packages(file, tmp_path, name, monkeypatch):
    class Made(Exception):
        pass

    def load_network(spec):
        raise Made(spec["name"])

    monkeypatch.setattr("aptheory.models.model.load_network", load_network)
    with pytest.raises(Made, match=name):
        ap.load_model(rewritten(file, tmp_path, network={"name": name, "weights": "random"}))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("resnet10t", {"name": "resnet10t"}),
        ({"name": "resnet10t", "label": "x"}, {"name": "resnet10t"}),
        ("mine:network", {"factory": "mine:network", "options": {"checkpoint_path": "x"}}),
        ({}, None),
        ({"label": "x"}, None),
        ({"weights": "random"}, None),
    ],
)
def test_a_network_that_is_named_takes_the_place_of_the_file_s_own(
    file, tmp_path, monkeypatch, given, kept
):
    made = []

    def load_network(spec):
        made.append(spec)
        raise ap.InputError("seen")

    monkeypatch.setattr("aptheory.models.model.load_network", load_network)
    hostile = {"factory": "payload:fn", "options": {"checkpoint_path": "x"}}
    path = rewritten(file, tmp_path, network=hostile)
    with pytest.raises(ap.InputError, match="seen" if kept else "with the name or the factory"):
        ap.load_model(path, network=given)
    assert made == ([] if kept is None else [kept | {"label": ap.models.card.Card.read(file).name}])


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": []},
        {"classes": [1, 2, 3, 4]},
        {"classes": "abcd"},
        {"classes": lambda card: ["x" * 10**6, *card["classes"][1:]]},
        {"classes": lambda card: ["a"] * len(card["classes"])},
        {"digest": 3},
        {"method": None},
        {"network": []},
        {"scores": {"test_accuracy": "good"}},
        {"scores": {"test_accuracy": math.nan}},
        {"scores": {"val_accuracy": 1e9}},
        {"task": {"test": -5}},
        {"task": {"test": 20.5}},
        {"task": {"train": 10**18}},
        {"training": {"recipe": "x"}},
        {"training": {"recipe": [1]}},
        {"task": {"deep": [0, 0, True]}},
        {"task": {"deep": [math.nan, 1, True]}},
        {"task": {"deep": [1e308, -1e308, True]}},
        {"task": {"deep": 5}},
        {"transform": lambda card: card["transform"] | {"input_shape": [3, 10**9, 10**9]}},
        {"transform": lambda card: card["transform"] | {"input_shape": [3, 0, 0]}},
        {"transform": lambda card: card["transform"] | {"mean": [math.nan] * 3}},
        {"transform": lambda card: card["transform"] | {"std": [0, 0, 0]}},
        {"transform": lambda card: card["transform"] | {"std": [1e-30] * 3}},
        {"transform": lambda card: card["transform"] | {"crop": -5}},
    ],
)
def test_a_card_that_makes_no_sense_is_refused(net, file, tmp_path, changes):
    with pytest.raises(
        ap.InputError, match=r"not say|usable transform|deep pictures|letters|called"
    ):
        ap.load_model(rewritten(file, tmp_path, **changes), network=net)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("mean", {"mean": [0.1, 0.2, 0.3]}),
        ("std", {"std": [0.1, 0.2, 0.3]}),
        ("size", {"input_shape": [3, 24, 24]}),
        ("mean", {"mean": [0.5], "std": [0.5]}),
    ],
)
def test_images_of_another_scaling_or_size_are_refused(net, file, tmp_path, words, changed):
    path = rewritten(file, tmp_path, transform=lambda card: card["transform"] | changed)
    with pytest.raises(ap.InputError, match=f"was trained on images of {words} .* takes"):
        ap.load_model(path, network=net)


def test_what_is_no_number_is_not_saved(net, tmp_path):
    model = ap.fit_model(net, small_task(), method="ap:shape=channel", layer=2, recipe=RECIPE)
    with torch.no_grad():
        model.adapted.head.bias.values[0].fill_(math.nan)
    with pytest.raises(ap.InputError, match="head.bias holds values that are not finite"):
        model.save(tmp_path / "broken.safetensors")
    assert not os.listdir(tmp_path)


def test_a_network_whose_weights_are_no_numbers_is_refused(net):
    broken = net.share()
    broken.module = copy.deepcopy(net.module)
    with torch.no_grad():
        next(broken.module.parameters()).view(-1)[0] = math.nan
    with pytest.raises(ap.InputError, match="the features of .* are no numbers .nan or inf. for"):
        ap.fit_model(broken, small_task(), method="ap:shape=channel", layer=2, recipe=RECIPE)


def test_a_plain_module_takes_its_images_as_it_did(tmp_path):
    scaling = {"mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1)}
    made = small_cnn().module
    before = ap.load(made, None, input_shape=(3, 16, 16), name="mine", **scaling)
    model = ap.fit_model(before, small_task(), method="ap:shape=channel", layer=2, recipe=RECIPE)
    model.save(tmp_path / "mine.safetensors")
    again = ap.load_model(tmp_path / "mine.safetensors", network=made)
    assert (again.network.mean, again.network.std) == (scaling["mean"], scaling["std"])
    pixels = small_task().test.pixels
    assert again.predict(pixels).equals(model.predict(pixels))


@pytest.mark.parametrize(
    "network",
    [
        {"name": "resnet10t", "options": 5},
        {"name": "resnet10t", "input_shape": [300_000, 32, 32]},
        {"name": "resnet10t", "std": [1.0, math.inf, 1.0]},
        {"name": "resnet10t", "prefix": 10**9},
    ],
)
def test_a_network_that_no_study_may_have_is_refused_before_it_is_made(file, tmp_path, network):
    with pytest.raises(ap.InputError, match="of a network is"):
        ap.load_model(rewritten(file, tmp_path, network=network))


def test_learned_tensors_are_floats(net, file, tmp_path):
    with safe_open(str(file), framework="pt") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name).long() for name in opened.keys()}  # noqa: SIM118
    save_file(tensors, str(tmp_path / "whole.safetensors"), metadata=header)
    with pytest.raises(ap.InputError, match="as torch.int64, not as torch.float32"):
        ap.load_model(tmp_path / "whole.safetensors", network=net)


def test_what_is_no_file_is_passed_over(model, tmp_path):
    """A device without an end, and a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in ("/dev/zero", tmp_path / "pipe.png"):
        assert "is no file" in model.predict(path).attrs["passed_over"][0]


def test_files_that_hold_no_model_are_refused(net, tmp_path):
    with pytest.raises(ap.InputError, match="no model file"):
        ap.load_model(tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ap.InputError, match="not a safetensors"):
        ap.load_model(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ap.InputError, match="no model of ours"):
        ap.load_model(tmp_path / "other.safetensors")


def test_a_truncated_file_is_refused(net, file, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ap.InputError, match="not a safetensors"):
        ap.load_model(path, network=net)


# ------------------------------------------------------------------------------------ fitting


def test_the_best_layer_is_searched_on_validation_alone(net):
    task = small_task()
    model = ap.fit_model(net, task, layer="best", recipe=RECIPE.but(epochs=2))
    assert "halving" in model.card.training["layer_chosen"]
    assert 0 <= model.card.method["layer"] < len(net.layers)


def test_methods_without_a_layer_and_given_layers(net):
    task = small_task()
    model = ap.fit_model(net, task, method="linear_probe", recipe=RECIPE.but(epochs=1))
    assert "layer" not in model.card.method
    with pytest.raises(ap.InputError, match="has no layer"):
        ap.fit_model(net, task, method="linear_probe", layer=3)
    with pytest.raises(ap.InputError, match="says its layer"):
        ap.fit_model(net, task, method="ap:layer=1", layer=3)


def test_epochs_are_told_and_the_best_validated_is_kept(net):
    told = []
    recipe = RECIPE.but(epochs=6, validate_every=1, patience=6, lr=0.3)
    model = ap.fit_model(net, small_task(), layer=2, recipe=recipe, on_epoch=told.append)
    assert [point["epoch"] for point in told] == [1, 2, 3, 4, 5, 6]
    best = max(point["val_accuracy"] for point in told)
    assert model.card.scores["val_accuracy"] == best


def test_training_that_diverges_is_told(net):
    with pytest.raises(ap.InputError, match="smaller learning rate"):
        ap.fit_model(net, small_task(), layer=0, recipe=RECIPE.but(lr=1e30, optimizer="sgd"))


def test_exif_orientation_is_the_same_from_a_file_and_from_pillow(model, tmp_path, pixels):
    picture = Image.fromarray(np.kron(pixels[1], np.ones((4, 3, 1), np.uint8)))
    exif = picture.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    (tmp_path / "turned.png").write_bytes(buffer.getvalue())
    from_file = model.predict(tmp_path / "turned.png", top=4).drop(columns="path")
    with Image.open(tmp_path / "turned.png") as opened:
        assert model.predict(opened, top=4).drop(columns="path").equals(from_file)


def test_a_class_called_by_half_a_letter_can_be_written(net, file, tmp_path, pixels):
    odd = rewritten(file, tmp_path, classes=lambda card: ["\ud800", *card["classes"][1:]])
    model = ap.load_model(odd, network=net)
    assert model.classes[0] == "\\ud800"
    model.predict(pixels, top=4).to_csv(tmp_path / "table.csv")


def test_a_picture_of_floats_is_the_same_from_a_file_and_from_pillow(model, tmp_path):
    values = np.random.default_rng(0).random((20, 20), np.float32)
    picture = Image.fromarray(values)
    assert picture.mode == "F"
    picture.save(tmp_path / "floats.tiff")
    columns = ["class", "probability"]
    assert model.predict(picture)[columns].equals(model.predict(tmp_path / "floats.tiff")[columns])


@pytest.mark.parametrize(
    "changes",
    [
        {"method": lambda card: card["method"] | {"layer": 3}},
        {"method": {"method": "linear_probe"}},
        {"digest": "0" * 64},
    ],
)
def test_a_card_that_speaks_of_another_model_is_refused(net, file, tmp_path, changes):
    with pytest.raises(ap.InputError, match="is not what it holds"):
        ap.load_model(rewritten(file, tmp_path, **changes), network=net)


def test_a_card_with_a_number_without_end_is_refused(net, file, tmp_path):
    path = rewritten(file, tmp_path, scores={"test_accuracy": 10**400})
    with pytest.raises(ap.InputError, match="more than 300 digits"):
        ap.load_model(path, network=net)


def test_a_head_that_reads_nothing_is_refused(net, file, tmp_path):
    with safe_open(str(file), framework="pt") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tensors["head.scale"] = torch.full_like(tensors["head.scale"], math.inf)
    save_file(tensors, str(tmp_path / "inf.safetensors"), metadata=header)
    with pytest.raises(ap.InputError, match="not finite, in head.scale"):
        ap.load_model(tmp_path / "inf.safetensors", network=net)


def test_an_open_file_is_no_picture(model):
    with pytest.raises(ap.InputError, match="give its path"):
        model.predict(io.BytesIO(b"x"))


def test_weights_under_a_name_that_no_file_can_have(file, tmp_path):
    path = rewritten(
        file, tmp_path, network={"name": "aptheory_resnet_mini", "weights": "w" * 10_000}
    )
    with pytest.raises(ap.InputError, match="no weights file"):
        ap.load_model(path)


def test_another_method_than_the_files_is_not_passed_over(tmp_path):
    net = small_cnn()
    model = ap.fit_model(net, small_task(), method="linear_probe", recipe=RECIPE)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ap.InputError, match="'linear_probe', which vpt is not; leave method out"):
        ap.load_model(tmp_path / "m.safetensors", network=net, method="vpt")
    ap.load_model(tmp_path / "m.safetensors", network=net, method="linear_probe")
