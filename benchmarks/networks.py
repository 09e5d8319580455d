"""Try networks that people use, from end to end, and say of each what works and what does not.

    python -m benchmarks.networks --quick             # a dozen shapes, in seconds, printed
    python -m benchmarks.networks                     # all -> benchmarks/networks.md; it resumes
    python -m benchmarks.networks resnet vit          # those whose name holds one of these words

The networks are those of `benchmarks.network_catalogue`, all with random weights. Of each: it
splits, and its output equals the model's own bit for bit from every place; its attention is seen
without changing the output, and where it is fused recomputed to within ATTENTION_ERROR; it profiles
with the default measures; a prompt trains two steps at three places; VPT, LoRA and norm tuning
train two steps. A refusal is an `InputError`, a sentence; anything else that is raised, and a
difference of one bit, is wrong.

Each network runs in a process of its own on one thread, with a limit of processor time and of
memory; the rows are kept in ``--rows`` and go on from there. Networks that were tried with an
earlier state of the code are tried again after those that were not tried, and what moved since,
places or verdict, is printed; until then the page names them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.network_catalogue import catalogue

HERE = Path(__file__).parent
STEPS = ("split", "profile", "ap", "vpt", "lora", "norm_tuning")
QUICK = (
    *("own/tokens", "own/headless", "own/behind", "own/shuffled", "own/squeeze", "own/channels"),
    *("own/dino", "own/encoder", "own/windows", "own/mixer", "own/half", "transformers/Dinov2"),
)
SECONDS = 500
"""Of processor time, for one network."""
GIGABYTES = 8
ATTENTION_ERROR = 1e-4
"""Of probabilities @ values, relative to their largest value."""
PLACES = 12
"""From how many the output is compared; all of a network that has no more."""
SHARED = (
    *("pandas", "peft", "scipy.stats", "sklearn.linear_model", "torchvision", "timm.models"),
    *("aptheory.methods", "aptheory.profiling.profile", "aptheory.training.fit"),
)
"""What every trial imports."""


# --------------------------------------------------------------------------------- the trials


def check(name: str) -> dict[str, Any]:
    """Try one network: step -> "ok", or why not; a step that is wrong says so."""
    import torch

    import aptheory as ap

    torch.manual_seed(0)
    module, settings = catalogue()[name]()
    row: dict[str, Any] = {"network": name}
    try:
        net = _load(module, name.partition("/")[2], settings)
    except ap.InputError as error:
        return {**row, "split": str(error)}
    row |= {"places": len(net.layers), "last": net.layers[-1].name, "notes": list(net.notes)}
    row["layers"] = hashlib.sha256(repr(net.layers).encode()).hexdigest()[:12]
    row["split"] = _bit_for_bit(net)
    row |= _attention(net)
    task = _task(net)
    for step in STEPS[1:]:
        try:
            _try(step, net, task)
            row[step] = "ok"
        except ap.InputError as error:
            row[step] = str(error)
        except Exception as error:
            row[step] = _wrong(error)
    return row


def _load(module: Any, name: str, settings: dict[str, Any]) -> Any:
    """The network on small images, or on its own where timm's model has one size."""
    import aptheory as ap

    try:
        return ap.load(module, None, name=name, **settings)
    except ap.InputError:
        if not isinstance(module, str):
            raise
        return ap.load(module, None, name=name)


def _wrong(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"wrong: {type(error).__name__}: {lines[0]}"


def _bit_for_bit(net: Any) -> str:
    """ "ok" where every place leads to the model's own output on two images."""
    import torch

    last = len(net.layers) - 1
    spread = {round(last * i / (PLACES - 1)) for i in range(PLACES)}
    with torch.inference_mode():
        x = torch.randn(2, *net.input_shape).to(net.dtype)
        expected = net.pick(net.module(x.clone()))
        for layer, z in net.walk(x, stops=range(last + 1)):
            if last >= PLACES and layer.index not in spread:
                continue
            if not torch.equal(net.run(z, start=layer.index), expected):
                return f"wrong: from {layer.name} on it differs from the model"
    return "ok"


def _attention(net: Any) -> dict[str, Any]:
    """How many attention layers are seen, and how far the recomputed ones are off."""
    import torch

    from aptheory.networks.attention import (
        attention_error,
        observe_attention,
        unplaced_attention_layers,
    )
    from aptheory.networks.fast_path import fast_path_off

    sites = unplaced_attention_layers(net)
    if not sites:
        return {}
    seen: list[str] = []
    x = torch.randn(1, *net.input_shape).to(net.dtype)
    with torch.no_grad(), fast_path_off():  # torch's fused layers round otherwise, and hide it
        expected = net(x)
        with observe_attention(net, lambda site, _: seen.append(site.name), sites):
            observed = net(x)
    error = max(attention_error(net, x).values(), default=0.0)
    row = {"attention": len(sites), "attention_error": error}
    if not torch.equal(observed, expected):
        row["split"] = "wrong: watching its attention changes its output"
    elif sorted(seen) != sorted(site.name for site in sites):
        row["split"] = "wrong: some of its attention is missed"
    elif error > ATTENTION_ERROR:
        row["split"] = f"wrong: its recomputed attention is off by {error:.1g}"
    return row


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
    process = context.Process(target=_child, args=(name, seconds, sender))
    process.start()
    sender.close()
    try:
        return dict(receiver.recv())
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return {"network": name, "split": f"not finished in {seconds} s of processor time"}
        return {"network": name, "split": "wrong: its process ended by itself"}
    finally:
        process.kill()
        process.join()


def _child(name: str, seconds: int, sender: Any) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a profile says of each layer what is not defined there
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES << 30, GIGABYTES << 30))
    try:
        row = check(name)
    except Exception as error:
        row = {"network": name, "split": _wrong(error)}
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
    yield f"| network | places | attention | error | {' | '.join(STEPS)} | reason |"
    yield f"|---|---:|---:|---:|{'---|' * len(STEPS)}---|"
    for row in rows:
        marks = ["yes" if row.get(step) == "ok" else "no" for step in STEPS]
        reasons = dict.fromkeys(_told(str(row[s])) for s in STEPS if row.get(s, "ok") != "ok")
        error = f"{row['attention_error']:.0e}" if row.get("attention_error") else ""
        yield (
            f"| {row['network']} | {row.get('places', '')} | {row.get('attention', '')} | {error} "
            f"| {' | '.join(marks)} | {'; '.join(reasons).replace('|', '/')} |"
        )


