"""Write what was learned into ordinary weights, where that is exact: no cost at inference.

The result is the network's own timm architecture with a new classifier, so its state loads with
timm alone. Every rule below rests on an identity (theory/equivalence.py proves the main ones) and
is confirmed on random images before the module is handed out; where no rule holds, the reason is
given instead.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.arguments import checked_arguments
from aptheory.errors import InputError
from aptheory.methods.own_weights import OwnWeights

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted
    from aptheory.networks.network import Layer, Network

TOLERANCE = 1e-4  # relative to the largest logit; float32 through a deep network


@checked_arguments
def fold(adapted: Adapted) -> nn.Module:
    """The plain module equal to ``adapted``; InputError, with the reason, where there is none."""
    if adapted.runs != 1:
        raise InputError(f"{adapted.runs} runs are held here: choose one with select(k) first")
    here, like = adapted.head.shift, adapted.like
    if (here.device, here.dtype) != (like.device, like.dtype):  # it moved since it was attached
        twin = copy.deepcopy(adapted).to(like.device, like.dtype)
        return fold(twin).to(here.device, here.dtype)
    source = adapted.source
    if (number := len(adapted.reading.layers)) > 1:
        raise InputError(
            f"{adapted.method.name} cannot be folded: its head reads {number} places, and the "
            f"classifier of {source.name} its last features alone."
        )
    if source.until(adapted.exit) is not source:
        raise InputError(
            f"{adapted.method.name} read at place {adapted.exit} cannot be folded: the classifier "
            f"of {source.name} reads its last features, not those of an earlier place."
        )
    module = copy.deepcopy(source.module).eval()
    weight, bias = adapted.head.folded()
    # The rules below may move the classifier's bias, so the classifier is set last.
    shift = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
    adapted._feature_shift = shift
    try:
        adapted.method.fold_into(adapted, module)
        bias = bias + weight @ shift
    finally:
        del adapted._feature_shift
    _set_classifier(module, weight, bias, adapted.classes, source.name)
    _confirm(adapted, module)
    return module.requires_grad_(False)


def _set_classifier(
    module: nn.Module, weight: Tensor, bias: Tensor, classes: int, name: str
) -> None:
    if not hasattr(module, "reset_classifier"):
        raise InputError(f"{name} cannot be folded: it is no timm model with a classifier to set")
    model: Any = module
    model.reset_classifier(classes)
    classifier = model.get_classifier()
    if not isinstance(classifier, (nn.Linear, nn.Conv2d)) or classifier.bias is None:
        raise InputError(
            f"{name} cannot be folded: its classifier is {type(classifier).__name__}, not one "
            "linear layer with a bias"
        )
    with torch.no_grad():
        classifier.to(weight.device)
        classifier.weight.copy_(weight.reshape(classifier.weight.shape))
        classifier.bias.copy_(bias)


@torch.no_grad()
def _confirm(adapted: Adapted, module: nn.Module) -> None:
    """Two random images through both, in evaluation mode; a wrong fold is never handed out."""
    was_training = adapted.training
    adapted.eval()
    module.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *adapted.net.input_shape, generator=generator).to(adapted.like)
    expected, got = adapted(x), module(x)
    adapted.train(was_training)
    size = expected.abs().max().clamp_min(1e-6)
    error = float((expected - got).abs().max() / size)
    if not error <= TOLERANCE:
        raise InputError(
            f"{adapted.method.name} on {adapted.net.name} cannot be folded exactly: the folded "
            f"network differs by {error:.1e} of the largest logit"
        )


def copy_own_weights(adapted: Adapted, module: nn.Module) -> None:
    """Each run's own parameters (NormTuning, BitFit) go where the pretrained ones were."""
    with torch.no_grad():
        for name, wrapper in adapted.net.module.named_modules():
            if isinstance(wrapper, OwnWeights):
                for parameter in wrapper.keys:
                    target = module.get_submodule(name).get_parameter(parameter)
                    target.copy_(wrapper.value(parameter, run=0))


# ---- activation prompts


