"""CKA: are two sets of features the same up to a rotation and a scale?

Centred kernel alignment (Kornblith et al. 2019) of features X and Y of the same n images, with Gram
matrices K and L: HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)).

``estimator="unbiased"`` uses the unbiased HSIC of Song et al. 2012, the form that may be summed
over minibatches (Nguyen et al. 2021): independent features score 0 on average, whatever n.
``estimator="biased"`` is the textbook form with HKH. It is far above 0 for independent features
once they are wider than n: with 256 images of noise two layers of a ResNet-18 score 0.31 biased and
0.02 unbiased. `chance_level` gives that floor exactly, and a warning gives it to you.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Level, Positive
from aptheory.errors import InputError
from aptheory.metrics.gram import centre, linear_gram, rbf_gram, u_centre
from aptheory.metrics.inputs import Estimator, Groups, Kernel, arrays
from aptheory.metrics.intervals import Estimate, group_jackknife
from aptheory.metrics.registry import FREE, measure

FEWEST = 4
"""Images of a batch that has an unbiased HSIC: it divides by n(n-3)."""


class ChanceWarning(UserWarning):
    """Too few images for the width of the features: the biased CKA of nothing is far from 0."""


@measure(
    "pair",
    -1,
    1,
    unchanged_by=FREE,
    greater_means="more similar",
    source="Kornblith et al. 2019; Nguyen et al. 2021",
    symmetric=True,
)
@arrays
def cka(
    x: Float[Tensor, "images *x"],
    y: Float[Tensor, "same_images *y"],
    *,
    estimator: Estimator = "unbiased",
    kernel: Kernel = "linear",
    fraction: Positive = 0.4,
) -> float:
    """CKA of two sets of features of the same images; 1 for equal up to rotation and scale.

    Args:
        x, y: features, one row an image; further dimensions are flattened an image at a time.
        estimator: "unbiased" (in [-1, 1], at least 4 images) or "biased" (in [0, 1], at least 2).
        kernel: "linear" or "rbf".
        fraction: bandwidth of the RBF kernel as a fraction of the median distance.

    Raises:
        InputError: different numbers of images, too few of them, constant or non-finite features.

    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> round(cka(x, -3 * x + 5), 6)
    1.0
    """
    pair = cka_map([x, y], estimator=estimator, kernel=kernel, fraction=fraction)
    return float(pair[0, 1])


@measure(
    "pair",
    -1,
    1,
    unchanged_by=FREE,
    greater_means="more similar",
    source="Kornblith et al. 2019",
    symmetric=True,
    name="cka_rbf",
)
@arrays
def _rbf(x: Tensor, y: Tensor) -> float:
    return cka(x, y, kernel="rbf")


@arrays
def cka_map(
    features: Sequence[Tensor],
    *,
    estimator: Estimator = "unbiased",
    kernel: Kernel = "linear",
    fraction: Positive = 0.4,
) -> Float[Tensor, "layers layers"]:
    """CKA of every pair of ``features``, each (images, ...) of the same images.

    One Gram matrix a layer and one matrix product for all pairs; the diagonal goes through the
    same formula as the rest. Features of two networks give the map within and between them.
    """
    return cka_of_grams(grams(features, kernel=kernel, fraction=fraction), estimator=estimator)


@arrays
def grams(
    features: Sequence[Tensor], *, kernel: Kernel = "linear", fraction: Positive = 0.4
) -> Float[Tensor, "layers images images"]:
    """The Gram matrices of several layers' features of the same images, float64."""
    if kernel not in ("linear", "rbf"):
        raise InputError(f'kernel is {kernel!r}; it is "linear" or "rbf".')
    for index, each in enumerate(features):
        if not each.ndim:
            raise InputError(
                f"features[{index}] is a single number; expected an array (images, ...)."
            )
    counts = {len(each) for each in features}
    if len(counts) != 1:
        raise InputError(
            f"Features of {sorted(counts)} images: CKA compares features of the same images, so "
            "all must have the same number of rows."
        )
    if kernel == "linear":
        return torch.stack([linear_gram(each) for each in features])
    return torch.stack([rbf_gram(each, fraction=fraction) for each in features])


