"""Try networks that people use, from end to end, and say of each what works and what does not.

    python -m benchmarks.networks --quick             # a few of each kind, printed
    python -m benchmarks.networks                     # all -> benchmarks/networks.md; it resumes
    python -m benchmarks.networks resnet vit          # those whose name holds one of these words

All families of timm (the smallest model of each), torchvision's classifiers, vision models of
Hugging Face from small configurations, towers of open_clip, and modules as research code writes
them, all with random weights. Of each: it splits, and its output equals the model's own bit for
bit from every place; it profiles with the default measures; a prompt trains two steps at three
places; VPT, LoRA and norm tuning train two steps. A refusal is an `InputError`, a sentence;
anything else that is raised, and a difference of one bit, is wrong.

Each network runs in a process of its own with a limit of time; the rows are kept in
``--rows`` and go on from there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STEPS = ("split", "profile", "ap", "vpt", "lora", "norm_tuning")
QUICK = (
    *("own/tokens", "own/headless", "own/behind", "own/shuffled", "own/squeeze", "own/channels"),
    *("timm/vit_tiny_patch16_224", "torchvision/resnet18", "transformers/Dinov2"),
)
SECONDS = 900


# ------------------------------------------------------------------------------- the networks


def catalogue() -> dict[str, Callable[[], tuple[Any, dict[str, Any]]]]:
    """Name -> what makes the module and the settings that `load` needs."""
    return {**_own(), **_transformers(), **_open_clip(), **_torchvision(), **_timm()}


def _timm() -> dict[str, Any]:
    import timm

    def make(model: str) -> Any:
        return timm.create_model(model), {}

    names = json.loads((HERE / "smallest.json").read_text())
    return {f"timm/{model}": lambda model=model: make(model) for model in names}


def _torchvision() -> dict[str, Any]:
    import torchvision.models as models

    def make(name: str) -> Any:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        side = 299 if name == "inception_v3" else 224
        return models.get_model(name, weights=None, **extra), {"input_shape": (3, side, side)}

    classifiers = models.list_models(module=models)
    heavy = ("_7gf", "_32gf", "_128gf", "_16gf", "_h_14", "_l_", "b5", "b6", "b7", "_large")
    names = [n for n in classifiers if not any(word in n for word in heavy)]
    return {f"torchvision/{name}": lambda name=name: make(name) for name in names}


SMALL: dict[str, dict[str, Any]] = {
    "ViT": {"image_size": 32, "patch_size": 8},
    "DeiT": {"image_size": 32, "patch_size": 8},
    "Dinov2": {"image_size": 32, "patch_size": 8},
    "Dinov2WithRegisters": {"image_size": 32, "patch_size": 8},
    "Beit": {"image_size": 32, "patch_size": 8},
    "ViTMSN": {"image_size": 32, "patch_size": 8},
    "IJepa": {"image_size": 32, "patch_size": 8},
    "Swin": {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2]},
    "Swinv2": {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2]},
    "ConvNext": {"hidden_sizes": [16, 24], "depths": [2, 2], "num_stages": 2},
    "ConvNextV2": {"hidden_sizes": [16, 24], "depths": [2, 2], "num_stages": 2},
    "ResNet": {"embedding_size": 16, "hidden_sizes": [16, 24], "depths": [2, 2]},
    "RegNet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2], "groups_width": 8},
    "MobileNetV1": {},
    "MobileNetV2": {},
    "MobileViT": {},
    "PoolFormer": {},
    "Segformer": {},
    "Pvt": {},
    "Bit": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2], "num_groups": 4},
    "Levit": {},
    "Cvt": {},
    "EfficientNet": {},
    "Hiera": {},
    "Focalnet": {},
}
NARROW = {
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_labels": 5,
}


def _transformers() -> dict[str, Any]:
    try:
        import transformers
    except ImportError:
        return {}

    def make(kind: str, settings: dict[str, Any]) -> Any:
        config = getattr(transformers, f"{kind}Config")(**settings)
        for key, value in (NARROW if "image_size" in settings else {"num_labels": 5}).items():
            if key in config.to_dict() or key == "num_labels":
                setattr(config, key, value)
        side = settings.get("image_size", 64 if "depths" in settings else 224)
        model = getattr(transformers, f"{kind}ForImageClassification")(config)
        return model, {"input_shape": (3, side, side)}

    known = {k: s for k, s in SMALL.items() if hasattr(transformers, f"{k}ForImageClassification")}
    return {f"transformers/{k}": lambda k=k, s=s: make(k, s) for k, s in known.items()}


def _open_clip() -> dict[str, Any]:
    try:
        import open_clip
    except ImportError:
        return {}

    def make(name: str) -> Any:
        visual = open_clip.create_model(name, pretrained=None).visual
        size = visual.image_size
        side = size[0] if isinstance(size, tuple) else size
        return visual, {"input_shape": (3, side, side)}

    return {f"open_clip/{n}": lambda n=n: make(n) for n in ("ViT-S-32-alt", "ViT-B-32", "RN50")}


def _own() -> dict[str, Any]:
    import torch
    from torch import nn

    from tests.networks import brought
    from tests.networks.brought import Around, Maps, Tokens, vit

    def with_side(module: nn.Module) -> Any:
        return module, {"input_shape": brought.SHAPE}

    makers: dict[str, Callable[[], nn.Module]] = {
        "tokens": Tokens,
        "headless": lambda: Tokens(lambda net, x: net.backbone(x)),
        "behind": lambda: Tokens(brought.joined(True), 1),
        "registers": lambda: Tokens(brought.joined(False), 5),
        "shuffled": lambda: Tokens(brought.shuffled),
        "tokens_first": lambda: Tokens(brought.tokens_first),
        "functional": lambda: Tokens(brought.functional),
        "dense": lambda: Tokens(brought.dense),
        "dict": lambda: Tokens(brought.returns_logits),
        "len": lambda: Tokens(brought.counts_images),
        "squeeze": lambda: Maps(brought.squeezes),
        "convolution": lambda: Maps(brought.convolves, nn.Conv2d(16, 5, 1)),
        "channels": brought.ChannelsFirst,
        "last_axis": brought.LastAxis,
        "wrapped_vit": lambda: Around(vit()),
        "dino": lambda: Around(vit(num_classes=0)),
        "mae": lambda: Around(vit(num_classes=0, global_pool="avg", class_token=True)),
        "parallel": lambda: nn.DataParallel(Tokens()),
        "half": lambda: Tokens().to(torch.bfloat16),
        "branches": lambda: Tokens(brought.branches_on_values),
        "random": lambda: Tokens(brought.draws),
    }
    return {f"own/{n}": lambda make=make: with_side(make()) for n, make in makers.items()}


# --------------------------------------------------------------------------------- the trials


def check(name: str) -> dict[str, Any]:
    """Try one network: step -> "ok", or why not; a step that is wrong says so."""
    import torch

    import aptheory as ap

    torch.manual_seed(0)
    module, settings = catalogue()[name]()
    row: dict[str, Any] = {"network": name}
    try:
        net = ap.load(module, None, name=name.partition("/")[2], **settings)
    except ap.InputError as error:
        return {**row, "split": str(error)}
    row |= {"places": len(net.layers), "last": net.layers[-1].name, "notes": list(net.notes)}
    row["split"] = _bit_for_bit(net)
    task = _task(net)
    for step in STEPS[1:]:
        try:
            _try(step, net, task)
            row[step] = "ok"
        except ap.InputError as error:
            row[step] = str(error)
    return row


def _bit_for_bit(net: Any) -> str:
    """ "ok" where every place leads to the model's own output on two images."""
    import torch

    with torch.inference_mode():
        x = torch.randn(2, *net.input_shape).to(net.dtype)
        expected = net.pick(net.module(x.clone()))
        for layer, z in net.walk(x, stops=range(len(net.layers))):
            if not torch.equal(net.run(z, start=layer.index), expected):
                return f"wrong: from {layer.name} on it differs from the model"
    return "ok"


