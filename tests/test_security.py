"""Data never becomes code: payloads that would leave a mark leave none."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import aptheory as ap
from aptheory.checked import imported, plain_cell, safe_cell, safe_stem
from aptheory.errors import InputError
from aptheory.networks.checkpoint import read_checkpoint
from aptheory.studies.sources import load_network
from aptheory.studies.study import Study
from aptheory.studies.tables import csv_text, read_csv
from aptheory.tasks.readers.files import decode_image

ROOT = Path(__file__).resolve().parents[1]


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """A path that appears if anything ran."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


def test_a_pickle_as_weights(tmp_path, mark):
    for name, write in (
        ("a.pt", lambda path: torch.save({"weight": Payload(mark)}, path)),
        ("b.bin", lambda path: path.write_bytes(pickle.dumps(Payload(mark)))),
        ("c.safetensors", lambda path: path.write_bytes(pickle.dumps(Payload(mark)))),
    ):
        write(tmp_path / name)
        with pytest.raises(InputError, match="cannot be read as weights"):
            read_checkpoint(tmp_path / name)


def test_a_pickle_in_an_npz(tmp_path, mark):
    labels = np.arange(8) % 2
    objects = np.array([Payload(mark)] * 8, dtype=object)
    np.savez(tmp_path / "a.npz", x_train=objects, y_train=labels, x_test=objects, y_test=labels)
    with pytest.raises(InputError, match=r"a\.npz"):
        ap.task(f"npz:{tmp_path / 'a.npz'}")


def test_paths_that_lead_out_of_an_archive(tmp_path, mark):
    """Members are read by name; nothing is unpacked anywhere."""
    picture = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (8, 8)).save(picture, "PNG")
    outside = tmp_path / "outside"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../mark", f"{outside}/x.png", "train/a/../../../mark", "train/a/1.png"):
            archive.writestr(name, picture.getvalue())
    with contextlib.suppress(InputError):
        ap.task(f"folder:{tmp_path / 'a.zip'}")
    assert not outside.exists()


def test_a_saved_prompt_that_names_code(tmp_path, mark, monkeypatch):
    (tmp_path / "payload.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    net = ap.load("aptheory_resnet_mini", weights=None)
    note = {
        "format": "aptheory.adapted.1",
        "method": json.dumps({"method": "mine", "factory": "payload:Prompt"}),
        "classes": "2",
        "seed": "0",
        "network": net.name,
        "digest": net.digest,
    }
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "a.safetensors", metadata=note)
    with pytest.raises(InputError, match="never imports code"):
        ap.attach_saved(net, tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["profile", "timm", "sklearn", "colorsys"])
def test_a_file_of_the_users_stands_in_for_nothing(tmp_path, mark, name):
    """Beside his pictures lies a module that a dependency imports by that name."""
    (tmp_path / f"{name}.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    words = [sys.executable, "-m", "aptheory", "status", "nowhere"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2, done.stderr


@pytest.mark.parametrize(
    "text",
    ["os", "os.system", ":x", "os:", "os:system()", "a b:c", "../x:y", "os:path:join", "9:x"],
)
def test_only_module_and_name_name_code(text):
    with pytest.raises(InputError, match="module:name"):
        imported(text)


def test_modules_are_looked_for_beside_the_study_and_then_in_the_working_directory(
    tmp_path, monkeypatch
):
    for folder in ("study", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "which_of_them.py").write_text(f"place = {folder!r}\n")
    monkeypatch.chdir(tmp_path / "here")
    before = list(sys.path)
    try:
        assert imported("which_of_them:place", beside=[tmp_path / "study"]) == "study"
        del sys.modules["which_of_them"]
        assert imported("which_of_them:place") == "here"
        assert callable(imported("profile:run"))  # Python's own comes first
    finally:
        sys.modules.pop("which_of_them", None)
    assert sys.path == before


NAMES = [
    "a/b",
    "a:b",
    "a b",
    "a_b",
    ".",
    "..",
    "",
    "résumé",
    "price$x^{$",
    "a" * 300,
    "b" * 300,
    "CON.",
]


def test_stems_are_safe_and_different():
    stems = [safe_stem(name) for name in NAMES]
    assert len(set(stems)) == len(stems)
    for stem in stems:
        assert not set(stem) & set('/\\:*?"<>|$ ')
        assert stem.strip(".") == stem
        assert 0 < len(stem.encode()) < 250
    assert safe_stem("a", "b-c") != safe_stem("a-b", "c")
    assert safe_stem("resnet50.a1_in1k", "digits") == "resnet50.a1_in1k-digits"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "'=1", "plain", "", "'quoted'"])
def test_cells_cannot_become_formulas_and_come_back(text):
    import pandas as pd

    assert safe_cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r") or text == ""
    assert plain_cell(safe_cell(text)) == text
    assert safe_cell(-1.5) == -1.5
    assert "=1" not in csv_text(pd.DataFrame({"a": ["=1"]})).replace("'=1", "")


