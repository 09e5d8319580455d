"""The 29 data sets of the field's studies: VTAB-1K (19), FGVC (5), and five in full.

What is known about each, and where it is looked for below the data folder (``APTHEORY_DATA``, or
``~/.cache/aptheory/data``):

    NAME/            the VTAB-1K folder layout, FGVC's JSON splits, or an image folder
    NAME.zip, NAME.npz
    BUILDER[/CONFIG]/VERSION, also below tfds/: a prepared TensorFlow Datasets folder
    torchvision's own folders, for the data sets that torchvision has
"""

from dataclasses import dataclass
from typing import Any

SEE = "see the source"


@dataclass(frozen=True)
class DataSet:
    """One data set. ``sizes`` are those of the splits in full (train, val, test); ``slices`` are
    the tfds slices that VTAB-1K takes as train800, val200 and test."""

    name: str
    suite: str  # "VTAB-1K", "FGVC" or "full"
    group: str
    classes: int
    sizes: tuple[int, int, int]
    source: str
    label: str = "class as recorded"
    rule: str = "label"
    licence: str = SEE
    aliases: tuple[str, ...] = ()
    builder: str = ""  # tfds NAME[/CONFIG]/VERSION
    slices: tuple[str, str, str] = ("", "", "")
    torchvision: str = ""

    @property
    def used(self) -> tuple[int, int, int]:
        """Images that the task has: train, val, test."""
        return (800, 200, self.sizes[2]) if self.suite == "VTAB-1K" else self.sizes

    @property
    def preprocessing(self) -> str:
        """What happens to an image before the network's own normalisation."""
        if self.suite == "FGVC":
            return "resize to 256/224 of the input side, centre crop"
        return "resize without keeping the aspect ratio, bilinear, antialiased; no crop, no flip"


_VAL = ("train[:800]", "validation[:200]", "test")


def _vtab(
    name: str,
    group: str,
    classes: int,
    builder: str,
    sizes: tuple[int, int, int],
    slices: tuple[str, str, str],
    source: str,
    **more: Any,
) -> DataSet:
    return DataSet(
        name=name,
        suite="VTAB-1K",
        group=group,
        classes=classes,
        builder=builder,
        sizes=sizes,
        slices=slices,
        source=source,
        **more,
    )


_CLEVR = ((63000, 7000, 15000), ("train[:800]", "train[63000:63200]", "validation"))
_DSPRITES = (
    (589824, 73728, 73728),
    ("train[:800]", "train[589824:590024]", "train[663552:]"),
)
_SMALLNORB = ((24300, 12150, 12150), ("train[:800]", "test[:200]", "test[50%:]"))
_CLEVR_SOURCE = "CLEVR v1.0, Stanford University and Facebook AI Research"
_DSPRITES_SOURCE = "dSprites, DeepMind"
_NORB_SOURCE = "small NORB, New York University"

