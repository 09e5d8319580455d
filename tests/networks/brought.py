"""Small networks as people bring them: each has a shape that once was read wrongly or refused."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import einops
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 32, 32)
WIDTH = 24


def vit(**settings) -> nn.Module:
    """timm's ViT of four blocks: 4 x 4 patches behind a class token."""
    size = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": 4, "num_heads": 3}
    return timm.create_model("vit_tiny_patch16_224", **{**size, **settings})


class Block(nn.Module):
    """A residual MLP on the last axis."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x):
        return x + self.outer(F.gelu(self.inner(self.norm(x))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(5)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 8, 8)
        self.encoder = Encoder()

    def patches(self, x):
        return self.stem(x).flatten(2).transpose(1, 2)

    def forward(self, x):
        return self.encoder(self.patches(x))


class Tokens(nn.Module):
    """head(backbone(x)), whose blocks lie two modules deeper; ``steps`` is its forward."""

    def __init__(self, steps: Callable | None = None, tokens: int = 0):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(WIDTH, 5)
        self.extra = nn.Parameter(torch.randn(1, tokens, WIDTH))
        self.projector = nn.Linear(WIDTH, 64)  # runs only where ``steps`` says so
        self.steps = steps

    def forward(self, x):
        if self.steps is not None:
            return self.steps(self, x)
        return self.head(self.backbone(x).mean(1))


def joined(behind: bool) -> Callable:
    """Tokens of its own in front of the patches or behind them; the first is read."""

    def steps(net, x):
        x = net.backbone.patches(x)
        extra = net.extra.expand(x.shape[0], -1, -1)
        x = net.backbone.encoder(torch.cat([x, extra] if behind else [extra, x], 1))
        return net.head(x[:, -1 if behind else 0])

    return steps


def tokens_first(net, x):
    """(tokens, images, width) inside."""
    return net.head(net.backbone.encoder(net.backbone.stem(x).flatten(2).permute(2, 0, 1)).mean(0))


def shuffled(net, x):
    """Tokens that run unit by unit (2 x 2 patches), and so in no raster."""
    x = net.backbone.stem(x).unflatten(2, (2, 2)).unflatten(4, (2, 2))
    x = x.permute(0, 2, 4, 3, 5, 1).flatten(1, 4)
    return net.head(net.backbone.encoder(x).mean(1))


def counts_images(net, x):
    x = net.backbone(x)
    return net.head(x.reshape(len(x), -1, WIDTH).mean(1))


def sizes(net, x):
    x = net.backbone(x)
    return net.head(x.view(int(x.size(0)), x.size(1) * x.size(2) // WIDTH, -1).mean(1))


def branches_on_values(net, x):
    if x.max() > 1:
        x = x / 255
    return net.head(net.backbone(x).mean(1))


def branches_on_shapes(net, x):
    if x.shape[-1] > 16 and len(x.shape) == 4:
        x = x * 2
    return net.head(net.backbone(x).mean(1))


def reads_a_value(net, x):
    return net.head(net.backbone(x / net.head.weight.abs().amax().item()).mean(1))


def mixes(over_images: Callable) -> Callable:
    """Tokens that ``over_images`` changes with the other images of the batch."""

    def steps(net, x):
        return net.head(net.backbone.encoder(over_images(net.backbone.patches(x))).mean(1))

    return steps


def attends_to_images(z):
    q = F.layer_norm(z.flatten(1), [z[0].numel()])
    return z + (q @ q.T / z[0].numel()).softmax(-1).matmul(q).view_as(z)


def halved_together(z):
    """All images of a batch, where one of them holds a large value."""
    return torch.where(z.max() > 9, z / 2, z)


MIXING = {
    "the batch's mean": lambda z: z - z.mean(0, keepdim=True),
    "the batch's largest value": lambda z: z / z.abs().amax().item(),
    "batch norm in training": lambda z: F.batch_norm(
        z.transpose(1, 2), None, None, training=True
    ).transpose(1, 2),
    "attention over images": attends_to_images,
    "the images before": lambda z: z.cumsum(0),
    "a neighbour": lambda z: z + z.flip(0),
    "a threshold over the batch": halved_together,
}


class Unfixed(nn.Module):
    """BatchNorm that keeps no statistics."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.Sequential(*(self.block() for _ in range(4)))
        self.head = nn.Linear(8, 5)

    @staticmethod
    def block() -> nn.Module:
        norm = nn.BatchNorm2d(8, track_running_stats=False)
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), norm, nn.Conv2d(8, 8, 1))

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


def loops_over_images(net, x):
    return torch.stack([net.head(z.mean(0)) for z in net.backbone(x)])


