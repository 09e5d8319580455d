"""What an activation prompt is equal to, exactly: six statements, their proofs, and their tests.

Notation: z is an activation, c a vector with one number a channel, added at every position
("channel-constant"); delta a full map. BN and LN have scale gamma and shift beta.

1. BN in evaluation mode: c before it is beta' = beta + gamma c / sqrt(var + eps); c after it is
   beta' = beta + c. So the channel-constant prompt is the beta half of normalisation tuning.
2. BN in training mode removes a channel-constant shift before it: no output, no gradient.
3. A full delta before BN shifts each position by its own amount, which no gamma, beta can.
4. LN: c after it is beta' = beta + c. Before it the shift depends on token and sample, and the
   all-ones direction does nothing.
5. c before a linear layer is b' = b + W c; before a zero-padded convolution only in the interior.
6. A prompt on the classifier's input, or on the map before average pooling, is a shift of the
   head's bias: the prompt there is the linear probe.

Every comparison is made on a whole network: its output with the prompt against its output with
the other parameter, and the gradients of both, which must be related by the same linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vjp

from aptheory.errors import InputError

Side = Literal["before", "after"]


@dataclass(frozen=True)
class Agreement:
    """Largest difference of outputs and of gradients, each relative to the largest entry."""

    output: float
    gradient: float


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    size = max(float(a.abs().max()), float(b.abs().max()), torch.finfo(a.dtype).tiny)
    return float((a - b).abs().max()) / size


def _spread(module: nn.Module, x: Tensor, shift: Tensor) -> Tensor:
    """The vector ``shift`` in the shape that adds to the channels of ``x``."""
    last = isinstance(module, (nn.LayerNorm, nn.Linear)) and not hasattr(module, "nchw")
    return shift if last or x.dim() == 2 else shift.reshape(-1, *[1] * (x.dim() - 2))


@contextmanager
def shifted(module: nn.Module, shift: Float[Tensor, " channels"], side: Side) -> Iterator[None]:
    """Add a channel-constant vector to what enters or leaves ``module`` while the context lasts."""
    if side == "before":
        handle = module.register_forward_pre_hook(
            lambda m, args: (args[0] + _spread(m, args[0], shift), *args[1:])
        )
    else:
        handle = module.register_forward_hook(lambda m, _, out: out + _spread(m, out, shift))
    try:
        yield
    finally:
        handle.remove()


def bias_of_shift(
    module: nn.Module, side: Side
) -> Callable[[Float[Tensor, " channels"]], Float[Tensor, " outputs"]]:
    """The linear map c -> (bias' - bias) with which a shift equals a change of the bias.

    After a module that adds a bias to its output (BN, LN, linear, convolution): the identity,
    since f(z) + b + c = f(z) + (b + c).

    Before BN in evaluation mode: c -> gamma c / sqrt(var + eps), since mean and var are constants,
    gamma (z + c - mean) / sqrt(var + eps) + beta = BN(z) + gamma c / sqrt(var + eps).

    Before a linear layer, or a convolution with a 1x1 kernel and no padding: c -> W c, since
    W (z + c) + b = W z + (b + W c). The head is such a layer: statement 6.

    Raises InputError where no bias is equivalent: before LN (statement 4), before BN in training
    mode (statement 2), before a convolution that sees zero padding (statement 5).
    """
    if side == "after":
        return lambda shift: shift
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.training or module.running_var is None:
            raise InputError(
                "batch normalisation in training mode removes a constant shift before it: no bias "
                "is equivalent; put the network in evaluation mode"
            )
        gain = module.weight / (module.running_var + module.eps).sqrt()
        return lambda shift: gain * shift
    if isinstance(module, nn.Linear):
        return lambda shift: module.weight @ shift
    if isinstance(module, nn.Conv2d):
        pointwise = module.kernel_size == (1, 1) and module.groups == 1
        if pointwise and module.padding in ((0, 0), "valid"):
            return lambda shift: module.weight[:, :, 0, 0] @ shift
        raise InputError(
            "before a convolution with zero padding a constant shift is a bias in the interior "
            "only: see convolution_error"
        )
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        raise InputError(
            f"before {type(module).__name__} a constant shift changes each sample's own mean and "
            "variance: no bias is equivalent (see layernorm_response)"
        )
    raise InputError(f"nothing is proved about a shift before {type(module).__name__}")


def compare_shift_with_bias(
    network: nn.Module,
    images: Float[Tensor, "batch colours height width"],
    module: nn.Module,
    shift: Float[Tensor, " channels"],
    *,
    side: Side,
    seed: int = 0,
) -> Agreement:
    """Statements 1, 4 and 5 on a whole network: a shift at ``module`` against a changed bias.

    Output: network(images) with ``shift`` added before or after ``module``, against the network
    whose module has bias' = bias + A shift, A from ``bias_of_shift``.
    Gradient: for the loss <r, output> with a fixed random r, dL/dshift = A^T dL/dbias', by the
    chain rule, because the two networks are the same function of bias' = bias + A shift.

    ``network`` is called in its present mode; it must contain ``module``, which must have a bias.
    """
    bias = getattr(module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise InputError(f"{type(module).__name__} has no bias that could take the shift")
    name = next(n for n, m in network.named_modules() if m is module)
    transfer = bias_of_shift(module, side)
    prompt = shift.detach().clone().requires_grad_(True)
    with shifted(module, prompt, side):
        with_prompt = network(images)
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(with_prompt.shape, generator=generator, dtype=torch.float64).to(with_prompt)
    (prompt_gradient,) = torch.autograd.grad((with_prompt * r).sum(), prompt)
    with torch.no_grad():
        change, transposed, *_ = vjp(transfer, shift.detach())
    changed = (bias + change).detach().requires_grad_(True)
    key = f"{name}.bias" if name else "bias"
    with_bias = functional_call(network, {key: changed}, (images,))
    (bias_gradient,) = torch.autograd.grad((with_bias * r).sum(), changed)
    return Agreement(
        _relative(with_prompt, with_bias),
        _relative(prompt_gradient, transposed(bias_gradient)[0]),
    )


def batch_statistics_cancel(
    norm: nn.Module,
    x: Float[Tensor, "batch channels height width"],
    shift: Float[Tensor, " channels"],
    *,
    seed: int = 0,
) -> Agreement:
    """Statement 2: what a channel-constant shift before BN does in training mode. Nothing.

    The batch mean takes up c, z + c - mean(z + c) = z - mean(z), and the variance does not see it;
    so the output is the same for every c and the gradient to c is zero. Both are reported against
    what they are in evaluation mode; ``norm`` itself, its statistics included, is not changed.
    """
    import copy

    def run(mode: bool) -> tuple[Tensor, Tensor, Tensor]:
        bn = copy.deepcopy(norm).train(mode)
        prompt = shift.detach().clone().requires_grad_(True)
        out = bn(x + _spread(bn, x, prompt))
        generator = torch.Generator().manual_seed(seed)
        r = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
        (gradient,) = torch.autograd.grad((out * r).sum(), prompt)
        return out.detach(), bn(x).detach(), gradient

    trained, trained_plain, trained_gradient = run(True)
    fixed, fixed_plain, fixed_gradient = run(False)
    moved = (fixed - fixed_plain).abs().max()
    return Agreement(
        float((trained - trained_plain).abs().max() / moved),
        float(trained_gradient.abs().max() / fixed_gradient.abs().max()),
    )


def affine_residual(
    norm: nn.Module,
    x: Float[Tensor, "batch channels height width"],
    delta: Float[Tensor, "channels height width"],
) -> Float[Tensor, " channels"]:
    """Statement 3: the part of a full delta before BN that no gamma, beta can express, in [0, 1].

    BN(z + delta) = BN(z) + gamma delta / sqrt(var + eps): position p is shifted by its own amount.
    Any (gamma', beta') gives, per channel, a line a u + b in the normalised u. The best line is
    found by least squares over all samples and positions, and what it leaves of the shift's
    energy is returned for each channel:

        min_{a, b} |u + s - a u - b|^2 / |s|^2,   s = delta / sqrt(var + eps).

    0 when delta is constant over positions (b = s). When u is independent of the position it is
    the spatial variance of delta over its mean square, since then neither a nor b can follow it.
    Undefined (nan) for a channel on which delta is zero.
    """
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("affine_residual needs the running statistics of a batch normalisation")
    spread = (norm.running_var.double() + norm.eps).sqrt()[:, None, None]
    u = (x.double() - norm.running_mean.double()[:, None, None]) / spread
    s = (delta.double() / spread).expand_as(u)
    u, s = (t.transpose(0, 1).flatten(1) for t in (u, s))  # channels, samples x positions
    u_centred, s_centred = u - u.mean(1, keepdim=True), s - s.mean(1, keepdim=True)
    # Regressing s on (u, 1) is regressing u + s on them: u itself lies in the span.
    variance = u_centred.square().sum(1)
    slope = (u_centred * s_centred).sum(1) / variance.clamp_min(torch.finfo(u.dtype).tiny)
    left = (s_centred - slope[:, None] * u_centred).square().sum(1)
    return left / s.square().sum(1)


@torch.no_grad()
def layernorm_response(
    norm: nn.Module,
    x: Float[Tensor, "batch tokens width"],
    shift: Float[Tensor, " width"],
) -> tuple[float, float]:
    """Statement 4, before LN: how unequal a shared shift becomes, and what the ones vector does.

    LN(z + c) = gamma (z + c - mean(z) - mean(c)) / std(z + c) + beta, with a mean and a standard
    deviation of each token's own. So the output moves by a different vector for each token and
    sample, and not at all for c = k (1, ..., 1), which both mean and std remove.

    Returns (spread, ones): the standard deviation of the output's shift over tokens and samples
    relative to its mean size (0 would be a bias), and the largest output change under a
    shift by the all-ones vector of the same norm, relative to the largest under ``shift``.
    """
    plain = norm(x)
    moved = (norm(x + shift) - plain).flatten(0, -2).double()
    spread = (moved - moved.mean(0)).square().sum(1).mean().sqrt() / moved.norm(dim=1).mean()
    ones = torch.full_like(shift, float(shift.norm()) / shift.numel() ** 0.5)
    change = (norm(x + ones) - plain).abs().max()
    return float(spread), float(change / moved.abs().max())


@torch.no_grad()
def convolution_error(
    conv: nn.Conv2d,
    x: Float[Tensor, "batch channels height width"],
    shift: Float[Tensor, " channels"],
) -> tuple[float, float]:
    """Statement 5, before a convolution: error of the bias b + (sum of W) c inside and at the rim.

    Where the kernel sees no padding, sum_k W_k (z_k + c) = sum_k W_k z_k + (sum_k W_k) c. Where it
    does, the padded zeros are not shifted by c and the sum is short of those terms.

    Returns the largest errors (interior, rim) relative to the largest shift of the output; 0 where
    there is no such position.
    """
    ones = torch.ones(1, conv.in_channels, *x.shape[-2:], dtype=x.dtype, device=x.device)
    unit = nn.functional.conv2d(
        ones[:, :1], torch.ones_like(conv.weight[:1, :1]), None, conv.stride, 0, conv.dilation
    )
    seen = nn.functional.conv2d(
        ones[:, :1],
        torch.ones_like(conv.weight[:1, :1]),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
    )[0, 0]
    full = seen == unit.max()
    per_group = shift.reshape(conv.groups, -1).repeat_interleave(
        conv.out_channels // conv.groups, dim=0
    )
    constant = (conv.weight.sum((2, 3)) * per_group).sum(1)
    moved = conv(x + shift[:, None, None]) - conv(x)
    error = (moved - constant[:, None, None]).abs().amax((0, 1))
    size = moved.abs().max()
    inside = error[full].max() if bool(full.any()) else error.new_zeros(())
    rim = error[~full].max() if bool((~full).any()) else error.new_zeros(())
    return float(inside / size), float(rim / size)


def head_bias_of_prompt(
    head: nn.Linear, delta: Float[Tensor, "channels ..."]
) -> Float[Tensor, " classes"]:
    """Statement 6: the head's bias that replaces a prompt on the last map, or on its input.

    Average pooling is linear, so pool(z + delta) = pool(z) + mean(delta) over positions, and
    W (f + m) + b = W f + (b + W m). ``delta`` is (channels, height, width) for a map before
    average pooling, or (channels,) for the classifier's input.
    """
    mean = delta.flatten(1).mean(1) if delta.dim() > 1 else delta
    return head.bias + head.weight @ mean
