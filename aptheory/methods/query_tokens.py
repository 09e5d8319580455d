"""VQT: learned queries that ask every block, and a head that reads what they are answered.

With Z the tokens that enter a block and P its T learned queries, the block's own tokens run as they
always do, and the queries run through the same block beside them, with the keys and values of the
tokens alone:

    softmax(Q' K^T / sqrt(d)) V,    Q' of P, K and V of Z.

No token sees a query, so every intermediate feature stays what it was and no gradient goes back
through the network. The head reads the answers of all blocks side by side with the network's own
final feature.

Tu et al., "Visual Query Tuning: Towards Effective Usage of Intermediate Representations for
Parameter and Memory Efficient Transfer Learning", CVPR 2023, arXiv 2212.03220. As we understand it,
the answers pass the block's residuals and MLP as tokens do, and all T of each block are read. What
we chose because we do not know it: one query a block unless told otherwise, a start uniform within
VPT's bound, and the choice of features (``select``) made once, before training, by what the
untrained queries are answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.methods.attention_steps import attended, projected
from aptheory.methods.base import Adapted, Method
from aptheory.methods.head import Summaries
from aptheory.methods.per_run import uniform
from aptheory.methods.prompt_tokens import prompt_bound
from aptheory.methods.registry import register
from aptheory.methods.samples import sample_axes
from aptheory.networks.attention import unplaced_attention_layers
from aptheory.networks.reading import Reading, check_share

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network


@dataclass(frozen=True)
class Asked:
    """A block that queries can ask: the place before it, and its modules by name."""

    layer: Layer
    block: str
    attention: str


class AskedAttention(nn.Module):
    """An attention of the network that also answers tokens of which it sees the queries alone.

    It keeps what its keys and values are made of: of timm's Attention the projections, of
    nn.MultiheadAttention, which projects out of sight, the tokens.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.asked = inner, False
        self.seen: list[Tensor] = []
        if not isinstance(inner, nn.MultiheadAttention):
            inner.qkv.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, projections: Tensor) -> None:
        if not self.asked:
            self.seen[:] = [projections]

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Meanwhile its input are queries to the tokens that it saw last."""
        self.asked = True
        try:
            yield
        finally:
            self.asked = False
            self.seen.clear()

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Any:
        together = isinstance(self.inner, nn.MultiheadAttention)
        if not self.asked:
            if together:
                self.seen[:] = [x]
            return self.inner(x, *rest, **named)
        (seen,) = self.seen
        if together:
            return self.inner(x, seen, seen, need_weights=False)
        q, _, _ = projected(self.inner, self.inner.qkv(x))
        _, k, v = projected(self.inner, seen)
        return attended(self.inner, x, q, k, v)


class AskedBlock(nn.Module):
    """A frozen block that gives the head the answers to its queries, and its tokens as ever."""

    def __init__(
        self,
        adapted: Adapted,
        block: nn.Module,
        attention: AskedAttention,
        shape: tuple[int, int],
        bound: float,
    ) -> None:
        super().__init__()
        self.block = block
        self.queries = adapted.per_run(shape, uniform(bound))
        # In a tuple: it is a part of the block, and registered there.
        self._attention = (attention,)
        self.summaries: Summaries = adapted.summaries

    def forward(self, z: Float[Tensor, "samples tokens width"], *rest: Any, **named: Any) -> Tensor:
        out = self.block(z, *rest, **named)
        queries = self.queries()
        queries = queries.repeat_interleave(z.shape[0] // queries.shape[0], dim=0)
        with self._attention[0].answering():
            answers = self.block(queries.to(z.dtype), *rest, **named)
        self.summaries.give(answers.flatten(1))
        return out


@register
@dataclass(frozen=True)
class VQT(Method):
    """Visual query tuning: ``tokens`` learned queries a block, whose answers the head reads.

    With ``read`` the queries ask the blocks before that place alone.

    Args:
        tokens: queries a block.
        select: the share of the head's features, answers and the network's own, that it keeps,
            chosen as `LayerProbe` chooses; None keeps them all.
    """

    tokens: int = 1
    select: float | None = None
    name: ClassVar[str] = "vqt"
    label: ClassVar[str] = "visual query tokens"
    short: ClassVar[str] = "VQT"
    size: ClassVar[str | None] = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.select)

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        if self.select is None:
            del settings["select"]
        return settings

    def reading(self, net: Network) -> Reading:
        return replace(super().reading(net), select=self.select)

    @classmethod
    def default(cls, net: Network) -> VQT:
        """One query a block, once it is known that the blocks can be asked."""
        asked_blocks(net, cls.name)
        return cls()

    def install(self, adapted: Adapted) -> int:
        net = adapted.net
        blocks = [
            each
            for each in asked_blocks(adapted.source, self.name)
            if each.layer.index < adapted.exit
        ]
        if not blocks:
            raise InputError(
                f"{self.name} asks the blocks before the place that is read, and none with "
                f"attention lies before place {adapted.exit} of {net.name}: read a later one."
            )
        for each in blocks:
            attention = AskedAttention(net.module.get_submodule(each.attention))
            adapted.replace(each.attention, attention)
            shape = (self.tokens, each.layer.channels)
            adapted.summaries.expect(
                self.tokens * each.layer.channels,
                piece=each.layer.index,
                share=self.tokens / each.layer.shape[0],
            )
            block = net.module.get_submodule(each.block)
            asked = AskedBlock(adapted, block, attention, shape, prompt_bound(net, each.layer))
            adapted.replace(each.block, asked)
        return blocks[0].layer.index

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        raise InputError(
            f"{self.name} cannot be folded: its head reads answers to queries that the network "
            "does not ask, and no weight of the network asks them."
        )


def asked_blocks(net: Network, method: str) -> list[Asked]:
    """The blocks whose attention can be asked, in order.

    Raises InputError, with the reason, for a network that has none, or one that cannot.
    """
    sites = unplaced_attention_layers(net)
    if not sites:
        raise InputError(
            f"{method} makes no sense on {net.name}: its queries ask attention over positions, and "
            "this network shows none; choose a vision transformer."
        )
    return [_asked(net, place, method) for place in sorted({site.layer for site in sites})]


def _asked(net: Network, place: int, method: str) -> Asked:
    from timm.layers import Attention

    cannot = f"{method} cannot be used on {net.name}: "
    layer = net.layers[place]
    sites = [site for site in unplaced_attention_layers(net) if site.layer == place]
    site, name = sites[0], sites[0].module
    if len(sites) > 1:
        raise InputError(
            f"{cannot}{len(sites)} attentions run behind place {place}, and each place's queries "
            "ask one; load it with granularity='block', if it is not so loaded."
        )
    if site.window is not None:
        raise InputError(
            f"{cannot}{name} attends within windows, and a query has to see the whole image."
        )
    attention = net.module.get_submodule(name)
    if type(attention) not in (Attention, nn.MultiheadAttention):
        raise InputError(
            f"{cannot}{name} is {type(attention).__name__}, and only timm's Attention and torch's "
            "MultiheadAttention can be asked."
        )
    around = [n for n in net.modules_between(place, place + 1) if name.startswith(f"{n}.")]
    if layer.layout != "tokens" or site.keys != layer.shape[0] or not around:
        raise InputError(
            f"{cannot}no one module around {name} takes the tokens that enter place {place}."
        )
    if sample_axes(net).get(around[0], 0) != 0:
        raise InputError(
            f"{cannot}{around[0]} has the samples on axis {sample_axes(net)[around[0]]}, and "
            "queries are put beside samples on the first."
        )
    return Asked(layer, around[0], name)
