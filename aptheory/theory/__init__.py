"""Why a place helps: benches in which the papers' theory can be run, and kernels of real networks.

- `equivalence`, `equivalence_table`: when a prompt is a shift of a normalisation or of a bias.
- `two_layer_vit`, `two_layer_cnn`, `trained_vit` on the samples of `patterns`: frozen networks in
  small; `prompt_learning`, `sample_complexity` and `comparison` say how many samples and steps a
  prompt needs at each place, `learning_curve` which error no sample removes.
- `experts`, `expert_rate`: attention with prompts as a mixture of experts (VAPT).
- `tangent`: what a small prompt can express at a layer of any network, without training it;
  `joint`: what it adds to a head that is trained beside it.
- `slopes`: rates and their intervals.

Nothing here knows of the rest of the package but its errors.
"""

__all__ = [
    "comparison",
    "equivalence",
    "equivalence_table",
    "expert_rate",
    "experts",
    "joint",
    "learning_curve",
    "patterns",
    "prompt_learning",
    "sample_complexity",
    "slopes",
    "tangent",
    "trained_vit",
    "two_layer_cnn",
    "two_layer_vit",
]
