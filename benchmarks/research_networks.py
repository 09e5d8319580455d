"""Networks as research code writes them, small: what is tried beside those of the libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 24


class SelfAttention(nn.Module):
    """As DINO's own code has it: its answer and its weights."""

    def __init__(self, width: int = WIDTH, heads: int = 2) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(B, N, C)), attention


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    """A transformer block that may return its attention instead."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = SelfAttention(width), mlp(width)

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor:
        y, attention = self.attn(self.norm1(x))
        if return_attention:
            return attention
        x = x + y
        return x + self.mlp(self.norm2(x))


class DinoViT(nn.Module):
    """DINO's ViT: positions are resampled where the image has another size; no classifier."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.blocks = nn.ModuleList([Block() for _ in range(4)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes) if classes else nn.Identity()

    def interpolate_pos_encoding(self, x: Tensor, w: int, h: int) -> Tensor:
        if x.shape[1] == self.pos_embed.shape[1] and w == h:
            return self.pos_embed
        side = int(math.sqrt(self.pos_embed.shape[1] - 1))
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(w // 8, h // 8), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)

    def prepare_tokens(self, x: Tensor) -> Tensor:
        B, _, w, h = x.shape
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(B, -1, -1), x), dim=1)
        return x + self.interpolate_pos_encoding(x, w, h)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prepare_tokens(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class MaeViT(timm.models.vision_transformer.VisionTransformer):
    """MAE's fine-tuning ViT: timm's class with its own end."""

    def __init__(self) -> None:
        size = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": 4, "num_heads": 2}
        super().__init__(**size, num_classes=5)
        self.fc_norm = nn.LayerNorm(WIDTH)
        del self.norm

    def forward_features(self, x: Tensor) -> Tensor:
        B = x.shape[0]
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(B, -1, -1), x), dim=1)
        x = self.pos_drop(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x[:, 1:, :].mean(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer() -> nn.Module:
    """One nn.Sequential of everything."""

    def stage() -> nn.Module:
        across = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 5, groups=WIDTH, padding="same"),
            *(nn.GELU(), nn.BatchNorm2d(WIDTH)),
        )
        mix = (nn.Conv2d(WIDTH, WIDTH, 1), nn.GELU(), nn.BatchNorm2d(WIDTH))
        return nn.Sequential(Residual(across), *mix)

    stem = (nn.Conv2d(3, WIDTH, 4, 4), nn.GELU(), nn.BatchNorm2d(WIDTH))
    end = (nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(WIDTH, 5))
    return nn.Sequential(*stem, *(stage() for _ in range(4)), *end)


class Mixer(nn.Module):
    """MLP-Mixer: its blocks transpose."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.tokens, self.channels = mlp(16), mlp(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.norm2(x))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 8, 8)
        self.blocks = nn.Sequential(*(self.Block() for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class BasicBlock(nn.Module):
    """CIFAR's, whose shortcut is a slice and padding."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.stride, self.extra = stride, out - inside

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """The ResNet of CIFAR's papers: pooled by a size that is read off."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8, 1), BasicBlock(8, 8, 1))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16, 1))
        self.layer3 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1))
        self.linear = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class Dense(nn.Module):
    """DenseNet: blocks lengthen what they get."""

    class Layer(nn.Module):
        def __init__(self, inside: int) -> None:
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(inside), nn.Conv2d(inside, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.Sequential(*(self.Layer(8 + 8 * i) for i in range(5)))
        self.head = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.layers(self.stem(x))).mean([2, 3]))


class Auxiliary(nn.Module):
    """A second head that is asked in training only, and one that is not used at all."""

    def __init__(self) -> None:
        super().__init__()
        self.body = CifarResNet()
        self.auxiliary, self.momentum = nn.Linear(16, 5), CifarResNet()

    def forward(self, x: Tensor) -> Any:
        body = self.body
        middle = body.layer2(body.layer1(F.relu(body.bn1(body.conv1(x)))))
        logits = body.linear(body.layer3(middle).mean((2, 3)))
        if self.training:
            return logits, self.auxiliary(middle.mean((2, 3)))
        return logits


class Shared(nn.Module):
    """One block that runs six times, as in a universal transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, WIDTH, 8, 8), Block()
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for _ in range(6):
            x = self.block(x)
        return self.head(self.norm(x).mean(1))


class Encoder(nn.Module):
    """torch's own transformer, as it is by default: (tokens, images, width)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.first = not settings.get("batch_first", False)
        self.stem = nn.Conv2d(3, WIDTH, 8, 8)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 48, **settings)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2)
        x = x.permute(2, 0, 1) if self.first else x.transpose(1, 2)
        return self.head(self.encoder(x).mean(0 if self.first else 1))


class Windows(nn.Module):
    """Attention in windows by hand, on maps with the channels last."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attn = nn.LayerNorm(WIDTH), SelfAttention()

        def forward(self, x: Tensor) -> Tensor:
            B, H, W, C = x.shape
            y = self.norm(x).view(B, H // 4, 4, W // 4, 4, C).permute(0, 1, 3, 2, 4, 5)
            y, _ = self.attn(y.reshape(-1, 16, C))
            y = y.view(B, H // 4, W // 4, 4, 4, C).permute(0, 1, 3, 2, 4, 5)
            return x + y.reshape(B, H, W, C)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 4, 4)
        self.blocks = nn.Sequential(*(self.Block() for _ in range(4)))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


class SideBySide(nn.Module):
    """Two streams that meet at the end: no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Sequential(*self.stream()) for _ in range(2))
        self.head = nn.Linear(16, 5)

    @staticmethod
    def stream() -> list[nn.Module]:
        return [nn.Conv2d(3, 8, 3), *(BasicBlock(8, 8, 1) for _ in range(4))]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))


class TwoHeads(nn.Module):
    """Two answers; which one is meant has to be said."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.box = CifarResNet(), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.body(x)
        return logits, self.box(logits)


class Preprocessing(nn.Module):
    """Normalises inside, with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.body = conv_mixer()

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.body((x - self.mean) / 0.25), dim=1)


RESEARCH: dict[str, Callable[[], nn.Module]] = {
    "dino": DinoViT,
    "dino_classifier": lambda: DinoViT(5),
    "mae": MaeViT,
    "conv_mixer": conv_mixer,
    "mixer": Mixer,
    "cifar_resnet": CifarResNet,
    "dense": Dense,
    "auxiliary": Auxiliary,
    "shared": Shared,
    "encoder": Encoder,
    "encoder_first": lambda: Encoder(batch_first=True),
    "encoder_prenorm": lambda: Encoder(batch_first=True, norm_first=True),
    "windows": Windows,
    "side_by_side": SideBySide,
    "two_heads": TwoHeads,
    "preprocessing": Preprocessing,
}
