"""What a run is called does not change when the code moves: finished runs stay finished."""

import pytest

import aptheory as ap
from aptheory.studies.planning import make_plan
from aptheory.studies.records import key_of

#: sha256 of the packaged networks and keys of runs, written down before the package had rooms.
DIGESTS = {
    "aptheory_vit_mini": "0f0114075d4bff409a1443d88bd28493f1e539f8d2e228a023c0b73c564fb010",
    "aptheory_resnet_mini": "33058212b5c16d1bdca6cee7e04a93e8a3302b71ede0eafa1871ca0f4bda7a39",
    "aptheory_vit_gap_mini": "2d002ae95a6cb12dc2954e6092710888b88c66f2b68672385ee152b18656ff93",
    "aptheory_resnet_deep_mini": "7c1fbb228e6ea3171780f6377c79c38dc49751852c4cbaa7c193d6827e4b86e1",
}
KEYS = {
    *("3a48869075e46288d411dd46ac36c4c3", "095e7c2cc79e305e3ecda0e4cabf6c2d"),
    *("4d03bf9faac001a75606f0c408ac5c41", "96469c3f5c5bec255d6bef0d4285b43f"),
    *("5560207c6315d0225d59292bd34cbace", "56c88d36c61319b3fece167fd7a7fe91"),
    *("67ca272d2d207f02cd01e0bf757c4cf7", "598216a5fb1fac8dbef41675ff55c405"),
    *("d6ce329faabcf57dea139520febc837c", "f8b5995dc1550347c2cfe2600614df80"),
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_digest_of_a_packaged_network(name):
    assert ap.load(name).digest == DIGESTS[name]


def test_the_keys_of_a_study():
    study = ap.Study(
        networks=["aptheory_vit_mini"],
        tasks=[{"name": "digits", "train": 60, "val": 30, "test": 60}],
        methods=["ap", "norm_tuning"],
        layers=[0, 5],
        seeds=[0],
        recipes=[{"name": "quick", "epochs": 2}],
    )
    assert set(make_plan(study).run_keys) == KEYS


def test_the_key_of_a_value():
    assert key_of({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"
