"""The quick part of the table of networks, and what the table says of a fault."""

import pytest

from benchmarks import networks
from benchmarks.network_catalogue import catalogue


@pytest.mark.filterwarnings("ignore")  # a profile says of each layer what is not defined there
@pytest.mark.parametrize("name", networks.QUICK)
def test_a_network_works_from_end_to_end(name):
    if name not in catalogue():
        pytest.skip("transformers is not installed")
    row = networks.check(name)
    assert networks.verdict(row) == "right", row


def test_a_fault_is_wrong_and_a_sentence_a_refusal():
    right = {"network": "a", "places": 7, **dict.fromkeys(networks.STEPS, "ok")}
    refused = {"network": "b", "split": "b is no chain (/home/x/tests/networks/b.py, line 3)."}
    rows = [right, {**right, "vpt": "no tokens"}, {**right, "vpt": "wrong: KeyError"}, refused]
    assert [networks.verdict(row) for row in rows] == ["right", "right", "wrong", "refused"]
    assert networks.summary(rows) == "networks right: 2 of 4, wrong: 1"
    assert list(networks.table(rows))[-1].endswith("b is no chain (tests/networks/b.py, line 3). |")


def test_rows_of_an_earlier_state_of_the_code_are_named(tmp_path):
    right = {"places": 7, **dict.fromkeys(networks.STEPS, "ok")}
    now = {"network": "now", **right, "code": networks.code_state()}
    rows = [now, {"network": "before", **right, "code": "0" * 12}, {"network": "unknown", **right}]
    networks.write(rows, ["later"], tmp_path / "page.md")
    said = (tmp_path / "page.md").read_text()
    assert "Not tried yet (1): later." in said
    assert "an earlier state of `aptheory/networks` (2): before, unknown." in said


def test_what_moved_since_an_earlier_state_is_said():
    right = {"places": 7, "last": "fc", "layers": "ab", **dict.fromkeys(networks.STEPS, "ok")}
    assert networks.moved({}, right) == networks.moved(right, right) == ""
    assert networks.moved({k: v for k, v in right.items() if k != "layers"}, right) == ""
    assert "places 7 -> 8, last fc -> fc" in networks.moved(right, {**right, "places": 8})
    assert "MOVED" in networks.moved(right, {**right, "layers": "cd"})
    assert "right -> wrong" in networks.moved(right, {**right, "vpt": "wrong: KeyError"})
