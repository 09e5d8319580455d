"""Weights into a module: under whatever prefix they were saved, and told what does not fit.

What training scripts do to a state dict is undone (prefixes, another resolution of the position
embedding, another classifier, which nothing here uses); what is left over must fit to the last key.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from aptheory.errors import InputError, reason_of
from aptheory.networks.checkpoint import Checkpoint, read_checkpoint

SHOWN, NEAREST = 4, 3
MOST_CLASSIFIERS = 3
CLASSIFIER_STD = 0.02
State = dict[str, Tensor]

PREFERRED = ("teacher", "ema", "base_encoder", "encoder_q", "online")
"""Of two equal networks in one file, the one that the method's authors evaluate."""
HEADS = frozenset({"head", "heads", "head_dist", "fc", "classifier", "linear", "last_linear"})
BESIDE = frozenset(
    {"decoder", "predictor", "projector", "projection", "prototypes", "queue", "momentum", "aux"}
    | {"loss", "criterion", "metric", "mask"}
    | HEADS
)
"""Words in the name of a part that stands beside a backbone: the heads of a pretraining task."""
REMADE = (
    *("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask"),
    *("position_ids", "n_averaged", "freqs", "pos_embed_h", "pos_embed_w"),
)
"""Buffers that a module makes by itself."""


@dataclass(frozen=True)
class Fitted:
    """What was done to fit the weights, a sentence each; ``unset`` names the classifier's
    parameters that the file does not have: random numbers stand for them."""

    notes: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()


MOST_COPIES = 16
"""Of a network's weights in one file: averages, an optimiser's moments, and room beside them."""


def _check_size(module: nn.Module, path: Path, name: str) -> None:
    """Refuse a file that is far too large to be the network's, before it takes that memory."""
    own = 4 * sum(value.numel() for value in module.state_dict().values())
    size = path.stat().st_size if os.path.isfile(path) else 0
    if size > MOST_COPIES * own + 2**28:
        raise InputError(
            f"{path} has {size / 1e6:,.0f} MB and the weights of {name} {own / 1e6:,.0f}: it is no "
            f"file of its weights; give the file of {name}."
        )


