"""Exported files answer as the model does, in other programs and for any number of images."""

import copy
import json

import numpy as np
import pytest
import timm
import torch

import aptheory as ap
from aptheory.models.exporting import export
from aptheory.models.model import Model
from tests.quarters import RECIPE, small_cnn, small_task, small_vit

VIT = {"img_size": 16, "patch_size": 4, "depth": 3, "embed_dim": 24, "num_heads": 2}


@pytest.fixture(scope="module")
def model():
    net = small_vit()
    options = {name: value for name, value in VIT.items() if name != "img_size"}
    shape = list(net.input_shape)
    net.source = {"name": "vit_tiny_patch16_224", "input_shape": shape, "options": options}
    return ap.fit_model(net, small_task(), layer=2, recipe=RECIPE.but(epochs=1))


@pytest.fixture(scope="module")
def images(model):
    return torch.randn(5, *model.network.input_shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def logits(model, images):
    with torch.no_grad():
        return model.module(images).numpy()


def test_torch_program(model, images, logits, tmp_path, monkeypatch):
    save = torch.export.save  # whose own writer ends the process where a disk is full
    monkeypatch.setattr(torch.export, "save", lambda p, f, **k: save(p, f.seek(0) or f, **k))
    assert export(model, tmp_path / "model.pt2", to="torch") < 1e-5
    extra = {"aptheory": ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert np.allclose(module(images).detach().numpy(), logits, atol=1e-5)
    assert tuple(json.loads(extra["aptheory"])["classes"]) == model.classes


def test_onnx_program_in_onnxruntime(model, images, logits, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert export(model, tmp_path / "model.onnx", to="onnx") < 1e-4
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for count in (1, 5):
        (answer,) = session.run(["logits"], {"image": images[:count].numpy()})
        assert np.allclose(answer, logits[:count], atol=1e-4)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["aptheory"])
    assert tuple(facts["classes"]) == model.classes
    assert facts["transform"]["mean"] == list(model.network.mean)


def test_a_probe_becomes_a_plain_timm_network(images, tmp_path):
    from safetensors.torch import load_file

    net = small_vit()
    options = {name: value for name, value in VIT.items() if name != "img_size"}
    shape = list(net.input_shape)
    net.source = {"name": "vit_tiny_patch16_224", "input_shape": shape, "options": options}
    probe = ap.fit_model(net, small_task(), method="linear_probe", recipe=RECIPE)
    export(probe, tmp_path / "plain.safetensors", to="timm")
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=4, **VIT)
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    with torch.no_grad():
        assert np.allclose(plain.eval()(images), probe.module(images), atol=1e-4)


def test_what_no_plain_weights_express_is_refused_with_the_reason(model, tmp_path):
    with pytest.raises(ap.InputError, match="cannot be folded"):
        export(model, tmp_path / "plain.safetensors", to="timm")
    assert not (tmp_path / "plain.safetensors").exists()
    with pytest.raises(ap.InputError, match="choose torch, onnx, timm"):
        export(model, tmp_path / "model", to="tflite")


def test_a_network_of_no_library_has_no_timm_form(tmp_path):
    net = small_cnn()
    net.source = {"factory": "somewhere:network"}
    probe = ap.fit_model(net, small_task(), method="linear_probe", recipe=RECIPE)
    with pytest.raises(ap.InputError, match="no network of timm's"):
        export(probe, tmp_path / "plain.safetensors", to="timm")


def test_a_file_that_answers_otherwise_is_not_kept(model, tmp_path, monkeypatch):
    wrong = lambda self, path: (path.write_bytes(b"") and None) or (lambda x: x.new_ones(len(x), 4))  # noqa: E731
    monkeypatch.setattr("aptheory.models.exporting._torch", wrong)
    with pytest.raises(ap.InputError, match="does not answer"):
        export(model, tmp_path / "model.pt2", to="torch")
    assert not (tmp_path / "model.pt2").exists()
    assert isinstance(model, Model)


def test_answers_that_are_no_numbers_are_refused_everywhere(model, tmp_path):
    head = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in head.module.trainable:
            tensor.fill_(3e38)
    with pytest.raises(ap.InputError, match="answers are no numbers"):
        head.predict(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ap.InputError, match="answers are no numbers"):
        export(head, tmp_path / "one.pt2", to="torch")
    assert not list(tmp_path.glob("*.pt2"))
