"""All measures in one profile, and pixels where patches do not divide the image."""

import pytest
import timm
import torch

import aptheory as ap
from aptheory import metrics
from aptheory.networks.attention import attention_layers
from aptheory.networks.zoo import names
from aptheory.profiling.watchers import AttentionWatcher, known_measures
from aptheory.profiling.watchers.attention import site_distances
from aptheory.profiling.watchers.base import pixels_of
from tests.quarters import small_cnn, small_vit


def small_swin() -> ap.Network:
    """Two stages of one block each; its window attention is not fused."""
    torch.manual_seed(0)
    module = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        patch_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
        num_classes=3,
    )
    return ap.load(module, input_shape=(3, 32, 32), name="small_swin")


NETWORKS = {
    "small_vit": small_vit,
    "small_cnn": small_cnn,
    "small_swin": small_swin,
    **{name: lambda name=name: ap.load(name) for name in names()},
}


@pytest.mark.filterwarnings("ignore::aptheory.profiling.watchers.UndefinedWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in names() else []) for name in NETWORKS],
)
def test_all_measures_together_count_every_image_once(name):
    """The gradient watcher runs the network too, and nobody may be observing it then."""
    net = NETWORKS[name]()
    wanted = known_measures()
    if not attention_layers(net):
        wanted = tuple(each for each in wanted if each not in AttentionWatcher.measures)
    images = torch.randn(12, *net.input_shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 2
    batches = [(images[:8], labels[:8]), (images[8:], labels[8:])]
    layers = (0, 1, len(net.layers) - 2, len(net.layers) - 1)
    table = ap.profile(net, batches, measures=wanted, layers=layers, gradient_images=2)
    counts = table.groupby("measure")["images"].agg(["min", "max"])
    some = ["receptive_radius", "receptive_extent", "token_survival"]  # of ``gradient_images``
    assert (counts.loc[some[:2]] == 2).all(axis=None)
    assert (counts.drop(some) == 12).all(axis=None)
    assert {"cka", "effective_rank", "logme", "procrustes"} <= set(counts.index)
    if attention_layers(net):  # the same numbers as without anyone beside it
        alone = ap.profile(net, batches, measures=("attention_distance",), layers=layers)
        beside = table[table["measure"] == "attention_distance"]
        assert beside["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), rel=1e-6)


def test_patches_that_do_not_divide_the_image_are_as_large_as_they_are():
    """250 pixels in patches of 16: fifteen of 16, and not of 16.67."""
    size = {"depth": 1, "embed_dim": 12, "num_heads": 1}
    net = ap.load("vit_tiny_patch16_224", weights=None, input_shape=(3, 250, 250), **size)
    (site,) = attention_layers(net)
    tokens = site.prefix + site.grid[0] * site.grid[1]
    uniform = torch.full((1, 1, tokens, tokens), 1 / tokens)
    distances = site_distances(net, site)
    value = float(metrics.attention_distance(uniform, distances, prefix=site.prefix))
    assert value == pytest.approx(124.86, abs=0.01)


@pytest.mark.parametrize(
    ("size", "count", "pixels"), [(16, 4, 4), (18, 4, 4), (17, 5, 4), (16, 2, 8), (19, 2, 8)]
)
def test_the_step_of_a_grid_is_the_networks(size, count, pixels):
    net = small_vit()  # patches of 4
    net.input_shape = (3, size, size)
    assert pixels_of(net, (count, count)) == (pixels, pixels)
    assert metrics.middle((4, 4), (18, 18), pixels=(4, 4))[1] == (10, 10)