def load_weights(module: nn.Module, path: str | Path, name: str) -> Fitted:
    """Fill ``module`` with the weights in a file.

    Raises:
        InputError: keys that are missing, unexpected, of another shape or not finite, by name; in
            one sentence where the file is plainly of another model.
    """
    _check_size(module, Path(path), name)
    checkpoint = read_checkpoint(path)
    broken = [
        key
        for key, value in checkpoint.tensors.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        raise InputError(
            f"{path} holds values that are not finite, in {_listed(broken)}: save the weights again"
        )
    if checkpoint.is_googles:
        return _load_googles(module, checkpoint, name)
    own = module.state_dict()
    stripped, notes = _without_prefix(checkpoint.tensors, own)
    state, more = _as_timm_would(module, stripped, own)
    state = _resized(state, own)
    notes += more + _resampled(stripped, state)
    unset = _unset_classifiers(module, state, own)
    needed = [key for key in own if key not in unset]
    missing = [key for key in needed if key not in state and key not in _remade(module)]
    reshaped = [key for key in needed if key in state and state[key].shape != own[key].shape]
    odd = [
        key
        for key in needed
        if key in state and own[key].is_floating_point() and not state[key].is_floating_point()
    ]
    if odd:
        kind = str(state[odd[0]].dtype).removeprefix("torch.")
        raise InputError(
            f"{path} holds {_listed(odd)} as {kind}, where {name} has real numbers: what they "
            "stand for is not known, save the weights as float32"
        )
    surplus = [key for key in state if key not in own]
    unexpected = [key for key in surplus if not _stands_beside(key, module, own)]
    if missing or unexpected or reshaped:
        raise InputError(_refusal(checkpoint, name, own, state, missing, unexpected, reshaped))
    if surplus:
        notes.append(f"left in the file: {_listed(sorted({_top(key) for key in surplus}))}")
    fitting = {key: value for key, value in state.items() if key in own and key not in unset}
    module.load_state_dict(fitting, strict=False)
    return _filled(module, unset, [*checkpoint.notes, *notes])


def check_unset(fitted: Fitted, used: Iterable[str], path: object, name: str) -> None:
    """Refuse a file without weights that the features need.

    Args:
        used: the parameters that are used before the classifier.

    Raises:
        InputError: one of them is not in the file.
    """
    needed = sorted(set(used) & set(fitted.unset))
    if needed:
        raise InputError(
            f"{path} does not fit {name}: missing {_listed(needed)}, or of another shape; "
            "build the model with the arguments with which it was trained"
        )


def _filled(module: nn.Module, unset: set[str], notes: list[str]) -> Fitted:
    """Random numbers for what the file lacks: the same, and so the same digest, at each loading."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in module.named_parameters(remove_duplicate=False):
            if key in unset:
                value.copy_(torch.randn(value.shape, generator=generator) * CLASSIFIER_STD)
    if unset:
        parts = sorted({key.rpartition(".")[0] for key in unset})
        notes.append(
            f"the file has no classifier that fits ({_listed(parts)}): random numbers stand for "
            "it, and the logits mean nothing"
        )
    return Fitted(tuple(notes), tuple(sorted(unset)))


# ---------------------------------------------------------------------------------- prefixes


def _without_prefix(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[State, list[str]]:
    """The tensors under the names of the module: of all pairs (prefix in the file, prefix in the
    module), the one under which most keys of the same shape are found."""
    if own.keys() <= state.keys():
        return dict(state), []
    endings: dict[str, list[str]] = {}
    for key in own:
        for prefix, ending in _cuts(key):
            endings.setdefault(ending, []).append(prefix)
    counts: Counter[tuple[str, str]] = Counter({("", ""): 0})
    for key, value in state.items():
        for prefix, ending in _cuts(key):
            for inner in endings.get(ending, ()):
                same = value.shape == own[inner + ending].shape
                counts[prefix, inner] += 2 + 2 * same
    most = max(counts.values())
    if most < 2 * len(own):  # under no prefix do half of the names fit
        return dict(state), []
    best = [pair for pair, count in counts.items() if count == most]
    prefix, inner = min(best, key=_rank)
    inside = {key: value for key, value in state.items() if key.startswith(prefix)}
    renamed = {inner + key.removeprefix(prefix): value for key, value in inside.items()}
    notes = []
    if prefix or inner:
        rest = sorted({_top(key) for key in state if key not in inside})
        also = sorted(other for other, _ in best if other != prefix)
        what = f"taken under {prefix or 'no prefix'}" + (f", as {inner}" if inner else "")
        notes.append(
            f"weights {what}"
            + (f", not under {_listed(also)}, which fits as well" if also else "")
            + (f"; left in the file: {_listed(rest)}" if rest and not also else "")
        )
    return renamed, notes


def _cuts(key: str) -> list[tuple[str, str]]:
    """(prefix with its dot, rest) for each dot of a key that leaves two words or the whole key."""
    parts = key.split(".")
    cuts = [("", key)]
    for number in range(1, len(parts) - 1):
        cuts.append((".".join(parts[:number]) + ".", ".".join(parts[number:])))
    return cuts


def _rank(pair: tuple[str, str]) -> tuple[int, int, str]:
    prefix, inner = pair
    words = prefix.replace(".", " ").split()
    preferred = min(
        (number for number, word in enumerate(PREFERRED) if word in words), default=len(PREFERRED)
    )
    return (preferred, len(prefix) + len(inner), prefix)


def _top(key: str) -> str:
    return key.partition(".")[0]


# ---------------------------------------------------------------------------------- shapes


def _as_timm_would(
    module: nn.Module, state: State, own: Mapping[str, Tensor]
) -> tuple[State, list[str]]:
    """timm's own conversion of published files to its names, where that fits more keys."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    before = _fitting(state, own)
    if convert is None or not getattr(module, "pretrained_cfg", None) or before == len(own):
        return state, []
    try:
        converted = convert(dict(state), module)
    except Exception:  # it expects a file of its own kind, and fails in any way on others
        return state, []
    if _fitting(converted, own) <= before:
        return state, []
    renamed = converted.keys() != state.keys()
    return converted, ["converted as timm does"] if renamed else []


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    return sum(key in state and state[key].shape == own[key].shape for key in own)


def _resized(state: State, own: Mapping[str, Tensor]) -> State:
    """Single numbers in the module's shape; position embeddings of another square grid resampled
    by timm's function."""
    made = dict(state)
    for key, value in state.items():
        shape = own[key].shape if key in own else value.shape
        if value.shape == shape:
            continue
        if value.numel() == shape.numel() == 1:  # one number is one number, whatever its shape
            made[key] = value.reshape(shape)
        elif "pos" in key and value.ndim == len(shape) == 3 and value.shape[2] == shape[2]:
            prefix = _prefix_tokens(value.shape[1], shape[1])
            if prefix is not None:
                from timm.layers import resample_abs_pos_embed

                side = math.isqrt(shape[1] - prefix)
                made[key] = resample_abs_pos_embed(
                    value, [side, side], num_prefix_tokens=prefix, verbose=False
                )
    return made


def _prefix_tokens(*lengths: int) -> int | None:
    """The number of leading tokens that leaves a square grid in each, if there is one."""
    for prefix in (1, 0, *range(2, 17)):
        if all(n > prefix and math.isqrt(n - prefix) ** 2 == n - prefix for n in lengths):
            return prefix
    return None


def _resampled(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} resampled from {tuple(before[key].shape)} to {tuple(value.shape)}"
        for key, value in after.items()
        if key in before and before[key].numel() != value.numel()
    ]


