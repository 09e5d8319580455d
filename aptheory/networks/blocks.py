"""What a block is: a module with at least two weight matrices or kernels; and the lists that hold
blocks. Nothing here knows a family by name."""

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def weights_in(module: nn.Module) -> int:
    """How many weight matrices or kernels a module holds."""
    return sum(p.ndim >= 2 for p in module.parameters())


def is_blocklike(module: nn.Module) -> bool:
    """A residual or transformer block, as opposed to one convolution with its norm."""
    return weights_in(module) >= 2


def is_plain_list(module: nn.Module) -> bool:
    """A container that adds nothing of its own."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def listed_blocks(module: nn.Module) -> set[str]:
    """Names of the outermost blocks that stand in a list inside a module.

    A list is a container, or a module whose children are all blocks of one class.
    """
    children = list(module.named_children())
    uniform = len({type(c) for _, c in children}) == 1 and len(children) > 1
    is_list = isinstance(module, CONTAINERS) or (
        uniform and all(is_blocklike(child) for _, child in children)
    )
    found = set()
    for name, child in children:
        if is_list and is_blocklike(child):
            found.add(name)
        else:
            found |= {f"{name}.{inner}" for inner in listed_blocks(child)}
    return found
