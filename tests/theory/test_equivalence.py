"""The six statements about activation prompts: outputs and gradients, on real networks."""

import pytest
import torch
from torch import nn

import aptheory as ap
from analyses.equivalence_table import measure
from aptheory import InputError
from aptheory.theory import equivalence as eq
from tests.small_networks import small_resnet, small_vit

EXACT = 1e-6


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def vit():
    return small_vit()


@pytest.fixture(scope="module")
def cnn():
    return small_resnet()


def vector(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def modules(net, kind):
    return [module for module in net.module.modules() if isinstance(module, kind)]


def inputs_of(net, module, images):
    kept = []
    handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0].detach()))
    with torch.no_grad():
        net(images)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("double", [False, True])
def test_1_channel_shift_at_batchnorm_is_its_beta(images, side, double):
    net = small_resnet()
    x = images.double() if double else images
    net = net.double() if double else net
    for k, norm in enumerate(modules(net, nn.BatchNorm2d)):
        shift = vector(norm.num_features, k).to(x)
        found = eq.compare_shift_with_bias(net.module, x, norm, shift, side=side)
        limit = 1e-12 if double else EXACT
        assert found.output < limit
        # In float32 the gradient gathers the rounding of all layers behind.
        assert found.gradient < (limit if double else 1e-5)


def test_2_batch_statistics_cancel_the_shift(cnn, images):
    for k, norm in enumerate(modules(cnn, nn.BatchNorm2d)):
        x = inputs_of(cnn, norm, images)
        statistics = norm.running_mean.clone()
        found = eq.batch_statistics_cancel(
            norm.double(), x.double(), vector(x.shape[1], k).double()
        )
        assert found.output < EXACT
        assert found.gradient < EXACT
        assert torch.equal(norm.float().running_mean, statistics)
        assert norm.num_batches_tracked == 0


def test_3_full_shift_exceeds_every_affine_parameter(cnn, images):
    norm = cnn.module.layer1[0].bn1
    x = inputs_of(cnn, norm, images)
    generator = torch.Generator().manual_seed(1)
    full = torch.randn(x.shape[1:], generator=generator)
    residual = eq.affine_residual(norm, x, full)
    assert (residual > 0.5).all()
    assert (residual <= 1).all()
    constant = full.mean((1, 2), keepdim=True).expand_as(full)
    assert (eq.affine_residual(norm, x, constant) < 1e-10).all()
    # Checked against an ordinary least squares solver, channel by channel.
    shift = full / (norm.running_var + norm.eps).sqrt()[:, None, None]
    normalised = (x - norm.running_mean[:, None, None]) / (norm.running_var + norm.eps).sqrt()[
        :, None, None
    ]
    for channel in (0, 3):
        u = normalised[:, channel].flatten().double()
        s = shift[channel].expand(len(x), -1, -1).flatten().double()
        design = torch.stack([u, torch.ones_like(u)], dim=1)
        fit = torch.linalg.lstsq(design, (u + s)[:, None]).solution
        left = (u + s - (design @ fit)[:, 0]).square().sum() / s.square().sum()
        assert float(residual[channel]) == pytest.approx(float(left), rel=1e-4)


def test_3_residual_of_independent_activations_is_the_spatial_variance():
    norm = nn.BatchNorm2d(2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, 4, 4, generator=generator)
    delta = torch.randn(2, 4, 4, generator=generator) + 0.5
    expected = delta.var((1, 2), correction=0) / delta.square().mean((1, 2))
    assert eq.affine_residual(norm, x, delta).tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_3_scale_is_never_covered(cnn, images):
    """gamma-tuning multiplies what the sample brings; no fixed delta can follow it."""
    norm = cnn.module.layer2[0].bn1
    x = inputs_of(cnn, norm, images)
    change = 0.1 * (norm(x) - norm.bias[:, None, None])  # 10 % more gamma
    best_delta = change.mean(0)  # least squares over samples
    # What it leaves differs from sample to sample.
    left = (change - best_delta).square().sum() / change.square().sum()
    assert left > 0.05


