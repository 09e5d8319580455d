"""A picture reaches a network as the network's publisher prepares it, to the last byte."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn

import aptheory as ap
from aptheory.errors import InputError
from aptheory.preprocessing import (
    INTERPOLATIONS,
    SQUASHED,
    Transform,
    as_transform,
    check_scaling,
    fit_picture,
    fit_pixels,
)
from aptheory.studies.sources import load_network, load_task, view_identity
from aptheory.tasks.views import CentreCropped
from tests.quarters import small_task, small_vit

PICTURES = [(40, 61), (61, 40), (20, 21), (32, 32), (7, 90)]
"""(height, width), some smaller than the image."""


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def transform(**changes) -> Transform:
    return Transform(**{"size": (32, 32), "mean": (0.5, 0.4, 0.3), "std": (0.2,) * 3, **changes})


def timms(to: Transform, picture: Image.Image) -> np.ndarray:
    """What timm's own evaluation transform makes of a picture, as bytes (height, width, 3)."""
    theirs = create_transform(
        (3, *to.size),
        crop_pct=to.crop,
        crop_mode=to.resize,
        interpolation=to.interpolation,
        mean=to.mean,
        normalize=False,
    )
    return np.asarray(theirs(picture)).transpose(1, 2, 0)


@pytest.mark.parametrize("resize", ["center", "squash", "border"])
@pytest.mark.parametrize(
    ("size", "crop", "interpolation"),
    [
        ((32, 32), 0.875, "bilinear"),
        ((32, 32), 0.9, "bicubic"),
        ((32, 32), 1.0, "lanczos"),
        ((24, 36), 0.95, "bicubic"),
        ((32, 32), 1.15, "bilinear"),
        ((33, 31), 0.875, "nearest"),
    ],
)
def test_it_is_timms_evaluation_transform(resize, size, crop, interpolation):
    to = transform(size=size, crop=crop, resize=resize, interpolation=interpolation)
    for picture in map(noise, PICTURES):
        assert np.array_equal(np.asarray(fit_picture(picture, to)), timms(to, picture))


