"""Small networks around nn.MultiheadAttention, as people write them."""

import torch
from torch import Tensor, nn

import aptheory as ap


class Encoder(nn.Module):
    """A class token and torch's own encoder on 8x8 patches of 32x32 images."""

    def __init__(self, *, batch_first: bool = True, depth: int = 2) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patch = nn.Conv2d(3, 24, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 24) / 2)
        block = nn.TransformerEncoderLayer(24, 3, 48, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 4)
        for parameter in self.parameters():  # torch copies one block, and leaves biases at zero
            nn.init.normal_(parameter, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        if not self.batch_first:
            x = x.transpose(0, 1)
        x = self.encoder(x)
        if not self.batch_first:
            x = x.transpose(0, 1)
        return self.head(self.norm(x)[:, 0])


class Weighing(nn.Module):
    """A block that asks nn.MultiheadAttention for its weights and does not use them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.attn(y, y, y)[0]


class Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 8, 8)
        self.blocks = nn.Sequential(Weighing(24), Weighing(24))
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def torchvisions() -> nn.Module:
    from torchvision.models import VisionTransformer

    size = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3}
    module = VisionTransformer(**size, hidden_dim=24, mlp_dim=48, num_classes=4)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


KINDS = {
    "encoder": Encoder,
    "tokens first": lambda: Encoder(batch_first=False),
    "asking": Asking,
    "torchvision": torchvisions,
}


def encoder(kind: str) -> ap.Network:
    torch.manual_seed(0)
    return ap.load(KINDS[kind](), None, input_shape=(3, 32, 32), name=kind)