def _task(net: Any) -> Any:
    import numpy as np

    from aptheory.tasks import ArraySplit, Task

    rng = np.random.default_rng(0)
    channels, height, width = net.input_shape
    parts = [
        ArraySplit(rng.integers(0, 256, (8, height, width, channels), np.uint8), np.arange(8) % 2)
        for _ in range(3)
    ]
    return Task("noise", ("a", "b"), *parts)


def _try(step: str, net: Any, task: Any) -> None:
    """One step on one network: a profile, or a fit of two steps."""
    import aptheory as ap

    if step == "profile":
        ap.profile(net, task, limit=4, batch_size=4)
        return
    recipe = ap.Recipe(epochs=1, batch_size=4)
    middle = net.block_layers[len(net.block_layers) // 2]
    methods = {
        "ap": [ap.ActivationPrompt(layer=place) for place in (0, middle, -1)],
        "vpt": [ap.VPT(tokens=2)],
        "lora": [ap.LoRA(rank=2)],
        "norm_tuning": [ap.NormTuning()],
    }[step]
    for method in methods:
        ap.fit(method.attach(net, classes=2), task, recipe=recipe, seed=0)


def run(name: str, seconds: int = SECONDS) -> dict[str, Any]:
    """One network in a process of its own; what ends otherwise than it should is wrong."""
    context: Any = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return {"network": name, "split": f"not finished in {seconds} s"}
        return receiver.recv()
    except EOFError:
        return {"network": name, "split": "wrong: its process ended by itself"}
    finally:
        process.kill()
        process.join()


def _child(name: str, sender: Any) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        row = check(name)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        row = {"network": name, "split": f"wrong: {type(error).__name__}: {lines[0]}"}
    sender.send(row)


# ---------------------------------------------------------------------------------- the table


def verdict(row: dict[str, Any]) -> str:
    """ "right" where it splits, profiles and takes prompts; "refused" or "wrong" else.

    VPT, LoRA and norm tuning may be refused, where there are no tokens or norms.
    """
    answers = [str(row.get(step, "")) for step in STEPS]
    if any(answer.startswith("wrong") for answer in answers):
        return "wrong"
    return "right" if all(row.get(step) == "ok" for step in STEPS[:3]) else "refused"


def summary(rows: list[dict[str, Any]]) -> str:
    """The last line of the table."""
    verdicts = [verdict(row) for row in rows]
    right, wrong = verdicts.count("right"), verdicts.count("wrong")
    return f"networks right: {right} of {len(rows)}, wrong: {wrong}"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the table."""
    yield f"| network | places | {' | '.join(STEPS)} | reason |"
    yield f"|---|---:|{'---|' * len(STEPS)}---|"
    for row in rows:
        marks = ["yes" if row.get(step) == "ok" else "no" for step in STEPS]
        reasons = dict.fromkeys(str(row[s]) for s in STEPS if row.get(s, "ok") != "ok")
        yield (
            f"| {row['network']} | {row.get('places', '')} | {' | '.join(marks)} | "
            f"{'; '.join(reasons).replace('|', '/')} |"
        )


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """The whole page."""
    import timm
    import torch

    head = [
        "# Networks that people use, tried from end to end",
        "",
        f"Made by `python -m benchmarks.networks` (timm {timm.__version__}, torch "
        f"{torch.__version__}, float32, random weights). Right: it splits, its output equals the "
        "model's own bit for bit from every place, it profiles with the default measures, and a "
        "prompt trains at the image, in the middle and at the classifier's input. Refused: one "
        "sentence says why.",
        "",
    ]
    path.write_text("\n".join([*head, *table(rows), "", summary(rows), ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="names that hold one of these; all without any")
    parser.add_argument("--quick", action="store_true", help="a few of each kind")
    parser.add_argument("--rows", type=Path, default=Path("runs/networks.json"))
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for one network")
    settings = parser.parse_args()
    import aptheory  # noqa: F401  (once, for all processes)

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    names = [n for n in catalogue() if not settings.words or any(w in n for w in settings.words)]
    if settings.quick:
        names = [name for name in names if name in QUICK]
    whole = not settings.words and not settings.quick
    known: dict[str, dict[str, Any]] = {}
    if whole and settings.rows.is_file():
        known = {row["network"]: row for row in json.loads(settings.rows.read_text())}
    for name in names:
        if name not in known:
            known[name] = run(name, settings.seconds)
        row = known[name]
        reasons = [f"{s}: {row[s]}" for s in STEPS if row.get(s, "ok") != "ok"]
        line = f"{verdict(row):8} {name:48} {row.get('places', '')} {'; '.join(reasons)}"
        print(line, flush=True)
        if whole:
            settings.rows.parent.mkdir(parents=True, exist_ok=True)
            settings.rows.write_text(json.dumps(list(known.values()), indent=1))
            write([known[n] for n in names if n in known], HERE / "networks.md")
    print(summary([known[name] for name in names]))


if __name__ == "__main__":
    main()