def draws(net, x):
    return net.head(F.dropout(net.backbone(x).mean(1)))


def leaves_out_at_random(net, x):
    """A block in a hundred is left out, in evaluation too."""
    x = net.backbone.patches(x)
    for layer in net.backbone.encoder.layers:
        if torch.rand(()) < 0.99:
            x = layer(x)
    return net.head(x.mean(1))


def drops_answers(net, x):
    """A head behind every block, of which the last counts; attention whose answer nobody reads."""
    x, answers = net.backbone.patches(x), []
    for layer in net.backbone.encoder.layers:
        x = layer(x)
        answers.append(net.head(x.mean(1)))
        net.unread(x, x, x)
    return answers[-1]


class Supervised(Tokens):
    def __init__(self):
        super().__init__(drops_answers)
        self.unread = nn.MultiheadAttention(WIDTH, 3, batch_first=True)


class PooledByAttention(Tokens):
    """One query that torch's attention answers from all positions."""

    def __init__(self):
        super().__init__(lambda net, x: net.head(net.pooled(net.backbone(x))))
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 3, batch_first=True)

    def pooled(self, z):
        return self.attention(self.query.expand(len(z), -1, -1), z, z)[0][:, 0]


def weighs(net, x):
    x = net.backbone(x)
    return net.head((x * net.projector(x).softmax(1)).sum(1))


class Weighed(Tokens):
    """The mean over positions, each weighed by a number of its own."""

    def __init__(self):
        super().__init__(weighs)
        self.projector = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))


class Stem(Tokens):
    """Patches by three convolutions of stride 2, which move every position by half of one."""

    def __init__(self, tokens: int = 0):
        super().__init__(joined(False) if tokens else None, tokens)
        widths = (3, 8, 16, WIDTH)
        self.backbone.stem = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in pairwise(widths)
            )
        )


class InPlace(nn.Module):
    """Convolutions whose nonlinearity writes in place, and whose answer nobody takes."""

    def __init__(self, write: Callable):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8 if i else 3, 8, 3, padding=1) for i in range(5))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)
        self.write = write

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            self.write(self, x)
        return self.head(x.mean((2, 3)))


IN_PLACE = {
    "a module": lambda net, x: net.relu(x),
    "a keyword": lambda net, x: F.relu(x, inplace=True),
    "a place": lambda net, x: F.relu(x, True),
    "a method": lambda net, x: x.relu_(),
    "an output": lambda net, x: torch.clamp(x, min=0, out=x),
}


def returns_more(net, x):
    """Blocks return two tensors, of which the first alone is read."""
    x = net.backbone.patches(x)
    for layer in net.backbone.encoder.layers:
        x, _ = layer(x)
    return net.head(x.mean(1))


class MoreBlock(Block):
    def forward(self, x):
        x = super().forward(x)
        return x, x.mean(1)


class More(Tokens):
    def __init__(self):
        super().__init__(returns_more)
        self.backbone.encoder.layers = nn.ModuleList([MoreBlock() for _ in range(5)])


def folds_tokens(net, x):
    """Rows and columns are counted, and tokens put into them, however many there are."""
    x = net.backbone.stem(x)
    rows, columns = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    for layer in net.backbone.encoder.layers:
        x = layer(x).reshape(x.shape[0], rows * columns, -1)
    return net.head(x.mean(1))


def by_einops(net, x):
    x = einops.rearrange(net.backbone.stem(x), "b c h w -> b (h w) c")
    return net.head(einops.reduce(net.backbone.encoder(x), "b n c -> b c", "mean"))


class Recurrent(Tokens):
    """Its last states lie one behind another, as many as the images of a trace."""

    def __init__(self):
        super().__init__(lambda net, x: net.head(net.cells(net.backbone.patches(x))[1][0][-1]))
        self.cells = nn.LSTM(WIDTH, WIDTH, 3, batch_first=True)


def vectors() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 5))


def returns_two(net, x):
    features = net.backbone(x).mean(1)
    return net.head(features), features


def returns_logits(net, x):
    features = net.backbone(x).mean(1)
    return {"features": features, "logits": net.head(features)}


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


def returns_a_dataclass(net, x):
    features = net.backbone(x).mean(1)
    return Answer(net.head(features), features)


def around(net, x):
    """A token in front of the patches, and the others behind them."""
    x = net.backbone.patches(x)
    extra = net.extra.expand(x.shape[0], -1, -1)
    return net.head(net.backbone.encoder(torch.cat([extra[:, :1], x, extra[:, 1:]], 1))[:, 0])


