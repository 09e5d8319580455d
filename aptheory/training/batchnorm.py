"""Frozen BatchNorm folded into the convolution before it, while a loop trains what lies around.

In evaluation mode a BatchNorm is an affine map a channel, so the pair is one convolution with
w' = w * gamma / sqrt(var + eps) and b' = beta + (b - mean) * gamma / sqrt(var + eps): the same
function to rounding, with one pass over the map less forward and another backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted


class Fused:
    """The pairs folded in one adapted network; `undo` puts the modules back as they were."""

    def __init__(self, adapted: Adapted) -> None:
        self.adapted = adapted
        self._old: list[tuple[nn.Module, str, nn.Module]] = []
        self.pairs = 0

    @classmethod
    @torch.no_grad()
    def apply(cls, adapted: Adapted) -> Fused:
        """Fold every pair that nothing learned or hooked stands in; nothing if in doubt.

        Which convolution feeds which BatchNorm is seen by running the network once: the
        BatchNorm's input must be the very tensor that the convolution gave. The result is run
        again and taken back unless it agrees (a convolution's output may be read elsewhere too).
        """
        fused = cls(adapted)
        training = adapted.training
        adapted.eval()
        try:
            shape = adapted.net.layers[adapted.first_layer].shape
            generator = torch.Generator().manual_seed(0)
            z = torch.randn(adapted.runs, *shape, generator=generator).to(adapted.like.device)
            pairs, before = fused._look(z)
            if not pairs:
                return fused
            for conv, norm in pairs:
                fused._fold(conv, norm)
            after = adapted.features(z)
            size = before.abs().max().clamp_min(1e-6)
            if not torch.allclose(after / size, before / size, rtol=0, atol=1e-4):
                fused.undo()
        finally:
            adapted.train(training)
        return fused

    def _look(self, z: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
        outputs: dict[int, tuple[str, Tensor]] = {}
        pairs: list[tuple[str, str]] = []
        handles = []
        for name, module in self.adapted.net.module.named_modules():
            if not self._untouched(name, module):
                continue
            if type(module) is nn.Conv2d:
                # The output itself is held too, so that its id cannot be given to another tensor.
                def after(_: Any, __: Any, out: Tensor, name: str = name) -> None:
                    outputs[id(out)] = (name, out)

                handles.append(module.register_forward_hook(after))
            else:

                def before(_: Any, inputs: tuple[Tensor, ...], name: str = name) -> None:
                    if id(inputs[0]) in outputs:
                        pairs.append((outputs[id(inputs[0])][0], name))

                handles.append(module.register_forward_pre_hook(before))
        try:
            features = self.adapted.features(z)
        finally:
            for handle in handles:
                handle.remove()
        once = [p for p in pairs if sum(q[0] == p[0] or q[1] == p[1] for q in pairs) == 1]
        return once, features

    def _untouched(self, name: str, module: nn.Module) -> bool:
        if type(module) not in (nn.Conv2d, nn.BatchNorm2d) or module.training:
            return False
        if module._forward_hooks or module._forward_pre_hooks:
            return False
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
            return False
        try:  # a module that a method wrapped does not have its name in the network itself
            original = self.adapted._source[0].module.get_submodule(name)
        except AttributeError:
            return False
        frozen = not any(p.requires_grad for p in module.parameters())
        return frozen and type(original) is type(module)

    def _fold(self, conv: str, norm: str) -> None:
        root: Any = self.adapted.net.module
        new = fuse_conv_bn_eval(root.get_submodule(conv), root.get_submodule(norm))
        new.requires_grad_(False)
        replacements: tuple[tuple[str, nn.Module], ...] = ((conv, new), (norm, nn.Identity()))
        for name, module in replacements:
            parent_name, _, child = name.rpartition(".")
            parent = root.get_submodule(parent_name)
            self._old.append((parent, child, getattr(parent, child)))
            setattr(parent, child, module)
        self.pairs += 1

    def undo(self) -> None:
        """Put back every module that was replaced."""
        while self._old:
            parent, child, module = self._old.pop()
            setattr(parent, child, module)
        self.pairs = 0
