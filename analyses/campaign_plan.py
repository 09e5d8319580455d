"""What the evidence campaign runs, as values: networks, tasks, places, rates, units, their order.

`analyses/PLAN.md` says in words what is judged from it; both were committed before the runs.
Weights and images stand in a folder that is not part of this repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import aptheory as ap

RATES = (3e-2, 1e-2, 3e-3, 1e-3)
SEEDS = (0, 1)
TRAIN, VAL, TEST = 400, 200, 1000
"""Pictures of a run; all of a class-balanced draw, fewer where a set has fewer."""
RECIPE = ap.Recipe(name="campaign", epochs=30, batch_size=64, validate_every=3)
PLACES = 8
"""Places of a layer sweep: evenly spread over the depth, the image and the last two among them."""
MAP_PLACES = 6


@dataclass(frozen=True)
class NetworkSpec:
    """A network: its ``kind`` ("cnn" or "vit"), the name of its weights, the images' side.

    Built by timm's ``model`` with ``options``, or by a ``factory`` of ours; one without ``weights``
    is packaged.
    """

    kind: str
    weights: str
    side: int
    model: str = ""
    factory: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    tasks: tuple[str, ...] = ()


CIFAR_TASKS = ("cifar10_jpeg", "trashnet5", "gtsrb32", "chars32", "fer7")
IMAGENET_TASKS = ("food25", "trashnet5", "gtsrb32", "pacs_sketch", "signdigits10")
MINI_TASKS = ("textures", "objects", "gtsrb32", "chars32", "fer7")
NEAR = {"cifar10_jpeg", "trashnet5", "food25", "textures", "objects"}
"""Photographs of things, as the pretraining's, and for the packaged networks generated figures and
textures; the other tasks are far from it."""

NETWORKS = {
    "resnet32": NetworkSpec("cnn", "cifar10_resnet32", 32, factory="resnet32", tasks=CIFAR_TASKS),
    "resnet56": NetworkSpec("cnn", "cifar10_resnet56", 32, factory="resnet56", tasks=CIFAR_TASKS),
    "mobilenetv2_035": NetworkSpec(
        "cnn",
        "mobilenetv2_035",
        112,
        "mobilenetv2_035",
        options=(("pad_type", "same"), ("bn_eps", 0.001), ("num_classes", 0)),
        tasks=IMAGENET_TASKS,
    ),
    "efficientnet_lite0": NetworkSpec(
        "cnn", "tf_efficientnet_lite0", 112, "tf_efficientnet_lite0", tasks=IMAGENET_TASKS
    ),
    "vit_tiny": NetworkSpec(
        "vit", "vit_tiny_patch16_224", 96, "vit_tiny_patch16_224", tasks=IMAGENET_TASKS
    ),
    "vit_small": NetworkSpec(
        "vit", "vit_small_patch14_saliency", 112, "vit_small_patch14_dinov2", tasks=IMAGENET_TASKS
    ),
    "cifar_vit128": NetworkSpec(
        "vit", "cifar10_vit128", 32, "vit_tiny_patch16_224", tasks=CIFAR_TASKS
    ),
    "cifar_vit_postnorm": NetworkSpec(
        "vit", "cifar10_vit_postnorm", 32, factory="post_norm_vit", tasks=CIFAR_TASKS
    ),
    "aptheory_resnet_mini": NetworkSpec("cnn", "", 32),
    "aptheory_vit_mini": NetworkSpec("vit", "", 32),
    **{
        f"{name}_{seed}": NetworkSpec(kind, f"{name}_{seed}", 32, name)
        for name, kind in (("aptheory_resnet_mini", "cnn"), ("aptheory_vit_mini", "vit"))
        for seed in (1, 2)
    },
}
SEEDS_OF_MINIS = Path(__file__).parents[1] / "weights" / "seeds"
MINIS = tuple(name for name in NETWORKS if name.startswith("aptheory_"))
"""The packaged ResNet and ViT, each pretrained from three seeds (0 is the packaged one)."""
COMPARED = ("vit_tiny", "cifar_vit128", "cifar_vit_postnorm", "resnet56", "resnet32",
            "efficientnet_lite0")  # fmt: skip
"""Networks of the maps, of normalisation at a layer, and of the comparison of methods."""
PLANTED = ("aptheory_vit_mini", "aptheory_resnet_mini", "resnet56", "vit_tiny")
"""Networks in which a tensor is planted; the packaged ones are quick, and come first."""


@dataclass(frozen=True)
class Unit:
    """One network on one draw of one task, for one question; done as a whole or not at all."""

    question: str
    network: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.question}/{self.network}/{self.task}/{self.seed}"


def units() -> Iterator[Unit]:
    """Every unit, the most decisive first."""
    pairs = [(name, task) for name, spec in NETWORKS.items() for task in spec.tasks]
    compared = [(name, task) for name, task in pairs if name in COMPARED and task != "trashnet5"]
    three = [
        (name, task)
        for name, task in compared
        if task in ("cifar10_jpeg", "food25", "gtsrb32", "chars32", "pacs_sketch")
    ]
    yield from (Unit("sweep", name, task, 0) for name, task in pairs)
    yield from (Unit("norm", name, task, 0) for name, task in three)
    yield from (Unit("map", name, task, 0) for name, task in three)
    yield from (Unit("methods", name, task, 0) for name, task in three)
    yield from (Unit("planted", name, "gtsrb32", 0) for name in PLANTED)
    yield from (Unit("planted_large", name, "gtsrb32", 0) for name in PLANTED)
    yield from (Unit("planted_trained", name, "gtsrb32", 0) for name in PLANTED)
    yield from (
        Unit("dial", name, task, 0)
        for name, task in (
            *(("vit_tiny", "food25"), ("efficientnet_lite0", "food25")),
            *(("cifar_vit128", "cifar10_jpeg"), ("resnet56", "cifar10_jpeg")),
        )
    )
    yield from (Unit("pretraining", name, task, 0) for name in MINIS for task in MINI_TASKS)
    yield from (
        Unit("methods", name, task, 0)
        for name in ("aptheory_vit_mini", "aptheory_resnet_mini")
        for task in ("objects", "gtsrb32", "chars32")
    )
    yield from (Unit("sweep", name, task, 1) for name, task in pairs)
    yield from (Unit("methods", name, task, 1) for name, task in three)
    yield from (Unit("norm", name, task, 1) for name, task in three)
    yield from (Unit("map", name, task, 1) for name, task in three)


def load_network(name: str, assets: Path, side: int | None = None) -> ap.Network:
    """A network of the campaign with its weights, at the campaign's resolution or another."""
    import timm
    from safetensors.torch import load_file
    from timm.models.vision_transformer import checkpoint_filter_fn

    import aptheory.networks.zoo  # noqa: F401 - timm learns the packaged networks
    from analyses import cifar_resnet, cifar_vit

    spec = NETWORKS[name]
    if not spec.weights:
        return ap.load(name)
    side = side or spec.side
    folder = SEEDS_OF_MINIS if name in MINIS else assets
    facts = json.loads((folder / f"{spec.weights}.json").read_text())
    state = {k: v.float() for k, v in load_file(folder / f"{spec.weights}.safetensors").items()}
    if spec.factory:
        home = cifar_vit if spec.kind == "vit" else cifar_resnet
        module = getattr(home, spec.factory)()
    else:
        options = {**facts.get("kwargs", {}), **dict(spec.options)}
        if spec.kind == "vit":
            options["img_size"] = side
        module = timm.create_model(spec.model, **options)
        if spec.kind == "vit":  # positions are resampled to the resolution
            state = checkpoint_filter_fn(state, module)
    odd = module.load_state_dict(state, strict=False)
    wrong = [key for key in odd.missing_keys if not key.endswith("num_batches_tracked")]
    wrong += [key for key in odd.unexpected_keys if not key.startswith("classifier")]
    if wrong:
        raise ap.InputError(f"the weights of {name} do not fit it: {', '.join(wrong[:3])}.")
    shape = (3, side, side)
    return ap.load(
        module, None, input_shape=shape, mean=facts.get("mean"), std=facts.get("std"), name=name
    )


def _uri(name: str, assets: Path) -> str:
    """What `ap.task` knows a task of the campaign by."""
    if (assets / f"{name}.npz").is_file():
        return f"npz:{assets / name}.npz"
    return f"folder:{assets / name}.zip" if (assets / f"{name}.zip").is_file() else name


def load_task(name: str, seed: int, assets: Path, train: int = TRAIN) -> ap.Task:
    """A draw of a task: training and validation pictures anew for each seed, test the same."""
    whole = ap.task(_uri(name, assets), seed=seed)
    sizes = {
        "train": min(train, len(whole.train)),
        "val": min(VAL, len(whole.val)),
        "test": min(TEST, len(whole.test)),
    }
    drawn = whole.subset(train=sizes["train"], val=sizes["val"], seed=seed)
    fixed = whole.subset(test=sizes["test"], seed=0)
    return ap.Task(name, whole.classes, drawn.train, drawn.val, fixed.test)


def swept(net: ap.Network, count: int = PLACES) -> list[int]:
    """Places of a sweep: the image, the first block, the last map, the rest evenly between."""
    last = len(net.layers) - 1
    inner = np.linspace(0, last - 1, count).round().astype(int).tolist()
    return sorted({*inner, min(1, last - 1), last - 1})