def _told(reason: str) -> str:
    """A reason without the folders of this machine."""
    return re.sub(r"/\S*/(site-packages|tests|benchmarks)/", r"\1/", reason)


def write(rows: list[dict[str, Any]], left: list[str], path: Path) -> None:
    """The whole page; ``left`` names the networks that were not tried yet."""
    import timm
    import torch

    head = [
        "# Networks that people use, tried from end to end",
        "",
        f"Made by `python -m benchmarks.networks` (timm {timm.__version__}, torch "
        f"{torch.__version__}, float32, random weights). Right: it splits, its output equals the "
        "model's own bit for bit from every place, it profiles with the default measures, and a "
        "prompt trains at the image, in the middle and at the classifier's input. Refused: one "
        "sentence says why. Attention: how many layers' attention over positions is seen while "
        "the output stays the same bit for bit (beside torch's fused transformer layers, which "
        "are off meanwhile); the error is that of probabilities @ values, "
        "recomputed where the kernel is fused, relative to their largest value.",
        "",
    ]
    notes = [f"Not tried yet ({len(left)}): {', '.join(left)}.", ""] if left else []
    earlier = [row["network"] for row in rows if row.get("code") != code_state()]
    if earlier:
        notes += [
            f"Tried with an earlier state of `aptheory/networks` ({len(earlier)}): "
            f"{', '.join(earlier)}.",
            "",
        ]
    path.write_text("\n".join([*head, *table(rows), "", *notes, summary(rows), ""]))


def moved(before: dict[str, Any], row: dict[str, Any]) -> str:
    """What is not as an earlier state of the code had it, or nothing."""
    told = [f"{k} {before[k]} -> {row.get(k)}" for k in ("places", "last") if k in before]
    same = all(before[k] == row.get(k) for k in ("places", "last", "layers") if k in before)
    if before and verdict(before) != verdict(row):
        return f"  MOVED: {verdict(before)} -> {verdict(row)}"
    return "" if same else f"  MOVED: {', '.join(told)}"


def code_state() -> str:
    """What the code that splits networks is known by: a row of another state may be out of date."""
    digest = hashlib.sha256()
    for file in sorted((HERE.parent / "aptheory" / "networks").glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="names that hold one of these; all without any")
    parser.add_argument("--quick", action="store_true", help="a dozen shapes")
    parser.add_argument("--rows", type=Path, default=HERE / "networks.json")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for one network")
    settings = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for module in SHARED:  # once, for all processes
        importlib.import_module(module)
    names = [n for n in catalogue() if not settings.words or any(w in n for w in settings.words)]
    if settings.quick:
        names = [name for name in names if name in QUICK]
    whole = not settings.words and not settings.quick
    known: dict[str, dict[str, Any]] = {}
    if whole and settings.rows.is_file():
        known = {row["network"]: row for row in json.loads(settings.rows.read_text())}
    for name in sorted(names, key=lambda name: name in known):
        before = known.get(name, {})
        if before.get("code") != code_state():
            found = run(name, settings.seconds)
            found = {k: _told(v) if isinstance(v, str) else v for k, v in found.items()}
            if found["split"].startswith("not finished"):  # no verdict: it stays untried
                print(f"{'untried':8} {name:48} {found['split']}", flush=True)
                continue
            known[name] = {**found, "code": code_state()}
        row = known[name]
        reasons = [f"{s}: {row[s]}" for s in STEPS if row.get(s, "ok") != "ok"]
        line = f"{verdict(row):8} {name:48} {row.get('places', '')} {'; '.join(reasons)}"
        print(line + moved(before, row), flush=True)
        if whole:
            settings.rows.parent.mkdir(parents=True, exist_ok=True)
            settings.rows.write_text(json.dumps(list(known.values()), indent=1))
            tried = [known[n] for n in names if n in known]
            write(tried, [n for n in names if n not in known], HERE / "networks.md")
    print(summary([known[name] for name in names if name in known]))


if __name__ == "__main__":
    main()
