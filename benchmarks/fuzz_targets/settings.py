"""Methods, recipes, places and rules, as they are written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.fuzz_targets.registry import Case, file_case, target
from benchmarks.mutations import (
    HOSTILE,
    either,
    encoded,
    harm_text,
    harm_value,
)


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
    from aptheory.studies.planning import _recipe
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

    return file_case(path, either(structured, whole), lambda: Rule.load(path))