_VTAB = (
    _vtab(
        "cifar100",
        "natural",
        100,
        "cifar100/3.0.2",
        (45000, 5000, 10000),
        ("train[:800]", "train[45000:45200]", "test"),
        "CIFAR-100, University of Toronto",
        aliases=("cifar", "cifar_100"),
    ),
    _vtab(
        "caltech101",
        "natural",
        102,
        "caltech101/3.0.1",
        (2754, 306, 6084),
        ("train[:800]", "train[2754:2954]", "test"),
        "Caltech 101, California Institute of Technology",
    ),
    _vtab(
        "dtd",
        "natural",
        47,
        "dtd/3.0.1",
        (1880, 1880, 1880),
        _VAL,
        "Describable Textures Dataset, University of Oxford",
    ),
    _vtab(
        "oxford_flowers102",
        "natural",
        102,
        "oxford_flowers102/2.1.1",
        (1020, 1020, 6149),
        _VAL,
        "102 Category Flower Dataset, University of Oxford",
        aliases=("flowers102",),
    ),
    _vtab(
        "oxford_iiit_pet",
        "natural",
        37,
        "oxford_iiit_pet/3.2.0",
        (2944, 736, 3669),
        ("train[:800]", "train[2944:3144]", "test"),
        "Oxford-IIIT Pet Dataset, University of Oxford",
        licence="CC BY-SA 4.0",
        aliases=("pets",),
    ),
    _vtab(
        "svhn",
        "natural",
        10,
        "svhn_cropped/3.0.0",
        (65931, 7326, 26032),
        ("train[:800]", "train[65931:66131]", "test"),
        "Street View House Numbers, Stanford University",
        licence="non-commercial use only",
    ),
    _vtab(
        "sun397",
        "natural",
        397,
        "sun397/tfds/4.0.0",
        (76128, 10875, 21750),
        _VAL,
        "SUN397, Princeton University",
    ),
    _vtab(
        "patch_camelyon",
        "specialized",
        2,
        "patch_camelyon/2.0.0",
        (262144, 32768, 32768),
        _VAL,
        "PatchCamelyon (PCam)",
        licence="CC0",
    ),
    _vtab(
        "eurosat",
        "specialized",
        10,
        "eurosat/rgb/2.0.0",
        (16200, 5400, 5400),
        ("train[:800]", "train[16200:16400]", "train[21600:]"),
        "EuroSAT (RGB), DFKI",
    ),
    _vtab(
        "resisc45",
        "specialized",
        45,
        "resisc45/3.0.0",
        (18900, 6300, 6300),
        ("train[:800]", "train[18900:19100]", "train[25200:]"),
        "NWPU-RESISC45, Northwestern Polytechnical University (by hand)",
    ),
    _vtab(
        "diabetic_retinopathy",
        "specialized",
        5,
        "diabetic_retinopathy_detection/btgraham-300/3.0.0",
        (35126, 10906, 42670),
        _VAL,
        "Kaggle Diabetic Retinopathy Detection (by hand, after accepting its rules)",
    ),
    _vtab(
        "clevr_count",
        "structured",
        8,
        "clevr/3.1.0",
        *_CLEVR,
        _CLEVR_SOURCE,
        label="number of objects minus 3",
        rule="clevr_count",
        licence="CC BY 4.0",
    ),
    _vtab(
        "clevr_distance",
        "structured",
        6,
        "clevr/3.1.0",
        *_CLEVR,
        _CLEVR_SOURCE,
        label="depth of the nearest object, borders 0, 8, 8.5, 9, 9.5, 10, 100",
        rule="clevr_distance",
        licence="CC BY 4.0",
        aliases=("clevr_dist",),
    ),
    _vtab(
        "dmlab",
        "structured",
        6,
        "dmlab/2.0.1",
        (65550, 22628, 22735),
        _VAL,
        "DMLab frames of the VTAB authors, Google Research",
    ),
    _vtab(
        "kitti_distance",
        "structured",
        4,
        "kitti/3.2.0",
        (6347, 423, 711),
        _VAL,
        "KITTI object detection, Karlsruhe Institute of Technology",
        label="depth of the nearest vehicle in metres, borders -100, 8, 20, 999; none: class 3",
        rule="kitti_distance",
        licence="CC BY-NC-SA 3.0",
        aliases=("kitti", "kitti_dist"),
    ),
    _vtab(
        "dsprites_location",
        "structured",
        16,
        "dsprites/2.0.0",
        *_DSPRITES,
        _DSPRITES_SOURCE,
        label="horizontal position (32 values) in 16 bins",
        rule="dsprites_location",
        licence="Apache-2.0",
        aliases=("dsprites_loc",),
    ),
    _vtab(
        "dsprites_orientation",
        "structured",
        16,
        "dsprites/2.0.0",
        *_DSPRITES,
        _DSPRITES_SOURCE,
        label="orientation (40 values) in 16 bins",
        rule="dsprites_orientation",
        licence="Apache-2.0",
        aliases=("dsprites_ori",),
    ),
    _vtab(
        "smallnorb_azimuth",
        "structured",
        18,
        "smallnorb/2.0.0",
        *_SMALLNORB,
        _NORB_SOURCE,
        label="azimuth as recorded",
        rule="smallnorb_azimuth",
        aliases=("smallnorb_azi",),
    ),
    _vtab(
        "smallnorb_elevation",
        "structured",
        9,
        "smallnorb/2.0.0",
        *_SMALLNORB,
        _NORB_SOURCE,
        label="elevation as recorded",
        rule="smallnorb_elevation",
        aliases=("smallnorb_ele",),
    ),
)

_FGVC = (
    DataSet(
        "cub200",
        "FGVC",
        "fine-grained",
        200,
        (5394, 600, 5794),
        "CUB-200-2011, California Institute of Technology",
        aliases=("CUB_200_2011", "cub"),
    ),
    DataSet(
        "nabirds",
        "FGVC",
        "fine-grained",
        555,
        (21536, 2393, 24633),
        "NABirds, Cornell Lab of Ornithology",
    ),
    DataSet(
        "oxford_flowers",
        "FGVC",
        "fine-grained",
        102,
        (1020, 1020, 6149),
        "102 Category Flower Dataset, University of Oxford",
        aliases=("OxfordFlower", "OxfordFlowers"),
    ),
    DataSet(
        "stanford_dogs",
        "FGVC",
        "fine-grained",
        120,
        (10800, 1200, 8580),
        "Stanford Dogs, Stanford University",
        aliases=("StanfordDogs", "Stanford-dogs"),
    ),
    DataSet(
        "stanford_cars",
        "FGVC",
        "fine-grained",
        196,
        (7329, 815, 8041),
        "Stanford Cars, Stanford University",
        aliases=("StanfordCars", "Stanford-cars"),
    ),
)

# Validation: the published fifth of the official training images.
_FULL = (
    DataSet(
        "cifar10",
        "full",
        "natural",
        10,
        (40000, 10000, 10000),
        "CIFAR-10, University of Toronto",
        torchvision="CIFAR10",
    ),
    DataSet(
        "gtsrb",
        "full",
        "natural",
        43,
        (21312, 5328, 12630),
        "German Traffic Sign Recognition Benchmark, Ruhr-Universität Bochum",
        torchvision="GTSRB",
    ),
    DataSet(
        "food101",
        "full",
        "natural",
        101,
        (60600, 15150, 25250),
        "Food-101, ETH Zürich",
        torchvision="Food101",
    ),
    DataSet(
        "ucf101",
        "full",
        "natural",
        101,
        (6111, 1528, 3783),
        "UCF101, University of Central Florida: the middle frame of each video (by hand)",
    ),
    DataSet(
        "svhn_full",
        "full",
        "natural",
        10,
        (58606, 14651, 26032),
        "Street View House Numbers, Stanford University",
        licence="non-commercial use only",
        torchvision="SVHN",
    ),
)

REGISTRY = {entry.name: entry for entry in (*_VTAB, *_FGVC, *_FULL)}
#: VTAB's three groups and their tasks, in the customary order.
VTAB_GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(entry.name for entry in _VTAB if entry.group == group)
    for group in ("natural", "specialized", "structured")
}
VTAB_NAMES = frozenset(name for entry in _VTAB for name in (entry.name, *entry.aliases))