@arrays
def cka_of_grams(
    grams: Float[Tensor, "layers images images"],
    *,
    estimator: Estimator = "unbiased",
    undefined: Literal["raise", "nan"] = "raise",
) -> Float[Tensor, "layers layers"]:
    """CKA of every pair of Gram matrices (not centred, or centred: it is the same).

    ``undefined``: see `normalise`.
    """
    # Products of two Gram matrices are fourth powers of features: a huge or tiny layer is brought
    # to size 1 first, by a power of two, which changes nothing else.
    largest = grams.abs().amax((-2, -1), keepdim=True)
    usual = (largest > 0) & largest.isfinite()
    exponent = torch.frexp(largest).exponent.to(torch.float64).clamp_min(-1000)
    grams = grams * torch.exp2(-exponent.where(usual, 0.0))
    if estimator == "unbiased":
        vectors = u_centre(grams).flatten(1)
    elif estimator == "biased":
        if grams.shape[-1] < 2:
            raise InputError("The biased CKA needs at least 2 images.")
        centred = centre(grams)
        vectors = centred.flatten(1)
        result = normalise(vectors @ vectors.T, undefined=undefined)
        _warn_of_chance(centred)
        return result
    else:
        raise InputError(f'estimator is {estimator!r}; it is "unbiased" or "biased".')
    return normalise(vectors @ vectors.T, undefined=undefined)


def normalise(
    hsic: Float[Tensor, "layers layers"], *, undefined: Literal["raise", "nan"] = "raise"
) -> Float[Tensor, "layers layers"]:
    """HSIC of all pairs -> CKA of all pairs; layers without variance have none.

    ``undefined="raise"`` refuses such layers with an InputError that lists them; "nan" marks their
    rows and columns, for a caller that reports them in its own way.
    """
    own = hsic.diagonal()
    defined = (own > 0) & own.isfinite()
    if undefined == "raise" and not bool(defined.all()):
        which = [index for index, good in enumerate(defined.tolist()) if not good]
        raise InputError(
            f"Features {which} are constant over the images or not finite, so their CKA is "
            "undefined: leave those layers out, or look at why they do not vary."
        )
    root = torch.where(defined, own, float("nan")).sqrt()
    return hsic / root[:, None] / root[None, :]


@arrays
def chance_level(x: Float[Tensor, "images images"], y: Float[Tensor, "images images"]) -> float:
    """Biased CKA of Gram matrices ``x`` and ``y`` if the images of one were shuffled.

    The exact mean over all permutations of one side's images, tr(HKH) tr(HLH) / (n - 1) over the
    same norms; compare a biased CKA with this and not with 0.
    """
    a, b = centre(x), centre(y)
    return float(a.trace() * b.trace() / (len(a) - 1) / (a.norm() * b.norm()))


def _warn_of_chance(centred: Tensor) -> None:
    traces = centred.diagonal(dim1=1, dim2=2).sum(-1)
    norms = centred.flatten(1).norm(dim=1)
    images = centred.shape[-1]
    share = (traces / norms).nan_to_num()  # constant features have none
    share = share / (images - 1) ** 0.5  # a pair's chance level is the product of the two
    level = float(share.topk(min(2, len(share))).values.prod())
    if len(share) > 1 and level > 0.1:
        warnings.warn(
            f"{images} images are few for features this wide: the biased CKA of unrelated features "
            f'with these spectra is up to {level:.2f}, not 0. Use estimator="unbiased".',
            ChanceWarning,
            stacklevel=4,
        )


