"""Small networks with our own pretrained weights, registered with timm: the embedded default.

``aptheory_vit_mini`` and ``aptheory_resnet_mini`` are the two that the demo runs on; the others
differ in depth, width and kind, to ask whether a finding is one network's or all networks';
``names`` lists those whose weights are packaged.
"""

from aptheory.networks.zoo.models import weights_file

NAMES = (
    "aptheory_vit_mini",
    "aptheory_resnet_mini",
    "aptheory_vit_gap_mini",
    "aptheory_resnet_deep_mini",
)

__all__ = ["NAMES", "names", "weights_file"]


def names() -> tuple[str, ...]:
    """The networks of the zoo whose weights are packaged, the two defaults first."""
    return tuple(name for name in NAMES if weights_file(name).is_file())