@pytest.mark.parametrize("double", [False, True])
def test_4_shared_shift_after_layernorm_is_its_beta(images, double):
    net, x = small_vit(), images
    if double:
        net, x = net.double(), x.double()
    for k, norm in enumerate(modules(net, nn.LayerNorm)):
        found = eq.compare_shift_with_bias(net.module, x, norm, vector(24, k).to(x), side="after")
        limit = 1e-12 if double else EXACT
        assert found.output < limit
        assert found.gradient < (limit if double else 1e-5)


def test_4_shared_shift_before_layernorm_is_not(vit, images):
    norm = vit.module.blocks[2].norm1
    x = inputs_of(vit, norm, images)
    spread, ones = eq.layernorm_response(norm, x, vector(24) * x.std())
    assert spread > 0.05
    assert ones < 1e-5
    with pytest.raises(InputError, match="before LayerNorm"):
        eq.bias_of_shift(norm, "before")


@pytest.mark.parametrize("double", [False, True])
def test_5_shared_shift_before_a_linear_layer_is_its_bias(images, double):
    for net in (small_vit(), small_resnet()):
        x = images.double() if double else images
        net = net.double() if double else net
        for k, linear in enumerate(modules(net, nn.Linear)):
            shift = vector(linear.in_features, k).to(x)
            found = eq.compare_shift_with_bias(net.module, x, linear, shift, side="before")
            limit = 1e-12 if double else EXACT
            assert found.output < limit
            assert found.gradient < (limit if double else 1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "groups"), [(1, 1, 1), (2, 1, 1), (1, 2, 2), (1, 0, 1)]
)
def test_5_before_a_convolution_in_the_interior_only(stride, padding, groups):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=stride, padding=padding, groups=groups).double()
    x = torch.randn(2, 4, 9, 9, generator=generator).double()
    inside, rim = eq.convolution_error(conv, x, vector(4).double())
    assert inside < EXACT
    assert rim > 0.05 if padding else rim == 0
    pointwise = nn.Conv2d(4, 6, 1).double()
    shift = vector(4).double()
    found = eq.compare_shift_with_bias(pointwise, x, pointwise, shift, side="before")
    assert max(found.output, found.gradient) < EXACT
    with pytest.raises(InputError, match="interior"):
        eq.bias_of_shift(conv, "before")


@pytest.mark.parametrize("name", ["aptheory_vit_mini", "aptheory_resnet_mini"])
def test_all_statements_on_the_embedded_networks(images, name):
    table = measure(ap.load(name), images[:3], most=2).set_index(["statement", "measure"])
    values = table["value"]
    errors = values[values.index.get_level_values("measure").str.endswith("error")]
    rim = errors.index.get_level_values("measure") == "smallest_rim_error"
    assert (errors[~rim] < 1e-10).all(), errors
    claims = set(table["claim"])
    if name == "aptheory_vit_mini":
        assert claims == {1, 3, 5}
        assert values["shift before layer norm is not its beta", "smallest_spread"] > 0.05
        assert values["shift before layer norm is not its beta", "ones_vector_change"] < 1e-10
    else:
        assert claims == {1, 2, 3, 4, 5, 6}
        assert (errors[rim] > 0.05).all()
        assert (values[values.index.get_level_values("measure") == "smallest_residual"] > 0.3).all()
        statements = set(table.index.get_level_values("statement"))
        assert "prompt at global_pool is the head's bias" in statements
        assert "prompt at fc is the head's bias" in statements


def test_6_head_bias_of_a_map_is_the_mean_of_the_prompt(images):
    torch.manual_seed(0)
    head = nn.Linear(5, 3)
    z = torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    delta = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(1))
    with_prompt = head((z + delta).mean((2, 3)))
    moved = nn.functional.linear(z.mean((2, 3)), head.weight, eq.head_bias_of_prompt(head, delta))
    assert torch.allclose(with_prompt, moved, atol=1e-6)


def test_refusals_say_why(cnn, images):
    norm = cnn.module.layer1[0].bn1
    with pytest.raises(InputError, match="evaluation mode"):
        eq.bias_of_shift(norm.train(), "before")
    norm.eval()
    with pytest.raises(InputError, match="nothing is proved"):
        eq.bias_of_shift(nn.GELU(), "before")
    with pytest.raises(InputError, match="no bias"):
        eq.compare_shift_with_bias(cnn.module, images, cnn.module.conv1, vector(3), side="before")
