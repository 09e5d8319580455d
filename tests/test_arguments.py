"""Wrong arguments of the public functions: refused in one sentence that names the argument.

Fields of another type are refused by the tests' own type checker before ours, so those of classes
are here with wrong values alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

import aptheory as ap
from aptheory.arguments import Between, Columns, Count, checked_arguments, fits, words
from aptheory.models.pictures import place_of
from aptheory.networks.layer import Layer
from aptheory.tasks import ArraySplit, Joined, Selection, decoded, loader, read_split
from aptheory.writing import refuse_no_file

NAN = float("nan")
ENDLESS = range(10**40)
"""It fills the memory as soon as it is made a list."""


@pytest.fixture(scope="module")
def net():
    return ap.load("aptheory_vit_mini")


@pytest.fixture(scope="module")
def task():
    return ap.task("digits").subset(train=10, val=10, test=10)


#: (what is called, its good arguments): "net" and "task" stand for a network and a task.
CALLS = {
    "profile": (ap.profile, {"net": "net", "images": "task", "limit": 4}),
    "extract": (ap.extract, {"net": "net", "images": "task", "limit": 4}),
    "similarity": (ap.similarity, {"net": "net", "images": "task", "limit": 4}),
    "fit_many": (
        ap.fit_many,
        {"methods": [ap.LinearProbe()], "net": "net", "task": "task", "runs": [ap.Run()]},
    ),
    "fit_model": (ap.fit_model, {"net": "net", "task": "task"}),
    "layer_map": (ap.layer_map, {"net": "net", "task": "task"}),
    "compare_norm": (ap.compare_norm, {"net": "net", "task": "task"}),
    "recommend_layer": (ap.recommend_layer, {"net": "net", "task": "task"}),
    "cost": (ap.cost, {"net": "net", "methods": ap.LinearProbe()}),
    "attach": (ap.LinearProbe().attach, {"net": "net", "classes": 10}),
    "load": (ap.load, {"name_or_module": "aptheory_vit_mini"}),
    "task": (ap.task, {"source": "digits"}),
    "load_model": (ap.load_model, {"path": "x"}),
    "Study": (ap.Study, {"networks": ["aptheory_vit_mini"], "tasks": ["digits"]}),
    "sweep": (ap.sweep, {"study": "x.toml", "out": "x"}),
    "status": (ap.status, {"folder": "x"}),
    "compare": (ap.compare, {"results": "x"}),
    "relate": (ap.relate, {"profile": pd.DataFrame(), "accuracy": pd.DataFrame()}),
    "Recipe": (ap.Recipe, {}),
    "Run": (ap.Run, {}),
    "VPT": (ap.VPT, {}),
    "LoRA": (ap.LoRA, {}),
    "ActivationPrompt": (ap.ActivationPrompt, {}),
    "RandomPerturbation": (ap.RandomPerturbation, {}),
    "Layer": (Layer, {"index": 0, "name": "a", "shape": (5, 8), "layout": "tokens"}),
}
WRONG = [
    *(("profile", "net", value) for value in (None, "aptheory_vit_mini", torch.nn.Linear(2, 2))),
    *(("profile", "images", value) for value in (5, None, ["x"], [5])),
    ("profile", "images", torch.zeros(2, 3, 32, 32, dtype=torch.int32)),
    ("profile", "images", torch.full((2, 3, 32, 32), NAN)),
    *(("profile", "limit", value) for value in (0, -1, True, 2.5, "4")),
    *(("profile", "seed", value) for value in (-1, True, 1.5, "0", None, 2**70)),
    *(("profile", "level", value) for value in (0, 1, 1.5, NAN, "0.95", True)),
    *(("profile", "measures", value) for value in ((), None, 5, [5])),
    *(("profile", "prefix_mass", value) for value in ("x", True)),
    *(("profile", "layers", value) for value in (None, True, NAN, {})),
    ("profile", "intervals", "no"),
    ("profile", "split", "dev"),
    ("extract", "split", "dev"),
    ("extract", "dtype", torch.int8),
    ("extract", "batch_size", 2.5),
    ("similarity", "kernel", "x"),
    ("similarity", "other", "aptheory_vit_mini"),
    *(("fit_many", "runs", value) for value in (5, [5], ap.Run(), (run for run in [ap.Run()]))),
    ("fit_many", "methods", "ap"),
    *(("fit_model", "recipe", value) for value in ("quick", 5)),
    *(("fit_model", "method", value) for value in (5, None, [])),
    ("fit_model", "on_epoch", 5),
    ("layer_map", "seeds", (seed for seed in [0])),
    ("layer_map", "halving", "no"),
    *(("compare_norm", "lrs", value) for value in (5, ["x"], [True], [NAN], (r for r in [1.0]))),
    *(("recommend_layer", "rule", value) for value in ("x", {})),
    *(("cost", "classes", value) for value in (0, True, 2.5, None)),
    *(("cost", "kept", value) for value in ((), ["x"], True)),
    ("cost", "methods", []),
    *(("attach", "classes", value) for value in (True, 2.5, "10", None)),
    *(("attach", "seed", value) for value in (-1, True, 1.5, "0", None, 2**70)),
    *(("attach", "runs", value) for value in (0, 10**9, True)),
    *(("load", "std", value) for value in ([0, 0, 0], True, [1.0, 1.0])),
    *(("load", "name", value) for value in (5, "", [])),
    ("load", "blocks", []),
    *(("load", "num_classes", value) for value in (-1, True, 2.5, "x", 10**9)),
    *(("load", "depth", value) for value in (10**6, [10**6])),
    ("Study", "base", "nowhere"),
    *(("task", "seed", value) for value in (-1, 1.5, "x", None)),
    ("sweep", "study", 5),
    ("sweep", "workers", True),
    ("status", "folder", 5),
    ("compare", "results", pd.DataFrame()),
    ("relate", "profile", pd.DataFrame({"network": []})),
    *(("Recipe", "lr", value) for value in (True, NAN, -1)),
    *(("Recipe", "label_smoothing", value) for value in (1.5, True)),
    *(("Recipe", "max_gradient_norm", value) for value in (0, -1, NAN)),
    *(("Run", "lr", value) for value in (True, NAN, -1)),
    *(("VPT", "tokens", value) for value in (True, 0)),
    *(("VPT", "dropout", value) for value in (2, NAN)),
    ("LoRA", "alpha", NAN),
    *((called, name, ENDLESS) for called, name in (("profile", "layers"), ("fit_many", "runs"))),
    ("profile", "measures", ENDLESS),
    ("ActivationPrompt", "layer", ENDLESS),
    *(("ActivationPrompt", "layer", value) for value in (True, NAN)),
    *(("RandomPerturbation", "norm", value) for value in (NAN, -1)),
    *(("Layer", "index", value) for value in (-1, True)),
]


@pytest.mark.parametrize(("called", "name", "value"), WRONG, ids=lambda value: repr(value)[:30])
def test_a_wrong_argument(net, task, called, name, value):
    function, good = CALLS[called]
    known = {"net": net, "task": task}
    arguments = {k: known.get(v, v) if isinstance(v, str) else v for k, v in good.items()}
    with pytest.raises(ap.InputError, match=name) as refusal:
        function(**arguments | {name: value})
    assert "\n" not in str(refusal.value)


def test_the_call_itself_is_pythons_to_judge(net, task):
    with pytest.raises(TypeError, match="images"):
        ap.profile(net)
    with pytest.raises(TypeError, match="nonsense"):
        ap.profile(net, task, nonsense=1)


def test_numbers_of_numpy_are_taken_as_the_numbers_that_they_are():
    @checked_arguments
    def told(number: Count, share: float, flag: bool) -> list[type]:
        return [type(number), type(share), type(flag)]

    assert told(np.int64(3), np.float32(0.5), np.bool_(True)) == [int, float, bool]


WHOLES = "a list, each a whole number"


@pytest.mark.parametrize(
    ("hint", "good", "bad", "said"),
    [
        (int | None, [1, None, np.int64(1)], [True, 1.0, "1"], "a whole number or None"),
        (float, [1, 0.5], [True, NAN, float("inf"), "1"], "a number"),
        (Annotated[float, Between(0, 1, open=True)], [0.5], [0, 1], "a number between 0 and 1"),
        (Literal["a", 1], ["a", 1], ["b", True], "'a' or 1"),
        (Sequence[int], [range(9), range(0)], [range(10**9), range(2**64, 2**66, 2**64)], WHOLES),
        (Sequence[str], [[], ["a"], ("a",)], ["a", b"a", {}, [1]], "a list, each a text"),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, "2")], "a list, each a whole number"),
        (
            Annotated[pd.DataFrame, Columns("a")],
            [pd.DataFrame({"a": []})],
            [pd.DataFrame(), {"a": 1}],
            "a DataFrame (pandas) with the columns a",
        ),
    ],
)
def test_what_fits_a_declared_type(hint, good, bad, said):
    assert all(fits(value, hint) for value in good)
    assert not any(fits(value, hint) for value in bad)
    assert words(hint) == said


PIXELS = np.zeros((4, 8, 8, 3), np.uint8)
SPLIT = ArraySplit(PIXELS, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda task: task.subset(train=True), "train"),
        (lambda task: task.subset(train=10, seed=-1), "seed"),
        (lambda task: task.folds(10**12), "folds"),
        (lambda task: task.folds(3, groups=5), "groups"),
        (lambda task: task.augmented(None), "transform"),
        (lambda task: ArraySplit(PIXELS, 5), "labels"),
        (lambda task: ArraySplit(PIXELS, torch.ones(4, device="meta")), "labels"),
        (lambda task: Selection(SPLIT, [9]), "4 images"),
        (lambda task: Selection(SPLIT, [0.5]), "indices"),
        (lambda task: Selection(SPLIT, [True, False]), "indices"),
        (lambda task: Selection(SPLIT, ENDLESS), "indices"),
        (lambda task: SPLIT.images(range(-(10**9), 3), (8, 8)), "4 images"),
        (lambda task: refuse_no_file(Path("\ud800")), "letters that names of files cannot have"),
        (lambda task: place_of("a" * 5000), "does not exist"),
        (lambda task: Joined(), "joined"),
        (lambda task: list(loader(SPLIT, object(), 2)), "network"),
        (lambda task: decoded(SPLIT, (0, 3), progress=False), "size"),
        (lambda task: read_split("/dev/zero"), "larger than"),
        (lambda task: ap.profile(ap.load("aptheory_vit_mini"), torch.tensor(1.0)), "images"),
        (lambda task: ap.load("aptheory_vit_mini", input_shape=(3, 10**9, 10**9)), "input_shape"),
    ],
)
def test_wrong_tasks_splits_and_their_parts(task, wrong, named):
    with pytest.raises(ap.InputError, match=named) as refusal:
        wrong(task)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("indices", "size", "named"),
    [
        (torch.zeros(1, device="meta"), (8, 8), "indices"),
        ([0], torch.tensor(3), "size"),
        ([0], np.array(3), "size"),
        ([0], ENDLESS, "size"),
    ],
)
def test_what_a_split_is_asked_for(monkeypatch, indices, size, named):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' own checker
    with pytest.raises(ap.InputError, match=named):
        SPLIT.images(indices, size)


@pytest.mark.parametrize(
    "loss", [lambda z, y: None, lambda z, y: z.sum(), lambda z, y: z.detach()[:, 0]]
)
def test_a_loss_that_gives_no_loss_of_each_image(net, task, loss):
    adapted = ap.LinearProbe().attach(net, classes=10)
    with pytest.raises(ap.InputError, match="expected the loss of each"):
        ap.fit(adapted, task, recipe=ap.Recipe(epochs=1), loss=loss)


@pytest.mark.parametrize("name", ["profile", "accuracy"])
def test_a_table_of_texts_is_no_table_of_numbers(name):
    rows = {"network": ["n"], "task": ["t"], "layer": [0], "measure": ["m"], "value": [0.5]}
    tables = {
        "profile": pd.DataFrame(rows),
        "accuracy": pd.DataFrame({**rows, "method": ["ap"], "seed": [0]}),
    }
    tables[name]["value"] = "high"
    with pytest.raises(ap.InputError, match=f"{name} of relate .*; value holds numbers"):
        ap.relate(**tables)
