"""Small result tables with the columns of the real ones and findings that were planted."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analyses import campaign_dial, campaign_predicted, campaign_pretraining, more_pictures
from analyses.campaign_methods import judged
from analyses.campaign_plan import MINI_TASKS, MINIS, NETWORKS
from analyses.campaign_planted import planted_judged
from analyses.campaign_pretraining import about, grid, shares
from analyses.shift_law import OUTCOMES, law
from aptheory.findings.relate import relate

VIT, CNN = "aptheory_vit_mini", "aptheory_resnet_mini"


def write(folder: Path, *, token_prompts: bool = False) -> Path:
    """Every table that a figure reads: the ViT is best at layer 2, the CNN at layer 5, of 7."""
    generator = np.random.default_rng(0)
    accuracy, profile = _sweep(generator)
    tables = {
        "evidence/pairs": _pairs(),
        "evidence/maps": _maps(),
        "evidence/norm": _norms(),
        "evidence/norm_cost": _norm_costs(),
        "evidence/methods": (compared := _compared()),
        "evidence/judged_methods": judged(compared),
        "evidence/dial": (dialled := campaign_dial.steps(_dialled())),
        "evidence/dial_curves": campaign_dial.curves(_dialled()),
        "evidence/judged_dial": campaign_dial.judged(dialled),
        "evidence/more_pictures": _more_pictures(),
        "evidence/pretraining_curves": (seeds := about(_pretrained())),
        "evidence/judged_pretraining": pd.DataFrame(
            {"statistic": f"share of {what} in the curves, {campaign_pretraining.NAMES[kind]}"}
            | {"value": share}
            for kind in campaign_pretraining.NAMES
            for what, share in shares(grid(seeds, kind)[0]).items()
        ),
        "evidence/parts": pd.DataFrame(
            {"network": network, "task": task, "layer": layer, "depth": layer / 5}
            | {"chosen": layer == 1, "shape": shape, "accuracy_flat": True}
            | {"beta": 0.95 - left, "gamma": 0.05, "left": left}
            | {"more": 100 * left, "more_low": 100 * left - 3, "more_high": 100 * left + 3}
            | {"retrained none": 0.5, "retrained whole": 0.5 + 0.02 * (5 - layer)}
            | {
                f"retrained {part}": 0.51 + 0.02 * (network == "vit_tiny")
                for part in ("beta", "gamma and beta")
            }
            for network in ("resnet56", "vit_tiny")
            for task in ("gtsrb32", "food25")
            for layer in range(5)
            for shape, left in (("full", 0.8), ("channel", 0.1))
        ),
        "layer_preference/accuracy": accuracy,
        "layer_preference/profile": profile,
        "layer_preference/relation": relate(profile, accuracy),
        "cka_between/cka": pd.DataFrame(
            {"network": CNN, "task": task, "layer": i, "measure": "cka"}
            | {"other_network": VIT, "other_layer": j, "value": 1 - abs(i / 2 - j) / 8}
            for task in ("digits", "counting")
            for i in range(8)
            for j in range(8)
        ),
        "cost/steps": _steps(),
        "cost/parameters": pd.DataFrame({"what": ["AP", "VPT"], "parameters": [200_000, 9_000]}),
        "methods/comparison": _comparison(generator),
        "methods/resnet56/comparison": _comparison(generator, {"resnet56": ("signs",)}),
        "theory/low_data/low_data": pd.DataFrame(
            {"task": "digits", "method": method, "seed": seed, "images_a_class": images}
            | {"measure": "test_accuracy", "value": base + 0.05 * images + 0.01 * seed}
            for method, base in (("VPT", 0.2), ("VAPT", 0.3))
            for seed in range(3)
            for images in (1, 4)
        ),
        "theory/token_count/token_count": pd.DataFrame(
            {"method": method, "tokens": tokens, "seed": seed, "classes": 10}
            | {"test_accuracy": 0.5 + gap * tokens / 200 + 0.01 * seed}
            for method, gap in (("VPT", -0.3), ("VAPT", 0.0))
            for tokens in (5, 50, 200)
            for seed in range(3)
        ),
        "theory/token_count/untrained": pd.DataFrame(
            {"method": method, "tokens": tokens, "seed": seed, "classes": 10, "accuracy": accuracy}
            for method, tokens, accuracy in (
                *(("no prompt", 0, 0.7), ("VPT", 5, 0.3), ("VPT", 200, 0.1)),
                *(("VAPT", 5, 0.6), ("VAPT", 200, 0.2)),
            )
            for seed in range(1 if tokens == 0 else 3)
        ),
        **_predicted(),
        "layer_choice/summary": pd.DataFrame(
            {
                "way": ["rule", "paper's place", "random layer"],
                "regret": [0.5, 2.0, 3.0],
                "low": [0.1, 1.0, 2.0],
                "high": [0.9, 3.0, 4.0],
            }
        ),
        "evidence/choice_summary": _front(),
        "evidence/planted": (cases := _planted()),
        "evidence/judged_planted": planted_judged(cases),
        "evidence/shift_pairs": _shifts(),
        "evidence/shift_law": law(_shifts()),
        "layer_choice/regret": pd.DataFrame({"way": ["rule", "rule"], "regret": [0.2, 0.8]}),
        **_theory(generator),
        "predicted_curves/predicted_curves": pd.DataFrame(
            {
                "network": network,
                "task": task,
                "layer": layer,
                "depth": layer / 6,
                "predicted": layer - 2.0,
                "measured": 2.0 * layer - 3,
                "norm": 0.1,
            }
            for network in (VIT, CNN)
            for task in ("digits", "objects")
            for layer in range(7)
        ),
        "prompt_views/views": _views(generator),
    }
    if token_prompts:
        tables["theory/two_layer_middle/two_layer"] = pd.DataFrame(_two_layer("token"))
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def _shifts() -> pd.DataFrame:
    """Slopes fall and gains rise with the shift, in every network."""
    return pd.DataFrame(
        {"network": network, "kind": kind, "task": f"t{task}", "near": task < 2}
        | {"origin": "reference", "shift": 0.1 + task / 10, **dict.fromkeys(OUTCOMES, task / 100)}
        | {"slope_end": 0.5 - task / 5}
        for network, kind in ((CNN, "cnn"), (VIT, "vit"), ("resnet56", "cnn"))
        for task in range(5)
    )


def predicted_places() -> pd.DataFrame:
    """Two networks, a near and a far task each: measured gains are 2 · predicted + 1, and the
    linear model is the farther off the larger the prompt."""
    return pd.DataFrame(
        {"network": network, "kind": kind, "task": task, "near": near, "layer": layer}
        | {"depth": layer / 7, "predicted": layer - 2.0, "applied": layer - 2.0 + 0.1 * layer}
        | {"predicted_loss": 0.1 * layer, "norm": 0.04 * layer, "trained": 0.3}
        | {"measured": 2.0 * layer - 3, "moving": layer == 0}
        for network, kind in (("resnet56", "cnn"), ("vit_tiny", "vit"))
        for task, near in (("gtsrb32", False), ("trashnet5", True))
        for layer in range(7)
    )


def _planted() -> pd.DataFrame:
    """Two networks, two sizes; the larger is found on both, the smaller on one."""
    return pd.DataFrame(
        [
            {
                **{"network": network, "planted_size": size, "places": 7, "off": 2 * (not found)},
                "plant": "random",
                **{"found": found, "gain_planted": 8 * size, "next_best": 3 * size},
            }
            for network in ("resnet32", "vit_tiny")
            for size in (0.5, 1.0)
            for found in [size == 1 or network == "vit_tiny"]
        ]
    )


def _predicted() -> dict[str, pd.DataFrame]:
    return {
        "evidence/predicted_places": predicted_places(),
        "evidence/predicted_pairs": campaign_predicted.of_pairs(predicted_places()),
        "evidence/predicted_choice": pd.DataFrame(
            {"way": way, "regret": regret, "low": regret - 0.5, "high": regret + 0.5}
            for way, regret in (("the middle", 1.5), ("predicted best accuracy", 1.0))
        ),
    }


def _front() -> pd.DataFrame:
    """Trials lose half a point less than the middle, clearly in the older sweeps alone."""
    rows = []
    for data, low in (("campaign", -0.1), ("older sweeps", 0.1)):
        for way, cost, regret in (("the middle", 0.0, 1.5), ("all places, pulled", 0.1, 1.0)):
            gain = {"better": 1.5 - regret, "better_low": low, "better_high": 1.0}
            rows.append(
                {"data": data, "way": way, "cost": cost, "regret": regret, "luck": 0.4}
                | {"low": regret - 0.5, "high": regret + 0.5, "pairs": 4, "networks": 2, **gain}
            )
    return pd.DataFrame(rows)


def _sweep(generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    accuracy, profile = [], []
    for network, best in ((VIT, 2), (CNN, 5)):
        for task in ("digits", "counting"):
            for layer in range(8):
                at = {"network": network, "task": task, "layer": layer, "layer_name": f"b.{layer}"}
                heads = range(2) if network == VIT else ()
                for head in (*heads, *(["mean"] if heads else [])):
                    value = 10.0 + layer + (0 if head == "mean" else head)
                    profile.append(
                        {**at, "measure": "attention_distance", "head": head, "value": value}
                    )
                profile.append({**at, "measure": "effective_rank", "value": layer * 3 % 8})
                for other in range(layer, 8):
                    value = 1 - abs(layer - other) / 8
                    profile.append({**at, "measure": "cka", "other_layer": other, "value": value})
                for seed in range(3):
                    noise = 0.002 * generator.normal()
                    for measure in ("val_accuracy", "test_accuracy"):
                        value = 0.5 + (0.2 - 0.03 * abs(layer - best) if layer < 7 else 0) + noise
                        row = {**at, "seed": seed, "measure": measure}
                        accuracy.append({**row, "method": "ap", "value": value})
                        if layer == 7:
                            accuracy.append({**row, "method": "linear_probe", "value": 0.5 + noise})
    return pd.DataFrame(accuracy), pd.DataFrame(profile)


def _comparison(
    generator: np.random.Generator,
    cases: Mapping[str, tuple[str, ...]] = dict.fromkeys((VIT, CNN), ("digits", "objects")),
) -> pd.DataFrame:
    rows = []
    for network, tasks in cases.items():
        for task in tasks:
            for rank, method in enumerate(("norm_tuning", "ap", "linear_probe"), 1):
                value = 0.9 - 0.1 * rank + 0.001 * generator.normal()
                bounds = {"value": value, "low": value - 0.02, "high": value + 0.02}
                key = {"network": network, "task": task, "method": method}
                rows.append({**key, "rank": rank, "parameters": 10**rank, **bounds})
            rows.append({"network": network, "task": task, "method": "layer_probe", "value": 0.5})
    return pd.DataFrame(rows)


def _steps() -> pd.DataFrame:
    rows = [
        ("cnn", "resnet50", "vp", "image", False, 1.0),
        ("cnn", "resnet50", "ap", "layer4.0", False, 0.6),
        ("cnn", "resnet50", "ap", "layer4.0", True, 0.2),
        ("vit", "vit_small_patch16_224", "ap", "blocks.2", False, 0.9),
        ("vit", "vit_small_patch16_224", "ap", "blocks.2", True, 0.8),
        ("vit", "vit_small_patch16_224", "vpt 10", "blocks.0", False, 1.1),
    ]
    table = pd.DataFrame(
        rows, columns=["kind", "network", "method", "layer_name", "kept", "measured_ratio"]
    )
    table["memory_ratio"] = table["predicted_ratio"] = table["measured_ratio"]
    table["throughput_ratio"] = 1 / (1 + table["measured_ratio"])
    for name in ("measured_ratio", "throughput_ratio"):
        table[f"{name}_low"], table[f"{name}_high"] = 0.9 * table[name], 1.1 * table[name]
    return table


def _theory(generator: np.random.Generator) -> dict[str, pd.DataFrame]:
    steps, rate = [], []
    for repetition in range(4):
        for shape in ("shared", "token"):
            for place in ("layer 1", "layer 2"):
                key = {"repetition": repetition, "prompt": shape, "place": place}
                for tokens in (8, 16):
                    for eta in (0.1, 0.2):
                        row = {**key, "model": "soft", "tokens": tokens, "rate": eta}
                        steps.append({**row, "steps": tokens / eta, "reached": True})
        for n in (100, 400):
            for measure in ("function_error", "voronoi_loss"):
                for fit, power in (("exact", -0.5), ("constant", 0.0)):
                    row = {"repetition": repetition, "setting": "tanh", "n": n, "measure": measure}
                    rate.append({**row, "fit": fit, "value": (1 + 0.1 * repetition) * n**power})
    return {
        f"theory/{name}/{name}": pd.DataFrame(rows)
        for name, rows in (
            ("two_layer", _two_layer()),
            ("steps_to_zero_error", steps),
            ("experts_rate", rate),
        )
    }


def _two_layer(prompt: str = "shared") -> list[dict]:
    """Layer 1 errs less where it alone is global, layer 2 where it alone is; 4 repetitions.

    With a prompt a token the other way round, and nothing but floors and rates.
    """
    rows = []

    def add(question: str, ranges: tuple[float, float], **labels: object) -> None:
        setting = {"model": "softmax, linear", "prompt": prompt, "tokens": 16, "network": 0}
        setting |= {"discriminative": 1, "listening": 1.5, "question": question} | labels
        worse = 1 if ranges[0] > ranges[1] else 0 if ranges[1] > ranges[0] else None
        for repetition in range(4):
            for place in (0, 1):
                floor = 100 + repetition if place == worse else 2 * repetition
                errors = {f"n{n}": floor + 400 // n for n in (2, 8, 32, 128)} | {"n4096": floor}
                rows.append(
                    {
                        **setting, "range_1": ranges[0], "range_2": ranges[1], **errors,
                        "place": f"layer {place + 1}", "repetition": repetition,
                        "removed": 0.6 if place == worse else 0.9 + 0.01 * ranges[place],
                        "norm": 1.0 + place, "untouched": 0.4, "rate": 0.04,
                    }
                )  # fmt: skip

    for tokens in (8, 16, 32):
        for count in {1, 2, tokens // 4}:
            better = (2, tokens / 2) if prompt == "token" else (tokens / 2, 2)
            add("floor and rate", better, tokens=tokens, discriminative=count)
    if prompt == "token":
        return rows
    for first in (1.0, 8.0):
        for second in (1.0, 8.0):
            add("ranges", (first, second))
    for first, second in ((8, 2), (2, 8), (8, 8), (2, 2)):
        for model in ("softmax, linear", "hard, ReLU"):
            add("kinds", (first, second), model=model)
    for listening in (1.0, 2.0):
        add("listening", (8, 2), listening=listening)
    for count in (1, 2, 4):
        add("fraction", (8, 2), discriminative=count)
    for first, second in ((3, 3), (3, 7), (7, 3), (7, 7), (5, 3)):
        add("cnn", (first, second), model="cnn", network=1)
    return rows


def _views(generator: np.random.Generator) -> pd.DataFrame:
    rows = []
    for image in range(2):
        for row in range(4):
            for column in range(4):
                cell = {"image": image, "row": row, "column": column}
                for channel in range(3):
                    value = int(generator.integers(256))
                    rows.append({**cell, "kind": "pixels", "channel": channel, "value": value})
                value = generator.random()
                for kind in ("before", "after"):
                    rows.append(
                        {**cell, "network": VIT, "label": "star", "kind": kind, "value": value}
                    )
    rows.append({"network": VIT, "kind": "accuracy before", "value": 0.5})
    rows.append({"network": VIT, "kind": "accuracy after", "value": 0.75})
    return pd.DataFrame(rows)


def _pairs() -> pd.DataFrame:
    """Two networks: a prompt that is read early gains 2 and 4 points over the layer's probe."""
    rows = []
    for network, kind, gap in (("resnet56", "cnn", 0.02), ("vit_tiny", "vit", 0.04)):
        for task, near in (("gtsrb32", False), ("food25", True)):
            rows.append(
                {
                    **{"network": network, "kind": kind, "task": task, "near": near, "seed": 0},
                    **{"linear_probe": 0.5, "ap_end": 0.52, "layer_probe": 0.55},
                    **{"ap_read_early": 0.55 + gap, "all_layers_probe": 0.56},
                    **{"slope_end": 0.5, "slope_read_early": -0.5},
                }
            )
    return pd.DataFrame(rows)


