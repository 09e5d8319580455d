"""BitFit: learn every bias of the network, its normalisation layers' included, and a head.

Ben Zaken et al., "BitFit", ACL 2022, arXiv 2106.10199. A convolutional network with BatchNorm has
no other biases than beta, so there BitFit is the shift half of NORM-TUNE.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method, caller_of
from aptheory.methods.own_weights import OwnWeights

if TYPE_CHECKING:
    from aptheory.network import Network


@dataclass(frozen=True)
class BitFit(Method):
    """Learn all bias vectors, starting from the pretrained ones."""

    name: ClassVar[str] = "bitfit"

    @classmethod
    def default(cls, net: Network) -> BitFit:
        cls().biases(net)
        return cls()

    def biases(self, net: Network) -> dict[str, tuple[str, ...]]:
        """Module name -> the bias parameters in it that learn, for all that runs before the head.

        A bias is a parameter called "bias" or "..._bias" (the query and value biases of some
        attention modules); tables of position biases are not. A module that holds both biases and
        other modules takes the biases of these with it, under dotted names; so does one that
        reads the weights of its parts without calling them.
        """
        wanted = [
            parameter.rpartition(".")
            for parameter in net.parameters_between(0, len(net.layers) - 1)
            if parameter.split(".")[-1] == "bias" or parameter.endswith("_bias")
        ]
        owners = sorted({caller_of(net, module) for module, _, _ in wanted} - {""})
        found: dict[str, list[str]] = defaultdict(list)
        for module, _, name in wanted:
            # A parameter of the model itself has no module that could be replaced.
            outer = next((o for o in owners if f"{module}.".startswith(f"{o}.")), None)
            if outer:
                found[outer].append(f"{module}.{name}"[len(outer) + 1 :])
        if not found:
            raise InputError(f"bitfit makes no sense on {net.name}: it has no biases")
        return {module: tuple(names) for module, names in found.items()}

    def install(self, adapted: Adapted) -> int:
        biases = self.biases(adapted.net)
        for name, parameters in biases.items():
            inner = adapted.net.module.get_submodule(name)
            adapted.replace(name, OwnWeights(adapted, inner, parameters))
        return min(adapted.source.layer_of(name) for name in biases)

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        from aptheory.methods.folding import copy_own_weights

        copy_own_weights(adapted, module)
