"""Split the smallest model of every timm family, check it numerically, and write the table.

    python benchmarks/families.py                    # all families -> benchmarks/families.md
    python benchmarks/families.py resnet levit       # some, printed only

Each family runs in a process of its own, so that one that crashes is a row with its reason.
Smallest means fewest parameters. Checked with random weights and two random images: the network's
output equals the model's own bit for bit, and so does running to every layer and on from there (to
five layers, evenly spread, where one forward takes more than SLOW seconds; the others are then
checked by running piece by piece), and no run writes to its input.

A run takes some 40 minutes of one processor. With ``--json rows.json`` it can be stopped and
goes on where it was; the table is written after each family.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    import aptheory as ap
    from aptheory.networks.attention import AttentionLayer

HERE = Path(__file__).parent
SLOW = 0.5


def smallest(family: str) -> str:
    """The model of a family with the fewest parameters; timm's stand-ins for tests are left out."""
    import timm
    import torch

    sizes = {}
    for name in timm.list_models(module=family, exclude_filters="test_*"):
        try:
            with torch.device("meta"):
                module = timm.create_model(name)
        except Exception:  # some cannot be built without memory
            module = timm.create_model(name)
        sizes[name] = sum(p.numel() for p in module.parameters())
    return min(sizes, key=lambda name: (sizes[name], name))


