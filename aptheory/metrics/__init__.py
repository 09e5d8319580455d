"""Measures of features and of attention: plain functions on tensors, and streaming accumulators.

    from aptheory import metrics

    metrics.cka(x, y)                                      # two sets of features, (images, ...)
    metrics.effective_rank(x)
    metrics.attention_distance(p, metrics.grid_distances((14, 14), (16, 16)), prefix=1)

Nothing here knows of networks or files. Each accumulator has ``update`` (a batch), ``merge``
(another accumulator of its kind: shards of the data give the numbers of the whole) and ``compute``.
``MEASURES`` lists every measure with its properties.
"""

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
from aptheory.metrics.cka import CKA, ChanceWarning, chance_level, cka, cka_map, cka_of_grams, grams
from aptheory.metrics.globality import Globality, globality
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

__all__ = [
    "CKA",
    "AttentionDistance",
    "AttentionEntropy",
    "ChanceWarning",
    "Estimate",
    "Globality",
    "PrefixShare",
    "Rank",
    "RunningMean",
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
    "numerical_rank",
    "participation_ratio",
    "prefix_share",
    "rbf_gram",
    "singular_values",
    "stable_rank",
    "stable_rank_centred",
    "window_distances",
]