def counts_calls(net, x):
    net.calls = getattr(net, "calls", 0) + 1
    return net.head(net.backbone(x).mean(1)) * net.calls


def folds(net, x):
    """Two views of each image in one batch, twice as long, until the end."""
    return sum(net.head(net.backbone(torch.cat([x, x.flip(-1)])).mean(1)).chunk(2))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(4, 4)

    def forward(self, images, mask):
        return self.network(images * mask)


def functional(net, x):
    return F.log_softmax(F.linear(net.backbone(x).mean(1), net.head.weight, net.head.bias), -1)


def dense(net, x):
    """A linear map of every token, averaged behind it."""
    return net.head(net.backbone(x)).mean(1)


class Maps(nn.Module):
    """Convolutions; ``steps`` is what follows the last map."""

    def __init__(self, steps: Callable, head: nn.Module | None = None):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.layers = nn.Sequential(*(self.block() for _ in range(4)))
        self.head = nn.Linear(16, 5) if head is None else head
        self.steps = steps

    @staticmethod
    def block() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            nn.Conv2d(16, 16, 3, padding=1),
        )

    def forward(self, x):
        return self.steps(self, self.layers(self.stem(x)))


def squeezes(net, x):
    return net.head(F.adaptive_avg_pool2d(x, 1).squeeze())


def convolves(net, x):
    return net.head(F.adaptive_avg_pool2d(x, 1)).flatten(1)


class LastAxis(nn.Module):
    """Maps with the channels last, as many as rows and columns: 16 x 16 x 16."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 2, 2)
        self.blocks = nn.Sequential(*(Block(16) for _ in range(4)))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


class Mixing(nn.Module):
    """A block on (channels, tokens)."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv1d(WIDTH, WIDTH, 1), nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, x):
        return x + self.outer(F.relu(self.inner(x)))


class ChannelsFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 8, 8)
        self.blocks = nn.Sequential(*(Mixing() for _ in range(4)))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).flatten(2)).mean(2))


class Around(nn.Module):
    """Any network one module deeper, so that it declares nothing."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Trained(nn.Module):
    """Of the shape of a Lightning module: the network beside what trains it."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.net, self.loss = inner, nn.CrossEntropyLoss()
        self.teacher = Tokens()
        self._trainer = None

    @property
    def trainer(self):
        raise RuntimeError("not attached to a trainer")

    def training_step(self, batch, batch_idx):
        return self.loss(self(batch[0]), batch[1])

    def forward(self, x):
        return self.net(x)


def distributed(inner: nn.Module, folder) -> nn.Module:
    """In DistributedDataParallel, of one process."""
    group = torch.distributed
    if not group.is_initialized():
        store = group.FileStore(str(folder / "store"), 1)
        group.init_process_group("gloo", store=store, rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(inner)


def adapted_by_peft(**settings) -> nn.Module:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["inner"], init_lora_weights=False, **settings)
    return peft.get_peft_model(Tokens(), config)


def with_weight_norm(norm: Callable) -> nn.Module:
    module = Tokens()
    for block in module.backbone.encoder.layers:
        norm(block.inner)
    norm(module.head)
    return module


def pruned(module: nn.Module) -> nn.Module:
    """Its weights are made of others by a hook."""
    from torch.nn.utils import prune

    return prune.l1_unstructured(module, "weight", 0.5)


class TwoStreams(nn.Module):
    """Two streams of one shape that meet: through their layers not everything passes."""

    def __init__(self, meet: Callable, tail: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.left, self.right, self.tail = (
            nn.Sequential(*(Maps.block() for _ in range(count))) for count in (4, 4, tail)
        )
        self.head = nn.Linear(16, 5)
        self.meet = meet

    def forward(self, x):
        x = x if self.stem is None else self.stem(x)
        return self.head(self.tail(self.meet(self.left(x), self.right(x))).mean((2, 3)))


def apart() -> nn.Module:
    """Two streams that share nothing before they meet."""
    module = TwoStreams(torch.add, tail=0)
    module.stem = None
    module.left.insert(0, nn.Conv2d(3, 16, 3))
    module.right.insert(0, nn.Conv2d(3, 16, 3))
    return module


def by_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.head(net.backbone(x).mean(1)).float()


class Hooked(nn.Module):
    """Its head reads what a hook has collected."""

    def __init__(self):
        super().__init__()
        self.net, self.head = Tokens(), nn.Linear(WIDTH, 5)
        self.middle = self.net.backbone.encoder.layers[2].inner
        self.middle.register_forward_hook(lambda module, _, out: setattr(module, "kept", out))

    def forward(self, x):
        self.net(x)
        return self.head(self.middle.kept.mean(1))