def check(model: str) -> dict:
    """Split one model and measure the largest difference over all its places."""
    import timm
    import torch

    import aptheory as ap

    torch.manual_seed(0)
    began = time.perf_counter()
    module = timm.create_model(model).eval()
    found: dict = {"model": model, "parameters": sum(p.numel() for p in module.parameters())}
    try:
        net = ap.load(module, name=model)
    except ap.InputError as error:
        return {**found, "layers": 0, "reason": str(error)}
    found |= {"layers": len(net.layers), "seconds": round(time.perf_counter() - began, 1)}
    found["places"] = [
        (layer.name, layer.layout, layer.prefix, layer.shape) for layer in net.layers
    ]
    x = torch.randn(2, *net.input_shape)
    with torch.no_grad():
        started = time.process_time()
        expected = module(x.clone())
        slow = time.process_time() - started > SLOW
        count = len(net.layers)
        tried = {round(k * (count - 1) / 4) for k in range(5)} if slow else set(range(count))
        worst = [apart(net(x), expected)]
        z = x.clone()
        for layer in net.layers:
            kept = z.clone()
            if layer.index in tried:
                worst.append(apart(net.run(z, start=layer.index), expected))
            if layer.index + 1 < count:
                after = net.run(z, start=layer.index, stop=layer.index + 1)
            if not torch.equal(kept, z):
                found["reason"] = f"running from {layer.name} wrote to its input"
            z = after
    found["error"] = max(worst)
    if not slow:
        found |= attention(net, x[:1])
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference; infinite where there is no number."""
    return (one - other).abs().nan_to_num(float("inf")).max().item()


def attention(net: ap.Network, x: torch.Tensor) -> dict:
    """Observe every attention layer: how many, how far off, and whether the output changed."""
    import torch

    from aptheory.networks.attention import (
        attention_error,
        observe_attention,
        unplaced_attention_layers,
    )

    sites = unplaced_attention_layers(net)
    if not sites:
        return {}
    seen: dict[str, int] = {}

    def count(site: AttentionLayer, probabilities: torch.Tensor) -> None:
        sums = probabilities.sum(-1)
        seen[site.name] = seen.get(site.name, 0) + bool(torch.allclose(sums, torch.ones_like(sums)))

    with torch.no_grad():
        expected = net(x)
        with observe_attention(net, count, sites):
            unchanged = torch.equal(net(x), expected)
    errors = attention_error(net, x)
    return {
        "attention": len(sites),
        "fused": len(errors),
        "attention_error": max(errors.values(), default=0.0),
        "attention_reason": ""
        if unchanged and seen == {site.name: 1 for site in sites}
        else "observing changed the output or missed a layer",
    }


def run(family: str, models: dict[str, str], timeout: int) -> dict:
    """Check one family in a process of its own, which starts with everything imported."""
    context: Any = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(family, models.get(family), timeout, sender))
    process.start()
    sender.close()
    empty = {"family": family, "model": models.get(family, ""), "layers": 0}
    try:
        return {"family": family, **receiver.recv()}
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return {**empty, "reason": f"over {timeout} s"}
        return {**empty, "reason": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _child(family: str, model: str | None, timeout: int, sender: Any) -> None:
    import torch

    resource.setrlimit(resource.RLIMIT_CPU, (timeout, timeout + 5))
    torch.set_num_threads(1)
    try:
        model = model or smallest(family)
        row = check(model)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        lines = str(error).splitlines() or [""]
        told = f"{type(error).__name__} in {where.name}: {lines[0]}"
        row = {"model": model or "", "layers": 0, "reason": told}
    sender.send(row)


def write(rows: list[dict], path: Path, left: list[str]) -> None:
    """The table, with its sum on top and the families that were not run yet."""
    import timm
    import torch

    split = [r for r in rows if r["layers"] >= 6 and r.get("error") == 0 and not r.get("reason")]
    lines = [
        "# Which of timm's families split into layers",
        "",
        f"{len(split)} of {len(rows)} families split into at least six layers, every output equal "
        f"to timm's, bit for bit (timm {timm.__version__}, torch {torch.__version__}, float32, "
        "random weights, two images). Made by `python benchmarks/families.py`; the model is the "
        "family's smallest. The error is the largest absolute difference from timm's own output "
        "over all layers at which the run is interrupted.",
        "",
        "| family | model | parameters | layers | largest error | reason where it falls short |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        error = f"{row['error']:.1g}" if "error" in row else ""
        few = "fewer than six moments at which one activation lives alone"
        reason = row.get("reason") or (few if row["layers"] < 6 else "")
        lines.append(
            f"| {row['family']} | {row['model']} | {row.get('parameters', 0):,} | "
            f"{row['layers'] or ''} | {error} | {reason} |"
        )
    if left:
        lines += ["", f"Not run yet: {', '.join(left)}."]
    path.write_text("\n".join([*lines, *attention_lines(rows)]) + "\n")


def attention_lines(rows: list[dict]) -> list[str]:
    """The second table: attention that can be seen."""
    lines = [
        "",
        "## Attention",
        "",
        "Attention over positions, observed while the network runs; the output stays the same bit "
        "for bit. Where attention is fused, the probabilities are recomputed, and the error "
        "is the largest difference of probabilities @ values from what the fused kernel gave, "
        "relative to its largest value. Where it is not fused, the module's own probabilities are "
        f"seen. Networks whose forward takes more than {SLOW} s are not looked at.",
        "",
        "| family | model | attention layers | of them fused | largest relative error |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        if row.get("attention"):
            error = row["attention_reason"] or (
                f"{row['attention_error']:.1e}" if row["fused"] else "seen as it is"
            )
            numbers = f"{row['attention']} | {row['fused']} | {error}"
            lines.append(f"| {row['family']} | {row['model']} | {numbers} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="all where none is named")
    parser.add_argument(
        "--timeout", type=int, default=900, help="seconds of the processor a family"
    )
    parser.add_argument("--models", type=Path, help="JSON of family: model, instead of searching")
    parser.add_argument(
        "--json",
        type=Path,
        help="keep the raw results here; those that are there are not run again",
    )
    settings = parser.parse_args()
    import timm

    import aptheory as ap  # noqa: F401  (imported once, for all families)

    families = settings.families or timm.list_modules()
    models = json.loads(settings.models.read_text()) if settings.models else {}
    known = {}
    if settings.json and settings.json.exists():
        known = {row["family"]: row for row in json.loads(settings.json.read_text())}
    for number, family in enumerate(families, start=1):
        if family not in known:
            known[family] = run(family, models, settings.timeout)
            if settings.json:
                settings.json.write_text(json.dumps(list(known.values()), indent=1))
        row = known[family]
        note = row.get("reason") or f"error {row['error']:.1g}"
        print(f"{family:28} {row['model']:40} {row['layers']:3} layers  {note}", flush=True)
        if not settings.families:
            rows = [known[f] for f in families[:number]]
            write(rows, HERE / "families.md", left=families[number:])


if __name__ == "__main__":
    main()
