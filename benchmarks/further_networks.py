"""Small networks with one unusual part each: inputs, outputs, blocks, tokens, poolings, heads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 24
SQUARE = (3, 32, 32)


class CosineAttention(nn.Module):
    """Of unit queries and keys with a temperature, in einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = torch.einsum("bhid,bhjd->bhij", q, k) * self.temperature
        x = torch.einsum("bhij,bhjd->bhid", attention.softmax(-1), v)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """Scaled residual branches, dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = CosineAttention()
        self.mlp = nn.Sequential(
            *(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH))
        )
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.attn(self.norm1(x))
        return x + self.scale * self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A ViT in short; ``end`` makes of its normed tokens what it returns."""

    def __init__(
        self,
        end: Callable[[Any, Tensor], Any] | None = None,
        *,
        channels: int = 3,
        grid: tuple[int, int] = (4, 4),
        prefix: int = 1,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, WIDTH, 8, 8)
        self.extra = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.pos = nn.Parameter(torch.randn(1, grid[0] * grid[1], WIDTH))
        self.layers = nn.ModuleList(Block() for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = head or nn.Linear(WIDTH, 5)
        self.end = end

    def patches(self, x: Tensor) -> Tensor:
        return self.patch(x).flatten(2).mT + self.pos

    def features(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        x = torch.cat([self.extra.expand(x.shape[0], -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def forward_features(self, x: Tensor) -> Tensor:
        raise RuntimeError("not used")

    def forward(self, x: Tensor) -> Any:
        z = self.features(x)
        return self.head(z[:, 0]) if self.end is None else self.end(self, z)


class Answer(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Prototypes(nn.Module):
    """Cosines to prototypes, times a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer()
        self.prototypes, self.scale = (
            nn.Parameter(torch.randn(5, WIDTH)),
            nn.Parameter(torch.ones(())),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(self.body.features(x)[:, 0], dim=-1)
        return self.scale.exp() * z @ F.normalize(self.prototypes, dim=-1).t()


class AttentionPool(nn.Module):
    """A learned query asks the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(prefix=0)
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pool = nn.MultiheadAttention(WIDTH, 3, batch_first=True)
        self.fc = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.body.features(x)
        query = self.query.expand(z.size(0), -1, -1)
        return self.fc(self.pool(query, z, z, need_weights=False)[0].squeeze(1))


class FromBlocks(Transformer):
    """Its head reads what every block gives."""

    def __init__(self) -> None:
        super().__init__(prefix=0, head=nn.Linear(4 * WIDTH, 5))

    def forward(self, x: Tensor) -> Tensor:
        x, means = self.patches(x), []
        for layer in self.layers:
            x = layer(x)
            means.append(x.mean(1))
        return self.head(torch.cat(means, -1))


class FewerTokens(Transformer):
    """After two blocks the tokens of the largest norm go on."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[1](self.layers[0](self.patches(x)))
        kept = x.norm(dim=-1).topk(8, dim=1).indices
        x = torch.gather(x, 1, kept[..., None].expand(-1, -1, WIDTH))
        return self.head(self.layers[3](self.layers[2](x)).mean(1))


class NamedBlocks(nn.Module):
    """Blocks in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, 5)
        self.blocks = nn.ModuleDict({f"block{i}": Block() for i in range(4)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        for block in self.blocks.values():
            x = block(x)
        return self.head(x.mean(1))


class Packed(nn.Module):
    """Blocks that hand on a tensor and a number."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, packed: tuple[Tensor, int]) -> tuple[Tensor, int]:
            x, count = packed
            return self.block(x), count + 1

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, 5)
        self.blocks = nn.Sequential(*(self.Block() for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        x, count = self.blocks((self.stem(x).flatten(2).mT, 0))
        return self.head(x.mean(1)) / count


class Experts(nn.Module):
    """Each token goes through the expert that it likes best."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(WIDTH, 2)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
                for _ in range(2)
            )

        def forward(self, x: Tensor) -> Tensor:
            liking = self.router(x).softmax(-1)
            y = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                chosen = liking.argmax(-1) == number
                y[chosen] = expert(x[chosen])
            return x + y * liking.amax(-1, keepdim=True)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, 5)
        self.blocks = nn.Sequential(*(self.Block() for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).flatten(2).mT).mean(1))


class Recurrent(nn.Module):
    """Residual LSTMs over the patches; the last is read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, 5)
        self.blocks = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        for block in self.blocks:
            x = x + block(x)[0]
        return self.head(x[:, -1])


def convolutions(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    first = nn.Conv2d(inside, out, 3, stride, 1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU())


class Maps(nn.Module):
    """Convolutions; ``end`` makes of the last map what it returns."""

    def __init__(self, end: Callable[[Any, Tensor], Tensor], head: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(*(convolutions(8, 8) for _ in range(4)))
        self.head, self.power = head, nn.Parameter(torch.tensor(3.0))
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self, self.blocks(self.stem(x)))


def generalised_mean(net: Maps, z: Tensor) -> Tensor:
    z = F.avg_pool2d(z.clamp(min=1e-6).pow(net.power), (z.size(-2), z.size(-1)))
    return net.head(z.pow(1 / net.power).flatten(1))


def second_moments(net: Maps, z: Tensor) -> Tensor:
    z = z.flatten(2)
    return net.head(torch.bmm(z, z.mT).flatten(1) / z.shape[-1])


class Scaled(Maps):
    """Writes to the images that it is given."""

    def __init__(self) -> None:
        super().__init__(lambda net, z: net.head(z.mean((2, 3))), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5).div_(0.5))


class UNet(nn.Module):
    """Maps that wait until they are needed again."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = (
            convolutions(a, b) for a, b in ((3, 8), (8, 16), (16, 16))
        )
        self.up2, self.up1 = convolutions(32, 8), convolutions(16, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        coarse = self.down2(F.max_pool2d(fine, 2))
        x = F.interpolate(self.bottom(F.max_pool2d(coarse, 2)), scale_factor=2)
        x = F.interpolate(self.up2(torch.cat([x, coarse], 1)), scale_factor=2)
        return self.head(self.up1(torch.cat([x, fine], 1)).mean((2, 3)))


class LastChannels(nn.Module):
    """Channels last between its blocks, as many as rows and columns."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.across = nn.Conv2d(width, width, 3, padding=1, groups=width)
            self.norm = nn.LayerNorm(width)
            self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

        def forward(self, x: Tensor) -> Tensor:
            y = self.across(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return x + self.outer(F.gelu(self.inner(self.norm(y))))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 4, 2, 2)
        self.stage1 = nn.Sequential(self.Block(8), self.Block(8))
        self.stage2 = nn.Sequential(self.Block(4), self.Block(4))
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(self.stem(x).permute(0, 2, 3, 1))
        x = self.down(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.head(self.stage2(x).mean([1, 2]))


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5))


def weight_norm() -> nn.Module:
    module = Transformer()
    nn.utils.parametrizations.weight_norm(module.head)
    return module


FURTHER: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "wide": (lambda: Transformer(grid=(4, 8)), (3, 32, 64)),
    "tall": (lambda: Transformer(grid=(8, 4)), (3, 64, 32)),
    "four_channels": (lambda: Transformer(channels=4), (4, 32, 32)),
    "grey": (lambda: Transformer(channels=1), (1, 32, 32)),
    "ordered": (
        lambda: Transformer(lambda net, z: OrderedDict(features=z, logits=net.head(z[:, 0]))),
        SQUARE,
    ),
    "named": (lambda: Transformer(lambda net, z: Answer(net.head(z[:, 0]), z)), SQUARE),
    "with_none": (lambda: Transformer(lambda net, z: (net.head(z[:, 0]), None)), SQUARE),
    "both_ends": (
        lambda: Transformer(
            lambda net, z: net.head(torch.cat([z[:, 0], z[:, 1:].mean(1)], -1)),
            head=nn.Linear(2 * WIDTH, 5),
        ),
        SQUARE,
    ),
    "two_layer_head": (lambda: Transformer(head=two_layers()), SQUARE),
    "weight_norm": (weight_norm, SQUARE),
    "double": (lambda: Transformer().double(), SQUARE),
    "prototypes": (Prototypes, SQUARE),
    "attention_pool": (AttentionPool, SQUARE),
    "from_blocks": (FromBlocks, SQUARE),
    "fewer_tokens": (lambda: FewerTokens(prefix=0), SQUARE),
    "named_blocks": (NamedBlocks, SQUARE),
    "packed": (Packed, SQUARE),
    "experts": (Experts, SQUARE),
    "recurrent": (Recurrent, SQUARE),
    "votes": (
        lambda: Maps(lambda net, z: net.head(z).amax((2, 3)), nn.Conv2d(8, 5, 1)),
        SQUARE,
    ),
    "generalised_mean": (lambda: Maps(generalised_mean, nn.Linear(8, 5)), SQUARE),
    "second_moments": (lambda: Maps(second_moments, nn.Linear(64, 5)), SQUARE),
    "in_place": (Scaled, SQUARE),
    "unet": (UNet, SQUARE),
    "last_channels": (LastChannels, SQUARE),
}