def _maps() -> pd.DataFrame:
    rows = []
    for network in ("resnet56", "vit_tiny"):
        for read in (1, 2, 3):
            about = {"network": network, "task": "gtsrb32", "read": read}
            rows.append({**about, "method": "layer_probe", "layer": read, "test_accuracy": 0.4})
            for layer in range(1, read + 1):
                rows.append({**about, "method": "ap", "layer": layer, "test_accuracy": 0.5})
    return pd.DataFrame(rows)


def _compared() -> pd.DataFrame:
    """All methods: a prompt gains 8 to 12 points, norm tuning 4 to 6 fewer, all weights 90 more."""
    prompts = {"resnet32": 8, "resnet56": 10, "vit_tiny": 12}
    fewer = {"ap": 0.0, "norm_tuning": 0.5, "full": -9, "linear_probe": 1}
    return pd.DataFrame(
        {"network": network, "kind": "vit" if "vit" in network else "cnn", "task": "gtsrb32"}
        | {"method": method, "gain": gain * (1.0 - less), "ap_has_more": gain * less, "rank": 1.0}
        | {"rank_small": 1.0}
        | {"middle_has_more": gain * (less - 0.5)}
        | {"converged": True, "best_rate_inside": True, "parameters": 10}
        for network, gain in prompts.items()
        for method, less in fewer.items()
    )


