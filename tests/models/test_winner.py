"""The best of a sweep is a model at once, and is the one that validation chose."""

import numpy as np
import pytest

import aptheory as ap
from aptheory.errors import InputError
from aptheory.models.winner import winner
from aptheory.studies.store import Store

STUDY = {
    "networks": [{"name": "aptheory_vit_mini"}],
    "tasks": [{"name": "digits", "train": 40, "val": 30, "test": 30}],
    "layers": [0, 9],
    "recipes": [{"name": "quick", "epochs": 1}],
    "seeds": [0, 1],
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    study = ap.Study.from_dict(STUDY)
    ap.sweep(study, folder, engine="here", progress=False, save_models=True)
    opened = study.open()
    return folder, opened.networks[0].net, opened.tasks[0].task


def test_the_winner_scores_what_its_run_scored(swept):
    folder, net, task = swept
    model = winner(folder, net, task)
    images = task.test.images(np.arange(len(task.test)), net.input_shape[1:])
    right = model.probabilities(images).argmax(1) == task.test.labels
    assert right.mean() == pytest.approx(model.card.scores["test_accuracy"])
    records = [r for r in Store(folder).read_all()[0] if "random" not in str(r.identity["method"])]
    groups = {}
    for record in records:
        method = str(record.identity["method"])
        groups.setdefault(method, []).append(record.outcome["val_accuracy"])
    assert np.mean(groups[str(model.card.method)]) == max(map(np.mean, groups.values()))


def test_a_sweep_that_kept_nothing_says_so(swept, tmp_path):
    _, net, task = swept
    with pytest.raises(InputError, match="no finished run of aptheory_vit_mini on digits"):
        winner(tmp_path, net, task)
    study = ap.Study.from_dict({**STUDY, "layers": [9], "seeds": [0]})
    ap.sweep(study, tmp_path, engine="here", progress=False)
    with pytest.raises(InputError, match="without keeping models"):
        winner(tmp_path, net, task)


def test_controls_alone_are_no_choice(swept, tmp_path):
    _, net, task = swept
    alone = {"methods": ["random_perturbation"], "controls": False, "layers": [9], "seeds": [0]}
    study = ap.Study.from_dict({**STUDY, **alone})
    ap.sweep(study, tmp_path, engine="here", progress=False)
    with pytest.raises(InputError, match="but of controls, which are no choice"):
        winner(tmp_path, net, task)
