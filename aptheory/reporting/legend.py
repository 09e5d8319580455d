"""What methods and measures are called, with their colours and lines, wherever they are shown.

Colours are Okabe and Ito's, told apart by every common kind of colour vision; line styles repeat
the distinction for print.
"""

COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "yellow": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "grey": "#7F7F7F",
}

METHODS = {
    "ap": ("activation prompt", "blue", "-", "o"),
    "layer_probe": ("probe of this layer", "green", "--", "s"),
    "random_perturbation": ("random perturbation, same norm", "yellow", ":", "^"),
    "linear_probe": ("linear probe", "grey", "-.", ""),
}
"""Of a sweep over layers: label, colour, line and marker."""

SHORT = {
    "ap": "prompt",
    "layer_probe": "probe here",
    "random_perturbation": "random",
    "linear_probe": "linear probe",
}
"""The same where there is little room."""

NAMES = {
    "ap": "AP",
    "vp": "VP",
    "vpt": "VPT",
    "vpt_deep": "VPT-deep",
    "gate_vpt": "gated VPT",
    "e2vpt": "E²VPT",
    "vapt": "VAPT",
    "lora": "LoRA",
    "ssf": "SSF",
    "bitfit": "BitFit",
    "full": "full fine-tuning",
}
"""Methods as the field writes them; every other name is read as words."""

MEASURES = {
    "attention_distance": "attention distance (pixels)",
    "effective_rank": "effective rank",
    "cka": "linear CKA",
    "receptive_field": "effective receptive field (pixels)",
    "globality": "globality (share of variance)",
    "test_accuracy": "test accuracy (%)",
    "val_accuracy": "validation accuracy (%)",
}


def method_name(method: str) -> str:
    """A method's name as a reader writes it: ``vpt (10 tokens)`` becomes ``VPT (10 tokens)``."""
    head, _, rest = str(method).partition(" ")
    said = NAMES.get(head, head.replace("_", " "))
    return f"{said} {rest}" if rest else said


def measure_name(measure: str) -> str:
    """A measure's name with its unit, for an axis."""
    return MEASURES.get(measure, str(measure).replace("_", " "))
