"""Why a place helps: benches in which the papers' theory can be run, and kernels of real networks.

- `equivalence`: when a prompt is a shift of a normalisation or of a bias.
- `two_layer_vit`, `two_layer_cnn`, `trained_vit` on the samples of `patterns`: frozen networks in
  small; `prompt_learning`, `sample_complexity` and `comparison` say how many samples and steps a
  prompt needs at each place, `learning_curve` which error no sample removes.
- `experts`, `expert_rate`: attention with prompts as a mixture of experts (VAPT).
- `tangent`: what a small prompt can express at a layer of any network, without training it;
  `joint`: what it adds to a head that is trained beside it.
- `norm_shares`: what of a trained prompt the next norm could do.
- `slopes`: rates and their intervals.

Nothing here knows of the rest of the package but its errors and the check of arguments. A bench is
imported when it is asked for.
"""

from importlib import import_module
from types import ModuleType

__all__ = [
    "comparison",
    "equivalence",
    "expert_rate",
    "experts",
    "joint",
    "learning_curve",
    "norm_shares",
    "patterns",
    "prompt_learning",
    "sample_complexity",
    "slopes",
    "tangent",
    "trained_vit",
    "two_layer_cnn",
    "two_layer_vit",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