def fold_prompts(adapted: Adapted, module: nn.Module) -> None:
    """Fold the prompt of every place it acts at, last place first."""
    for place in reversed(adapted.places):
        for edit in adapted.edits_at(place):
            _fold_prompt(adapted, module, adapted.net.layers[place], edit)


def _fold_prompt(adapted: Adapted, module: nn.Module, layer: Layer, edit: Any) -> None:
    net = adapted.source
    delta = edit.value()[0].detach().expand(layer.shape)
    if not bool(delta.any()):
        return
    if _into_head(adapted, layer, delta):
        return
    if _into_positions(net, module, layer, delta):
        return
    shared = _per_channel(layer, delta)
    if shared is not None:
        if _into_previous_bias(net, module, layer, shared):
            return
        if _into_bottleneck(net, module, layer, shared):
            return
        raise InputError(
            f"{adapted.method.name} at place {layer.index} ({layer.name}) cannot be folded: delta "
            "is the same at every position, but neither the layer before it ends in a bias that "
            "could take it, nor does the next begin with a linear map without zero padding"
        )
    raise InputError(
        f"{adapted.method.name} at place {layer.index} ({layer.name}) cannot be folded: delta "
        "differs from position to position, which no bias there can express"
    )


def _per_channel(layer: Layer, delta: Tensor) -> Float[Tensor, " channels"] | None:
    """The one vector that every position adds, or None when positions differ."""
    rows = delta.movedim(0, -1) if layer.layout == "map" else delta
    rows = rows.reshape(-1, rows.shape[-1])
    return rows[0] if bool((rows == rows[:1]).all()) else None


LINEAR_POOLING = (
    nn.Identity,
    nn.Dropout,
    nn.Flatten,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
)


def _into_head(adapted: Adapted, layer: Layer, delta: Tensor) -> bool:
    """At the classifier's input, or before average pooling alone: a shift of the features."""
    net = adapted.source
    last = len(net.layers) - 1
    if layer.index < last - 1:
        return False
    if layer.index == last - 1:
        from timm.layers import SelectAdaptivePool2d

        for name in net.modules_between(layer.index, last):
            inner = net.module.get_submodule(name)
            if isinstance(inner, SelectAdaptivePool2d):
                if inner.pool_type not in ("avg", "fast", "fastavg", ""):
                    return False
            elif not isinstance(inner, LINEAR_POOLING) and list(inner.children()) == []:
                return False
        zero = torch.zeros_like(delta)
        moved = net.run(torch.stack([delta, zero]), start=layer.index, stop=last)
        delta = moved[0] - moved[1]
    shift: Any = adapted._feature_shift
    shift.add_(delta.double())
    return True


def _into_positions(net: Network, module: nn.Module, layer: Layer, delta: Tensor) -> bool:
    """Before a ViT's first block any delta adds to the position embedding.

    A delta on the image does so too: the patch embedding is linear and its patches do not
    overlap, so delta becomes one vector a patch, the same for every image.
    """
    position: Any = getattr(module, "pos_embed", None)
    first = min(net.block_layers)
    if not isinstance(position, nn.Parameter) or layer.index > first or layer.layout == "vector":
        return False
    if layer.index < first:
        zero = torch.zeros_like(delta)
        moved = net.run(torch.stack([delta, zero]), start=layer.index, stop=first)
        delta = moved[0] - moved[1]
    rows = position.shape[1]
    if delta.dim() != 2 or position.shape[-1] != delta.shape[-1] or rows > delta.shape[0]:
        return False
    kept = delta.shape[0] - rows  # prefix tokens without a position embedding
    if bool(delta[:kept].any()):
        return False
    before = position.detach().clone()
    with torch.no_grad():
        position.add_(delta[kept:])
    if _moved_by(net, module, first, delta):
        return True
    with torch.no_grad():
        position.copy_(before)
    return False