def _pretrained() -> pd.DataFrame:
    """Curves of two architectures from three seeds each, whose shape is the task's alone."""
    return pd.DataFrame(
        {"network": name, "kind": NETWORKS[name].kind, "task": task, "layer": layer}
        | {"measured": (layer - 2 * number) ** 2 / 10}
        for name in MINIS
        for number, task in enumerate(MINI_TASKS)
        for layer in range(6)
    )


def _more_pictures() -> pd.DataFrame:
    """Prompts that have 4 points over the linear probe on few pictures and 10 on many, the probe of
    all layers 5; a point more or less in one of the networks."""
    rows = []
    for setting in (each for each in more_pictures.SETTINGS if each.network != "vit_tiny"):
        more = 0.1 if setting.train > more_pictures.TRAIN else 0.04
        more += 0.01 * (setting.network == "resnet32") * (setting.train > more_pictures.TRAIN)
        about = {key: getattr(setting, key) for key in more_pictures.SETTING}
        tests = {("linear_probe", -1): 0.4, ("all_layers_probe", -1): 0.45}
        tests |= {("ap", place): 0.4 + more for place in setting.places}
        rows += [
            about | {"method": name, "layer": layer, "lr": 0.01, "accuracy_flat": True}
            | {"val_accuracy": test, "test_accuracy": test}
            for (name, layer), test in tests.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _dialled() -> pd.DataFrame:
    """Prompts work best at the third of four places, and at the first when the shift is great."""
    curves = {0: (1, 2, 3, 2), 1: (2, 3, 3, 1), 2: (6, 4, 2, 0)}
    runs = [
        {"question": "dial" if step else "sweep", "dial": dial if step else None, "level": step}
        | {"network": network, "kind": "vit" if "vit" in network else "cnn", "seed": 0}
        | {"task": f"t+{dial}{step}" if step else "t", "method": method, "layer": layer}
        | {"read": 4, "places": 5, "lr": 1e-2, "val_loss": 1.0, "converged": True}
        | {"val_accuracy": accuracy / 10, "test_accuracy": accuracy / 10}
        for network in ("resnet56", "cifar_vit128")
        for dial in ("resolution", "pattern", "colour")
        for step, curve in curves.items()
        for method, places in (("ap", enumerate(curve)), ("layer_probe", [(4, 1)]))
        for layer, accuracy in places
    ]
    return pd.DataFrame(runs).drop_duplicates(["network", "task", "method", "layer"])


def _norms() -> pd.DataFrame:
    rows = []
    for network, kind in (("resnet56", "cnn"), ("vit_tiny", "vit")):
        about = {"network": network, "kind": kind, "task": "gtsrb32"}
        for depth in (0.0, 0.5, 1.0):
            for method in ("ap", "ap_channel", "beta", "gamma_beta"):
                rows.append({**about, "method": method, "depth": depth, "gain": 0.02})
        for method in ("all_beta", "all_norms"):
            rows.append({**about, "method": method, "depth": 0.0, "gain": 0.05})
    return pd.DataFrame(rows)


def _norm_costs() -> pd.DataFrame:
    """A prompt takes 1.2 times the time of γ and β and 100 times their parameters."""
    rows = []
    for network, kind in (("resnet56", "cnn"), ("vit_tiny", "vit")):
        about = {"network": network, "kind": kind}
        for at, kept in ((0, False), (2, False), (2, True)):
            for method, parameters in (
                *(("ap", 1000), ("ap_channel", 5), ("beta", 5), ("gamma_beta", 10)),
                *(("all_beta", 50), ("all_norms", 100)),
            ):
                if method.startswith("all") and at:
                    continue
                share = (1 - at / 4) * (1.2 if method == "ap" else 1.0)
                rows.append(
                    {**about, "method": method, "at": at, "depth": at / 4, "kept": kept}
                    | {"parameters_without_head": parameters}
                    | {"measured_ratio": share, "memory_ratio": share}
                )
    return pd.DataFrame(rows)