def test_a_table_comes_back_as_it_was(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"task": ["=cmd", "-x", "y"], "value": [-1.0, 2.0, 3.0]})
    (tmp_path / "a.csv").write_text(csv_text(table))
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), table)


def test_a_message_quotes_what_is_hostile_but_not_without_end():
    """A number of a hundred thousand digits in a file must not fill a terminal."""
    digits = "9" * 100_000
    said = str(InputError(f"value {digits} is too large; expected less than 10."))
    assert len(said) <= 2000
    assert said.startswith("value 999")
    assert said.endswith("expected less than 10.")
    assert pickle.loads(pickle.dumps(InputError("one sentence."))).args == ("one sentence.",)


@pytest.mark.parametrize(
    "name", ["0:" + "nowhere" * 200, "csv:" + "a" * 3000 + "?path=x", "a\0b.zip"]
)
def test_a_name_that_no_file_can_have_is_refused_in_a_sentence(name):
    with pytest.raises(InputError):
        ap.task(name)
    doors = (read_checkpoint, ap.load_model, ap.report, ap.compare, ap.status, Study.from_toml)
    for door in doors:
        with pytest.raises(InputError):
            door(f"{name}.safetensors")
    with pytest.raises(InputError, match="there is no file"):
        ap.attach_saved(ap.load("aptheory_vit_mini"), f"{name}.safetensors")


def test_a_home_that_is_not_known(monkeypatch):
    """A container's user without an entry, and ~ of somebody who is not there."""
    for variable in ("HOME", "APTHEORY_CACHE", "APTHEORY_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: os.fspath(path))
    with pytest.raises(InputError, match="APTHEORY_CACHE"):
        ap.task("cifar100")
    monkeypatch.undo()
    for source in ("folder:~nobody_here/x", "~nobody_here/x.csv", "csv:~nobody_here/x.csv"):
        with pytest.raises(InputError):
            ap.task(source)
    with pytest.raises(InputError, match="there is no weights file"):
        load_network({"name": "aptheory_resnet_mini", "weights": "~nobody_here/x"})


def test_an_outcome_without_one_of_its_fields_is_damaged(tmp_path):
    """Its checksum fits: what somebody would write who knows the format."""
    from aptheory.studies.records import DamagedError, Record, checksum, key_of

    body = {"format": 1, "identity": {}, "key": key_of({}), "status": "done"}
    body |= {"outcome": {}, "made_by": {}}
    body["checksum"] = checksum(body)
    with pytest.raises(DamagedError, match="holds no reason"):
        Record.from_text(json.dumps(body), name="a.json")


def test_a_chart_without_a_finite_value_is_no_chart():
    from aptheory.reporting.curves import Curve
    from aptheory.reporting.svg import line_chart

    empty = Curve("ap", [], [])
    unknown = Curve("ap", [0, 1], [float("nan")] * 2)
    for lines in ([empty], [unknown], []):
        assert line_chart(lines, x_label="", y_label="", summary="") == ""


def test_a_small_file_of_many_pixels_is_refused_by_its_header(tmp_path):
    """Above 50 million pixels at more than a hundred a byte: photographs come to twenty."""
    Image.new("1", (8000, 8000)).save(tmp_path / "flat.png")
    with pytest.raises(InputError, match="8000×8000 pixels in 0.0 MB, which would grow"):
        one_of(tmp_path / "flat.png")


def test_what_an_interpreter_would_draw_is_no_picture(tmp_path):
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "page.png").write_bytes(page)
    with pytest.raises(InputError, match="not a picture of a format that is read"):
        one_of(tmp_path / "page.png")


def one_of(file):
    return decode_image(file.read_bytes(), file.name)


def test_the_header_of_a_million_tensors_is_not_parsed(tmp_path):
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(entry % number for number in range(150_000)) + "}"
    file = tmp_path / "many.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0")
    for read in (read_checkpoint, ap.load_model):
        with pytest.raises(InputError, match="has a header of 9 MB, for 8 at most"):
            read(file)


def test_lines_and_paths_beyond_reason_are_not_repeated(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(["path"] * 300_000) + "\n")
    with pytest.raises(InputError, match="a line of a megabyte"):
        ap.task(f"csv:{tmp_path / 'wide.csv'}")
    (tmp_path / "long.csv").write_text("path,label\n" + "x" * 10**6 + ",a\n" * 2)
    with pytest.raises(InputError, match="lists a path of 1,000,000 letters") as error:
        ap.task(f"csv:{tmp_path / 'long.csv'}")
    assert len(str(error.value)) < 300


def test_torchs_advice_to_trust_a_pickle_is_not_passed_on(tmp_path):
    torch.save({"weight": torch.zeros(2), "what": object()}, tmp_path / "w.pth")
    with pytest.raises(InputError) as error:
        read_checkpoint(tmp_path / "w.pth")
    assert "weights_only" not in str(error.value)
