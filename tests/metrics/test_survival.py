"""Token survival against layers that keep all, average, or lose a token."""

import pytest
import torch

import aptheory as ap
from aptheory import metrics
from aptheory.errors import InputError


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def survival(function, grid=(4, 4), count=6):
    """Over every patch of every image, so that nothing is left to the draw of patches."""
    images, share = noise(count, 3, 8, 8), 1 / (grid[0] * grid[1])
    others, running = images.roll(1, 0), metrics.TokenSurvival(share)
    for patch in range(grid[0] * grid[1]):
        changed = metrics.replace_patch(images, others, grid, torch.full((count,), patch))
        versions = torch.stack([function(x).flatten(1) for x in (images, changed, others)], 1)
        running.update(versions)
    return float(running.compute().value)


def test_all_of_a_token_is_left_where_positions_stay_apart():
    assert survival(lambda x: x) == pytest.approx(1)
    mix = torch.linalg.qr(noise(3, 3, seed=4))[0]
    assert survival(lambda x: torch.einsum("bchw,cd->bdhw", x, mix)) == pytest.approx(1)


def test_what_a_mean_over_tokens_keeps_in_closed_form():
    """A patch of variance σ² and a part of variance k² that all P patches share:

    one patch moves the mean by 1/P of both, all patches move it by σ²/P + k².
    """
    draw = noise(300, 3, 4, 4), noise(300, 3, 1, 1, seed=8)
    for k, expected in ((0.0, 1.0), (1.0, (1 + 1) / 16 / (1 / 16 + 1)), (30.0, 1 / 16)):
        images = draw[0] + k * draw[1]
        others, running = images.roll(1, 0), metrics.TokenSurvival(1 / 16)
        for patch in range(16):
            changed = metrics.replace_patch(images, others, (4, 4), torch.full((300,), patch))
            running.update(torch.stack([x.mean((2, 3)) for x in (images, changed, others)], 1))
        found = running.compute()
        assert float(found.value) == pytest.approx(expected, rel=0.1)
        assert found.low < found.value < found.high


def test_a_patch_is_replaced_and_nothing_else():
    images, others = torch.zeros(2, 1, 4, 6), torch.ones(2, 1, 4, 6)
    changed = metrics.replace_patch(images, others, (2, 3), torch.tensor([0, 5]))
    assert changed[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert changed[1, 0].nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_shards_merge_and_bad_input_is_named():
    versions = noise(6, 3, 5)
    whole, first, second = (metrics.TokenSurvival(0.25) for _ in range(3))
    whole.update(versions)
    first.update(versions[:2])
    second.update(versions[2:])
    first.merge(second)
    assert float(first.compute().value) == pytest.approx(float(whole.compute().value))
    same = versions.clone()
    same[:, 2] = same[:, 0]
    with pytest.raises(InputError, match="No two images"):
        metrics.token_survival(same, share=0.25)
    for bad in (lambda: metrics.token_survival(versions, share=0.0),
                lambda: first.merge(metrics.TokenSurvival(0.5)),
                lambda: metrics.TokenSurvival(0.5).compute()):  # fmt: skip
        with pytest.raises(InputError):
            bad()


@pytest.mark.parametrize("name", ["aptheory_vit_mini", "aptheory_resnet_mini"])
def test_a_profile_follows_a_token_through_a_network(name):
    net = ap.load(name)
    layers = [0, 3, len(net.layers) - 1]
    images = torch.randn(8, *net.input_shape, generator=torch.Generator().manual_seed(0))
    table = ap.profile(net, images, measures=("token_survival",), layers=layers)
    assert list(table.layer) == layers
    assert (table.value > 0).all()
    assert table.value[0] == pytest.approx(1, abs=0.15)  # by definition, up to the draw of patches
