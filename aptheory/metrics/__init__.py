"""Measures of features and of attention: plain functions on tensors, and streaming accumulators.

    from aptheory import metrics

    metrics.cka(x, y)                                      # two sets of features, (images, ...)
    metrics.effective_rank(x)
    metrics.attention_distance(p, metrics.grid_distances((14, 14), (16, 16)), prefix=1)

Tensors and NumPy arrays are taken alike, whole numbers too; half precision is raised to float32.
Nothing here knows of networks or files. Each accumulator has ``update`` (a batch), ``merge``
(another accumulator of its kind: shards of the data give the numbers of the whole) and ``compute``.
``MEASURES`` lists every measure with its properties; `measure` puts a function there.
"""

from importlib import import_module
from pkgutil import iter_modules

from aptheory.metrics.alignment import (
    mutual_neighbours,
    mutual_neighbours_of_grams,
    procrustes,
    procrustes_of_grams,
)
from aptheory.metrics.attention import (
    AttentionDistance,
    AttentionEntropy,
    PrefixShare,
    attention_distance,
    attention_entropy,
    grid_centres,
    grid_distances,
    prefix_share,
    window_distances,
)
from aptheory.metrics.centred_alignment import (
    CKA,
    ChanceWarning,
    chance_level,
    cka,
    cka_map,
    cka_of_grams,
    grams,
)
from aptheory.metrics.frequency import (
    RelativeLogAmplitude,
    diagonal_frequencies,
    relative_log_amplitude,
)
from aptheory.metrics.gram import linear_gram, rbf_gram
from aptheory.metrics.intervals import Estimate, RunningMean, bootstrap, group_jackknife
from aptheory.metrics.rank import (
    Rank,
    effective_rank,
    effective_rank_centred,
    numerical_rank,
    participation_ratio,
    singular_values,
    stable_rank,
    stable_rank_centred,
)
from aptheory.metrics.receptive import (
    ReceptiveField,
    middle,
    position_gradient,
    receptive_field,
    receptive_radius,
)
from aptheory.metrics.registry import MEASURES, Measure, measure
from aptheory.metrics.separability import (
    ClassDistanceRatio,
    Probe,
    class_distance_ratio,
    logme,
    probe_accuracy,
)
from aptheory.metrics.shift import ChannelMoments, moment_shift, shift_from, side_by_side
from aptheory.metrics.spatial_mean import Globality, globality
from aptheory.metrics.survival import TokenSurvival, replace_patch, token_survival

# A file that is dropped into this folder registers its measures too.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ClassDistanceRatio",
    "MEASURES",
    "Measure",
    "Probe",
    "ReceptiveField",
    "RelativeLogAmplitude",
    "class_distance_ratio",
    "diagonal_frequencies",
    "logme",
    "measure",
    "middle",
    "mutual_neighbours",
    "mutual_neighbours_of_grams",
    "position_gradient",
    "probe_accuracy",
    "procrustes",
    "procrustes_of_grams",
    "receptive_field",
    "receptive_radius",
    "replace_patch",
    "token_survival",
    "relative_log_amplitude",
    "CKA",
    "AttentionDistance",
    "AttentionEntropy",
    "ChanceWarning",
    "Estimate",
    "Globality",
    "PrefixShare",
    "Rank",
    "RunningMean",
    "TokenSurvival",
    "ChannelMoments",
    "attention_distance",
    "attention_entropy",
    "bootstrap",
    "chance_level",
    "cka",
    "cka_map",
    "cka_of_grams",
    "effective_rank",
    "effective_rank_centred",
    "globality",
    "grams",
    "grid_centres",
    "grid_distances",
    "group_jackknife",
    "linear_gram",
    "moment_shift",
    "numerical_rank",
    "participation_ratio",
    "prefix_share",
    "rbf_gram",
    "shift_from",
    "side_by_side",
    "singular_values",
    "stable_rank",
    "stable_rank_centred",
    "window_distances",
]
