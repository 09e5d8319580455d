"""Every measure with what it claims: its range, what leaves it unchanged, which way it points.

The tests loop over this table and hold each measure to its claims.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from aptheory.metrics import (
    alignment,
    attention,
    frequency,
    rank,
    receptive,
    separability,
    shift,
    survival,
)
from aptheory.metrics.centred_alignment import cka
from aptheory.metrics.spatial_mean import globality

INFINITE = float("inf")


@dataclass(frozen=True)
class Measure:
    """A measure and its properties.

    ``takes`` says what the function is given: "features" (images, ...); "pair", two of those;
    "reference", features and those of other images;
    "labelled", features and labels; "tokens" (images, positions, channels); "maps" (images,
    channels, height, width); "attention", probabilities; "gradient", one with respect to images;
    "versions", the activation of an image and of two changed ones (images, 3, ...).
    ``unchanged_by`` names operations on the features (or on one of a pair) that change nothing:
    "rotation" and "translation" of feature space, "scaling", "channel order", "image order" (of
    both of a pair and of the labels alike). ``greater_means`` says how to read it.
    ``streams``: there is an accumulator whose memory does not grow with the images.
    """

    name: str
    function: Callable[..., Any]
    takes: Literal[
        "features",
        "pair",
        "reference",
        "labelled",
        "tokens",
        "maps",
        "attention",
        "gradient",
        "versions",
    ]
    low: float
    high: float  # infinite where only the data bound it
    unchanged_by: frozenset[str]
    greater_means: str
    source: str
    symmetric: bool = False
    streams: bool = True
    unit: str = ""


_TURN = frozenset({"rotation", "scaling", "channel order", "image order"})
_FREE = _TURN | {"translation"}
_ROY = "Roy & Vetterli 2007"


def _attention_share(probabilities: Any) -> Any:
    return attention.prefix_share(probabilities, prefix=1)


def _biased_procrustes(x: Any, y: Any) -> float:
    return alignment.procrustes(x, y, estimator="biased")


def _rbf(x: Any, y: Any) -> float:
    return cka(x, y, kernel="rbf")


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "attention_distance",
            attention.attention_distance,
            "attention",
            0,
            INFINITE,
            frozenset({"image order"}),
            "more global",
            "Raghu et al. 2021",
            unit="pixels",
        ),
        Measure(
            "attention_entropy",
            attention.attention_entropy,
            "attention",
            0,
            INFINITE,
            frozenset({"image order"}),
            "more spread out",
            "Shannon entropy",
            unit="nats",
        ),
        Measure(
            "prefix_share",
            _attention_share,
            "attention",
            0,
            1,
            frozenset({"image order"}),
            "more attention on class and register tokens",
            "a sum of probabilities",
        ),
        Measure(
            "receptive_radius",
            receptive.receptive_radius,
            "gradient",
            0,
            INFINITE,
            frozenset({"scaling"}),
            "more global",
            "after Luo et al. 2016",
            unit="pixels",
        ),
        Measure(
            "cka",
            cka,
            "pair",
            -1,
            1,
            _FREE,
            "more similar",
            "Kornblith et al. 2019; Nguyen et al. 2021",
            symmetric=True,
        ),
        Measure(
            "cka_rbf",
            _rbf,
            "pair",
            -1,
            1,
            _FREE,
            "more similar",
            "Kornblith et al. 2019",
            symmetric=True,
        ),
        Measure(
            "procrustes",
            alignment.procrustes,
            "pair",
            -1,
            1,
            _FREE - {"image order"},  # the random halves follow the order
            "more similar",
            "Schönemann 1966, on held-out halves",
            symmetric=True,
            streams=False,
        ),
        Measure(
            "procrustes_biased",
            _biased_procrustes,
            "pair",
            0,
            1,
            _FREE,
            "more similar",
            "Schönemann 1966",
            symmetric=True,
            streams=False,
        ),
        Measure(
            "mutual_neighbours",
            alignment.mutual_neighbours,
            "pair",
            0,
            1,
            _FREE,
            "more similar",
            "Huh et al. 2024",
            symmetric=True,
            streams=False,
        ),
        Measure(
            "effective_rank",
            rank.effective_rank,
            "features",
            0,
            INFINITE,
            _TURN,
            "more directions in use",
            _ROY,
        ),
        Measure(
            "effective_rank_centred",
            rank.effective_rank_centred,
            "features",
            0,
            INFINITE,
            _FREE,
            "more directions in use",
            _ROY,
        ),
        Measure(
            "stable_rank",
            rank.stable_rank,
            "features",
            0,
            INFINITE,
            _TURN,
            "more directions in use",
            "Rudelson & Vershynin 2007",
        ),
        Measure(
            "stable_rank_centred",
            rank.stable_rank_centred,
            "features",
            0,
            INFINITE,
            _FREE,
            "more directions in use",
            "Rudelson & Vershynin 2007",
        ),
        Measure(
            "participation_ratio",
            rank.participation_ratio,
            "features",
            0,
            INFINITE,
            _FREE,
            "more directions in use",
            "second moment of the covariance spectrum",
        ),
        Measure(
            "numerical_rank",
            rank.numerical_rank,
            "features",
            0,
            INFINITE,
            _TURN,
            "more directions in use",
            "singular values above 1e-6 of the largest",
        ),
        Measure(
            "relative_log_amplitude",
            frequency.relative_log_amplitude,
            "maps",
            -INFINITE,
            INFINITE,
            frozenset({"scaling", "channel order", "image order"}),
            "more fine detail",
            "Park & Kim 2022",
            unit="log amplitude",
        ),
        Measure(
            "globality",
            globality,
            "tokens",
            0,
            1,
            _FREE,
            "more global",
            "analysis of variance",
        ),
        Measure(
            "token_survival",
            survival.token_survival,
            "versions",
            0,
            INFINITE,
            _FREE,
            "more of a single token is left",
            "ours, by perturbation",
        ),
        Measure(
            "moment_shift",
            shift.moment_shift,
            "reference",
            0,
            INFINITE,
            frozenset({"image order"}),
            "more unlike the pretraining",
            "Dowson & Landau 1982, channel by channel",
            unit="standard deviations",
        ),
        Measure(
            "probe_accuracy",
            separability.probe_accuracy,
            "labelled",
            0,
            1,
            frozenset({"scaling", "translation", "channel order"}),
            "more separable",
            "Alain & Bengio 2017",
            streams=False,
        ),
        Measure(
            "class_distance_ratio",
            separability.class_distance_ratio,
            "labelled",
            -INFINITE,
            INFINITE,
            _FREE,
            "more separable",
            "analysis of variance",
        ),
        Measure(
            "logme",
            separability.logme,
            "labelled",
            -INFINITE,
            INFINITE,
            _TURN,
            "more separable",
            "You et al. 2021",
            streams=False,
        ),
    )
}