class CKA:
    """Streaming CKA of all pairs of ``layers`` sets of features, unbiased (Nguyen et al. 2021).

    Each batch: ``add`` the features of each layer in turn (only an n × n Gram matrix is kept of
    them), then ``end_batch``; or ``update`` with all of them. The HSIC terms are summed over
    batches and divided once, so the batch size moves the estimate only within its own error.
    A batch weighs by its number of pairs, n(n-3); one with fewer than 4 images has no unbiased
    HSIC, is left out, and counted in ``left_out``.

    Batches are dealt into ``groups`` groups, whose sums give a jackknife interval: memory is
    groups × layers² numbers, whatever the number of images. For two networks, use the layers of
    both as one list and read the block of the map that pairs them.
    """

    @arrays
    def __init__(
        self,
        layers: Groups,
        *,
        kernel: Kernel = "linear",
        fraction: Positive = 0.4,
        groups: Groups = 16,
    ) -> None:
        if layers < 1 or groups < 1:
            raise InputError(f"{layers} layers and {groups} groups: both must be at least 1.")
        self.layers, self.kernel, self.fraction, self.groups = layers, kernel, fraction, groups
        self.hsic = torch.zeros(groups, layers, layers, dtype=torch.float64)
        self.count = 0
        self.batches = 0
        self.left_out = 0
        self._used: set[int] = set()
        self._pending: list[Tensor] = []

    @arrays
    def add(self, features: Float[Tensor, "images *dims"]) -> None:
        """Take the next layer's features of the present batch."""
        if len(self._pending) == self.layers:
            raise InputError(f"All {self.layers} layers of this batch are here: call end_batch.")
        if self._pending and len(features) != len(self._pending[0]):
            raise InputError(
                f"A layer with {len(features)} images in a batch of {len(self._pending[0])}: all "
                "layers of a batch see the same images."
            )
        # A batch too small to be counted is still walked through, for its layers to be checked.
        if self.kernel == "linear" or len(features) < FEWEST:
            self._pending.append(linear_gram(features))
        else:
            self._pending.append(rbf_gram(features, fraction=self.fraction))

    def end_batch(self) -> None:
        """Add the batch's HSIC of all pairs of layers, and drop its Gram matrices."""
        if len(self._pending) != self.layers:
            raise InputError(f"{len(self._pending)} of {self.layers} layers came for this batch.")
        batch = torch.stack(self._pending)
        self._pending = []
        if batch.shape[-1] < FEWEST:
            self.left_out += batch.shape[-1]
            return
        vectors = u_centre(batch).flatten(1)
        group = self.batches % self.groups
        if self.hsic.device != vectors.device:
            with torch.inference_mode(False):
                self.hsic = self.hsic.to(vectors.device)
        self.hsic[group] += vectors @ vectors.T
        self._used.add(group)
        self.count += batch.shape[-1]
        self.batches += 1

    @arrays
    def update(self, features: Sequence[Tensor]) -> None:
        """One batch at once: the features of every layer, each (images, ...)."""
        for each in features:
            self.add(each)
        self.end_batch()

    @arrays
    def merge(self, other: "CKA") -> None:
        """Take over what ``other`` has seen; both must watch the same layers in the same way."""
        mine = (self.layers, self.kernel, self.fraction, self.groups)
        if mine != (other.layers, other.kernel, other.fraction, other.groups):
            raise InputError("Two CKA accumulators with different settings cannot be merged.")
        # Moved on by the batches that came before, as in one pass: the interval is the whole's too.
        self.hsic = self.hsic + other.hsic.to(self.hsic.device).roll(self.batches, 0)
        self._used |= {(group + self.batches) % self.groups for group in other._used}
        self.count += other.count
        self.batches += other.batches
        self.left_out += other.left_out

    @arrays
    def compute(
        self, *, level: Level = 0.95, undefined: Literal["raise", "nan"] = "raise"
    ) -> Estimate:
        """The map (layers, layers) with its interval; raises InputError if nothing was counted."""
        if self.count == 0:
            raise InputError(
                f"no batch of {FEWEST} images or more came ({self.left_out} images in smaller "
                f"ones), and the unbiased CKA needs {FEWEST} a batch; give more at once."
            )
        hsic = self.hsic.cpu()
        total = hsic.sum(0)
        value = normalise(total, undefined=undefined)
        without = [normalise(total - hsic[group], undefined="nan") for group in sorted(self._used)]
        found = group_jackknife(
            value, without if len(without) > 1 else [], images=self.count, level=level
        )
        return Estimate(value, found.low.clamp_min(-1), found.high.clamp_max(1), self.count)
