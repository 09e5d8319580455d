"""Two networks that are timm's in everything but size, with fixed random weights."""

import torch

import aptheory as ap


def small_vit(**settings) -> ap.Network:
    """Five blocks of width 24 on 32x32 images in 8x8 patches: 17 tokens."""
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 5, "num_heads": 3}
    return _load("vit_tiny_patch16_224", 10, {**size, **settings})


def small_resnet(**settings) -> ap.Network:
    """Five residual blocks with BatchNorm, widths 8 to 32, on 32x32 images."""
    from timm.models.resnet import BasicBlock

    size = {
        "block": BasicBlock,
        "layers": (1, 1, 1, 2),
        "channels": (8, 16, 24, 32),
        "zero_init_last": False,
    }
    return _load("resnet18", 10, {**size, **settings})


def _load(name: str, classes: int, settings: dict) -> ap.Network:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = timm.create_model(name, num_classes=classes, **settings)
        if name.startswith("resnet"):  # the stem of small images keeps their size
            module.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
            module.maxpool = torch.nn.Identity()
        for part in module.modules():  # statistics and affine parameters as after some training
            if isinstance(part, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
                torch.nn.init.uniform_(part.weight, 0.5, 1.5)
                torch.nn.init.normal_(part.bias, std=0.3)
            if isinstance(part, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(part.running_mean, std=0.3)
                torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    return ap.load(module, input_shape=(3, 32, 32), name=f"small_{name}")
