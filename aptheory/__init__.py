"""Where in a frozen vision network does a learned perturbation do its work, and why?

The public names are listed in ``_HOME``; each is imported when it is first used, so that
``import aptheory`` stays quick.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load": "network",
    "Network": "network",
    "Layer": "network",
    "InputError": "errors",
    "task": "tasks",
    "Task": "tasks",
    "ActivationPrompt": "methods",
    "VisualPrompt": "methods",
    "NormTuning": "methods",
    "BitFit": "methods",
    "LinearProbe": "methods",
    "LayerProbe": "methods",
    "Partial": "methods",
    "FullFineTuning": "methods",
    "VPT": "methods",
    "VAPT": "methods",
    "GateVPT": "methods",
    "E2VPT": "methods",
    "LoRA": "methods",
    "Adapter": "methods",
    "SSF": "methods",
    "attach_saved": "methods",
    "profile": "profile",
    "Recipe": "training",
    "fit": "training",
    "fit_many": "training",
    "Study": "sweep",
    "sweep": "sweep",
    "relate": "relate",
    "recommend_layer": "recommend",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from aptheory.errors import InputError as InputError
    from aptheory.network import Layer as Layer
    from aptheory.network import Network as Network
    from aptheory.network import load as load


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aptheory' has no attribute {name!r}")
    value = getattr(import_module(f"aptheory.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Importing ``aptheory.sweep`` must not hide the function `sweep` behind its module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name and hasattr(value, name):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
