"""A saved file that is not what it says is refused in one sentence; a good one moves anywhere."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import aptheory as ap
from aptheory import InputError, methods
from tests.small_networks import small_vit


@pytest.fixture(scope="module")
def net():
    return small_vit()


@pytest.fixture
def saved(net, tmp_path):
    path = tmp_path / "one.safetensors"
    ap.save(methods.ActivationPrompt(layer=3, std=0.1).attach(net, classes=3), path)
    return path


def rewrite(path, change):
    """Change the tensors and the note of a file in place."""
    with safe_open(str(path), framework="pt") as file:
        note = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(tensors, note)
    save_file(tensors, str(path), metadata=note)


PROMPT = "edits.3.0.delta"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, n: n.pop("method"), "does not say what it holds"),
        (lambda t, n: n.update(method="{"), "does not say what it holds"),
        (lambda t, n: n.update(method="[1]"), "does not say what it holds"),
        (lambda t, n: n.update(method=json.dumps({"method": "none"})), "no method 'none'"),
        (lambda t, n: n.update(classes="many"), "does not say what it holds"),
        (lambda t, n: n.update(classes="1000000000000"), "no head of 1000000000000"),
        (lambda t, n: n.pop("digest"), "does not say what it holds"),
        (lambda t, n: n.update(digest="0" * 64), "other weights"),
        (lambda t, n: t.pop(PROMPT), PROMPT),
        (lambda t, n: t.update(more=torch.zeros(1)), "more"),
        # one number would be spread over the whole prompt
        (lambda t, n: t.update({PROMPT: torch.ones(1)}), PROMPT),
        (lambda t, n: t[PROMPT].fill_(float("nan")), f"not finite, in {PROMPT}"),
        (lambda t, n: n.update(method=json.dumps({"method": "vpt", "tokens": 2})), "other tensors"),
    ],
)
def test_a_changed_file_is_refused(net, saved, change, words):
    rewrite(saved, change)
    with pytest.raises(InputError, match=words) as error:
        ap.attach_saved(net, saved)
    assert "\n" not in str(error.value)


def test_an_unchanged_file_is_taken(net, saved):
    rewrite(saved, lambda tensors, note: None)
    assert ap.attach_saved(net, saved).edits_at(3)[0].value().any()


def test_a_place_that_cannot_be_written_is_told(net, tmp_path):
    (tmp_path / "file").write_text("")
    adapted = methods.LinearProbe().attach(net, classes=3)
    with pytest.raises(InputError, match="cannot be written"):
        ap.save(adapted, tmp_path / "file" / "one.safetensors")


@pytest.mark.parametrize("text", ["ap:layer=1", "ap:layer=4,shape=channel", "norm_tuning"])
def test_what_moved_since_it_was_attached_folds(net, text):
    adapted = methods.parse(text).attach(net, classes=3)
    with torch.no_grad():
        for parameter in adapted.trainable:
            parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.double().eval()
    x = torch.randn(2, 3, 32, 32).double()
    plain = ap.fold(adapted)
    assert next(plain.parameters()).dtype == torch.float64
    assert next(net.parameters()).dtype == torch.float32
    torch.testing.assert_close(plain(x), adapted(x), rtol=1e-4, atol=1e-5)
