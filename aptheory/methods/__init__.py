"""Every way to adapt a frozen network, on one interface: ``method.attach(net, classes=...)``.

``parse("ap:layer=5,shape=channel")`` and ``from_settings({"method": "ap", "layer": 5})`` make a
method from text or a table; ``applicable(net)`` lists one sensible instance of each that fits.
"""

from importlib import import_module
from pkgutil import iter_modules

from aptheory.methods.activation_prompt import (
    ActivationPrompt,
    RandomPerturbation,
    VisualPrompt,
)
from aptheory.methods.adapter import Adapter
from aptheory.methods.adaptive_prompts import VAPT
from aptheory.methods.base import Adapted, Method
from aptheory.methods.bias import BitFit
from aptheory.methods.folding import fold
from aptheory.methods.full import FullFineTuning, Partial
from aptheory.methods.gated_prompts import GateVPT
from aptheory.methods.key_value_prompts import E2VPT, prune
from aptheory.methods.low_rank import LoRA
from aptheory.methods.normalization import NormTuning
from aptheory.methods.probe import LayerProbe, LinearProbe
from aptheory.methods.prompt_tokens import VPT
from aptheory.methods.query_tokens import VQT
from aptheory.methods.registry import (
    METHODS,
    applicable,
    from_settings,
    parse,
    register,
    role_of,
)
from aptheory.methods.saving import attach_saved, save
from aptheory.methods.scale_shift import SSF

# A file that is dropped into this folder registers its methods too.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "E2VPT",
    "METHODS",
    "SSF",
    "VAPT",
    "VPT",
    "VQT",
    "ActivationPrompt",
    "Adapted",
    "Adapter",
    "BitFit",
    "FullFineTuning",
    "GateVPT",
    "LayerProbe",
    "LinearProbe",
    "LoRA",
    "Method",
    "NormTuning",
    "Partial",
    "RandomPerturbation",
    "VisualPrompt",
    "applicable",
    "attach_saved",
    "fold",
    "from_settings",
    "parse",
    "prune",
    "register",
    "role_of",
    "save",
]