# ------------------------------------------------------------------------- what may differ


def _remade(module: nn.Module) -> set[str]:
    """Buffers that the module has made by itself; BatchNorm's statistics are none of them."""
    return {
        key
        for key, _ in module.named_buffers()
        if not key.endswith(("running_mean", "running_var"))
    }


def _unset_classifiers(module: nn.Module, state: State, own: Mapping[str, Tensor]) -> set[str]:
    """Parameters of linear maps that the file lacks, or has in another shape; none where they are
    so many that they cannot be classifiers. Whether features need them, the split tells later."""
    parts: dict[str, set[str]] = {}
    for name, part in module.named_modules():
        linear = isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
        )
        keys = {f"{name}.{key}" for key, _ in part.named_parameters()} & own.keys()
        lacking = [key for key in keys if key not in state or state[key].shape != own[key].shape]
        whole = all(key not in state for key in keys) or _top_word(name) in HEADS
        if linear and name and lacking and whole:
            parts[name] = keys
    if len(parts) > MOST_CLASSIFIERS:
        return set()
    return set().union(*parts.values()) if parts else set()


def _top_word(name: str) -> str:
    return next((word for word in name.split(".") if word in HEADS), name)


def _stands_beside(key: str, module: nn.Module, own: Mapping[str, Tensor]) -> bool:
    """Whether a key that the module lacks is none of its features' business: a buffer, or a part
    of another task beside the backbone, or the classifier of a network built without one."""
    if key.endswith(REMADE) or key in dict(module.named_buffers()):
        return True
    top = _top(key)
    if not any(_top(other) == top for other in own):
        words = set(top.lower().replace("-", "_").split("_")) | {top}
        return bool(words & BESIDE)
    # The classifier's place in the module: an Identity, or a linear map, which has no parts.
    above = [key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)]
    parts = dict(module.named_modules())
    return any(
        name.rpartition(".")[2] in HEADS and name in parts and not list(parts[name].children())
        for name in above
    )


# -------------------------------------------------------------------------------- messages


def _refusal(
    checkpoint: Checkpoint,
    name: str,
    own: Mapping[str, Tensor],
    state: State,
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
) -> str:
    shapes = [f"{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}" for k in reshaped]
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected), ("", shapes)):
        if names:
            parts.append(f"{what} {_listed(names)}".strip())
    differences = ", ".join(parts)
    fitting = _fitting(state, own)
    if fitting < len(own) / 2:
        near = [
            f"{key} is nearest to {match[0]}"
            for key in missing[:NEAREST]
            if (match := difflib.get_close_matches(key, list(state), n=1))
        ]
        nearest = f"; {', '.join(near)}" if near else ""
        return (
            f"{checkpoint.path} holds the weights of another model: only {fitting} of the "
            f"{len(own)} tensors of {name} fit ({differences}{nearest}); give the file of {name}"
        )
    return (
        f"{checkpoint.path} does not fit {name}: {differences}; "
        "build the model with the arguments with which it was trained"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# ----------------------------------------------------------------------------- Google's npz


def _load_googles(module: nn.Module, checkpoint: Checkpoint, name: str) -> Fitted:
    """Google's arrays, through timm's own reader of them."""
    read = getattr(module, "load_pretrained", None)
    if read is None:
        raise InputError(
            f"{checkpoint.path} holds Google's arrays, which timm can read into its ViT, Mixer and "
            f"BiT networks, and {name} is none of them: give the file of {name}"
        )
    with torch.no_grad():
        before = {key: value.clone() for key, value in module.named_parameters()}
        for value in module.parameters():
            value.fill_(float("nan"))
        try:
            read(str(checkpoint.path))
        except Exception as error:  # it fails in any way on arrays of another network
            for key, value in module.named_parameters():
                value.copy_(before[key])
            reason = reason_of(error)
            raise InputError(
                f"{checkpoint.path} holds Google's arrays of another network than {name} "
                f"({reason}); give the file of {name}"
            ) from error
    unset = {key for key, value in module.named_parameters() if value.isnan().any()}
    return _filled(module, unset, ["converted from Google's arrays as timm does"])
