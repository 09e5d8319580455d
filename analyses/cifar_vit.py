"""A small vision transformer with post-norm blocks, which timm does not have.

x = norm1(x + attention(x)), then x = norm2(x + mlp(x)) with ReLU, as `torch.nn.TransformerEncoder`
does by default; 4×4 patches, a class token, learned positions, a final norm on the class token.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention with one joint projection to queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Tensor:
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class PostNormBlock(nn.Module):
    """Normalisation after each residual sum."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class PatchEmbed(nn.Module):
    """Square patches of the image as tokens, row by row."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class PostNormViT(nn.Module):
    """A post-norm vision transformer for 32×32 images."""

    def __init__(self, width: int = 128, depth: int = 6, heads: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 65, width))
        self.blocks = nn.Sequential(*(PostNormBlock(width, heads, 2 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        x = self.blocks(x)
        return self.head(self.norm(x[:, 0]))


def post_norm_vit() -> PostNormViT:
    """The six blocks of width 128 that the stored weights fit."""
    return PostNormViT()