def _into_previous_bias(net: Network, module: nn.Module, layer: Layer, shared: Tensor) -> bool:
    """The layer before ends by adding a bias: in its norm, linear layer or convolution.

    z = skip + f(...) + b, so z + delta has b + delta; a LayerScale gamma after it asks for
    b + delta / gamma.
    """
    from timm.layers import LayerScale, LayerScale2d

    if layer.index == 0:
        return False
    gain: Tensor | None = None
    # Names come in the order of definition, mostly that of execution: the last few are tried.
    for name in list(reversed(net.modules_between(layer.index - 1, layer.index)))[:10]:
        inner: Any = module.get_submodule(name)
        if isinstance(inner, (LayerScale, LayerScale2d)):
            gain = inner.gamma.detach()
        bias = getattr(inner, "bias", None)
        if not isinstance(bias, nn.Parameter) or bias.shape != shared.shape:
            continue
        if gain is not None and not bool((gain != 0).all()):
            continue
        before = bias.detach().clone()
        with torch.no_grad():
            bias.add_(shared if gain is None else shared / gain)
        if _moved_by(net, module, layer.index, _everywhere(layer, shared)):
            return True
        with torch.no_grad():
            bias.copy_(before)
    return False


def _everywhere(layer: Layer, shared: Tensor) -> Tensor:
    return shared[:, None, None] if layer.layout == "map" else shared


@torch.no_grad()
def _moved_by(net: Network, module: nn.Module, place: int, delta: Tensor) -> bool:
    """Does ``module`` give at this place what the frozen network gives, plus delta?"""
    changed = net.share()
    for name, parameter in module.named_parameters():
        parent, _, child = name.rpartition(".")
        setattr(changed.module.get_submodule(parent), child, parameter)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *net.input_shape, generator=generator).to(delta)
    before, after = net.run(x, stop=place), changed.run(x, stop=place)
    error = (after - before - delta).abs().max() / (before.abs().max() + delta.abs().max())
    return float(error) <= 1e-5


def _into_bottleneck(net: Network, module: nn.Module, layer: Layer, shared: Tensor) -> bool:
    """A residual block that begins with a 1x1 convolution: delta goes into its BatchNorms.

    Main path: bn1(conv1(x + delta)) has beta' = beta + gamma (W delta) / sqrt(var + eps).
    Skip path: an identity hands delta to the sum before the last activation, where bn3's beta
    takes it; a convolution there is treated like conv1.
    """
    from timm.models.resnet import Bottleneck

    found = dict(module.named_modules()).get(layer.name)
    block: Any = found
    if not isinstance(found, Bottleneck) or block.se is not None:
        return False
    norms = (block.bn1, block.bn3)
    if not all(isinstance(norm, nn.BatchNorm2d) and norm.affine for norm in norms):
        return False
    if block.conv1.kernel_size != (1, 1) or block.conv1.groups != 1:
        return False
    skip: tuple[nn.Conv2d, nn.BatchNorm2d] | None = None
    if block.downsample is not None:
        parts: list[Any] = [p for p in block.downsample if not isinstance(p, nn.Identity)]
        if parts and isinstance(parts[0], nn.AvgPool2d) and not parts[0].count_include_pad:
            parts = parts[1:]  # the mean of a constant is the constant
        if (
            len(parts) != 2
            or not isinstance(parts[0], nn.Conv2d)
            or parts[0].kernel_size != (1, 1)
            or not isinstance(parts[1], nn.BatchNorm2d)
        ):
            return False
        skip = (parts[0], parts[1])
    with torch.no_grad():
        _shift_norm(block.bn1, _through(block.conv1, shared))
        if skip is None:
            block.bn3.bias.add_(shared)
        else:
            _shift_norm(skip[1], _through(skip[0], shared))
    return True


def _through(conv: nn.Conv2d, shared: Tensor) -> Tensor:
    """W delta for a 1x1 convolution, without its bias."""
    return (conv.weight[:, :, 0, 0].double() @ shared.double()).to(shared.dtype)


def _shift_norm(norm: nn.BatchNorm2d, shift: Tensor) -> None:
    assert norm.running_var is not None
    norm.bias.add_(norm.weight * shift / (norm.running_var + norm.eps).sqrt())