@pytest.mark.parametrize("resize", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_arrays_go_the_way_of_pictures(resize, interpolation):
    to = transform(crop=0.9, resize=resize, interpolation=interpolation)
    for size in PICTURES[:4]:
        picture = noise(size)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        made = fit_pixels(pixels, to)[0].permute(1, 2, 0).numpy().astype(int)
        gap = np.abs(made - np.asarray(fit_picture(picture, to)).astype(int)).max()
        # torch and Pillow round their fixed-point sums differently by one.
        assert gap <= (interpolation == "bilinear")


def test_a_size_alone_is_the_whole_picture_squashed():
    picture = noise((40, 61))
    plain = np.asarray(picture.resize((24, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(fit_picture(picture, (16, 24))), plain)
    assert as_transform((16, 24)).plain
    assert not transform(crop=0.9).plain
    assert str(transform()) == SQUASHED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; expected one of nearest,"),
        ({"resize": "crop"}, "resize is 'crop'; expected one of center,"),
        ({"crop": 224}, "crop is 224; expected the image's side over"),
        ({"crop": 0}, "crop is 0;"),
    ],
)
def test_what_is_no_transform_is_refused(change, words):
    with pytest.raises(ap.InputError, match=words):
        transform(**change)
    with pytest.raises(ap.InputError, match=words):
        ap.load(timm.create_model("resnet10t"), None, **change)


def test_every_configuration_of_timm_is_one():
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.interpolation != "random":
            transform(
                crop=config.crop_pct, resize=config.crop_mode, interpolation=config.interpolation
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of pictures that are wider than high."""
    root = tmp_path_factory.mktemp("pictures")
    for split in ("train", "val", "test"):
        for number, label in enumerate(("ant", "bee")):
            (root / split / label).mkdir(parents=True)
            for index in range(2):
                picture = noise((40, 61), seed=2 * number + index)
                picture.save(root / split / label / f"{index}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def net():
    return small_vit()


def read(task, net):
    return next(iter(ap.tasks.loader(task.train, net, 4)))[0]


class TestAFolder:
    def test_is_seen_as_timm_would_show_it(self, folder, net):
        config = resolve_model_data_config(net.module) | {"input_size": (3, 16, 16)}
        theirs = create_transform(**config)
        expected = torch.stack([theirs(noise((40, 61), seed=index)) for index in range(4)])
        assert torch.allclose(read(ap.task(folder), net), expected, atol=1e-6)
        assert (config["crop_pct"], config["interpolation"]) == (0.9, "bicubic")

    def test_is_squashed_where_that_is_chosen(self, folder, net):
        task = ap.task(folder, resize="squash")
        raw = task.train.images(range(4), (16, 16))
        assert torch.equal(read(task, net), net.normalize(raw))
        assert task.digest == ap.task(folder).digest
        assert task.preprocessing_for(net).endswith(SQUASHED)

    @pytest.mark.parametrize("resize", ["center", "border", "network"])
    def test_other_ways_differ_and_are_said(self, folder, net, resize):
        plain, other = ap.task(folder, resize="squash"), ap.task(folder, resize=resize)
        assert not torch.equal(read(other, net), read(plain, net))
        assert view_identity(net, other)["view"] == {
            "resize": "center" if resize == "network" else resize,
            "crop": 0.9,
            "interpolation": "bicubic",
        }
        assert "8 .png" not in other.preprocessing_for(net)
        assert "12 .png" in other.preprocessing_for(net)
        assert "aspect ratio kept, bicubic" in other.preprocessing_for(net)

    def test_an_unknown_way_is_refused(self, folder):
        with pytest.raises(ap.InputError, match="resize is 'crop'; expected one of network"):
            ap.task(folder, resize="crop")

    def test_subsets_joins_and_training_follow(self, folder, net):
        from aptheory.training.kept import Kept

        task = ap.task(folder)
        assert torch.equal(read(task.subset(train=2), net)[0], read(task, net)[0])
        both = next(iter(ap.tasks.loader(task.train_and_val, net, 8)))[0]
        assert torch.equal(both[:4], read(task, net))
        assert torch.equal(Kept(net, task).batch("train", torch.arange(4)), read(task, net))

    def test_is_decoded_once_for_one_network(self, folder, net, tmp_path):
        from aptheory.tasks.resizing import view

        task = ap.task(folder)
        made = ap.tasks.decoded_task(task, view(task.train, net), folder=tmp_path, progress=False)
        assert torch.equal(read(made, net), read(task, net))
        small = made.train.images([0], (16, 16))
        assert torch.equal(small, task.train.images([0], (16, 16)))

    def test_a_packaged_network_sees_the_whole_picture(self, folder):
        net = ap.load("aptheory_vit_mini")
        assert view_identity(net, ap.task(folder)) == {}

    def test_a_published_crop_gives_way(self, folder, net):
        task = ap.task(folder)
        cropped = replace(task, preprocessing="centre crop", train=CentreCropped(task.train))
        assert not torch.equal(read(cropped, net), read(task, net))
        assert torch.equal(read(cropped.resized("network"), net), read(task, net))


class TestArrays:
    def test_stay_as_they_are(self, net):
        task = small_task()
        assert torch.equal(read(task, net), net.normalize(task.train.images(range(4), (16, 16))))
        assert view_identity(net, task) == {}

    def test_interpolation_does_what_it_says(self):
        specs = [
            {"name": "resnet10t", "weights": "random", "input_shape": (3, 24, 24)},
            {"name": "resnet10t", "weights": "random", "input_shape": (3, 24, 24)}
            | {"interpolation": "bicubic"},
        ]
        task = small_task()
        plain, cubic = (load_network(spec) for spec in specs)
        assert view_identity(plain, task) == {}
        assert view_identity(cubic, task)["view"]["interpolation"] == "bicubic"
        pixels = task.train.images(range(4), transform(size=(24, 24), interpolation="bicubic"))
        assert torch.equal(read(task, cubic), cubic.normalize(pixels))
        assert not torch.equal(read(task, cubic), read(task, plain))

    def test_a_study_chooses_too(self):
        study = ap.Study(
            networks=[{"name": "resnet10t", "weights": "random", "crop": 0.5, "resize": "border"}],
            tasks=[{"name": "digits", "resize": "network"}],
        )
        net = load_network(study.networks[0])
        settings = view_identity(net, load_task(study.tasks[0]))["view"]
        assert settings == {"resize": "border", "crop": 0.5, "interpolation": "bicubic"}


class Wrapped(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.num_features, 5)

    def forward(self, x):
        return self.head(self.backbone(x))


class TestWhatIsSaid:
    def test_a_wrapper_has_the_preprocessing_of_what_it_wraps(self):
        inner = small_vit().module
        inner.reset_classifier(0)
        assert inner.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
        net = ap.load(Wrapped(inner), None, input_shape=(3, 16, 16))
        assert net.mean == (0.5, 0.5, 0.5)
        assert net.transform == small_vit().transform
        assert "mean 0.5, 0.5, 0.5" in repr(net)
        assert "timm's configuration, of its part backbone" in repr(net)

    def test_what_is_assumed_is_said(self):
        module = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(4, 2),
        )
        net = ap.load(module, None, input_shape=(3, 16, 16), name="mine")
        assert "assumed, since the module has no configuration" in repr(net)
        assert "mean 0.485, 0.456, 0.406" in repr(net)
        assert net.transform.plain
        assert "assumed" in net._repr_html_()
        given = ap.load(module, None, input_shape=(3, 16, 16), mean=(0.1,) * 3, crop=0.8)
        assert given.mean == (0.1,) * 3
        assert given.transform.crop == 0.8

    def test_networks_of_other_channels_have_the_mean_of_the_values(self):
        net = ap.load("resnet10t", None, input_shape=(1, 32, 32))
        assert net.mean == pytest.approx((0.449,), abs=1e-3)


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,) * 3, (1e-30, 1, 1), "std is"),
        ((0.5,) * 3, (1, 1, 0), "std is"),
        ((0.5,) * 3, (1, 1, float("nan")), "std is"),
        ((1e30,) * 3, (1,) * 3, "mean is"),
        ((float("nan"),) * 3, (1,) * 3, "mean is"),
    ],
)
def test_scalings_that_no_network_could_bear_are_refused(mean, std, words):
    with pytest.raises(InputError, match=words):
        check_scaling(mean, std)
