"""The main job on real pretrained weights and real photographs.

Question: where does a prompt help most on an ImageNet ViT-Tiny, an ImageNet MobileNetV2-0.35 and
a CIFAR-10 ResNet-56, moved to traffic signs (GTSRB) and textures (DTD)? The weights and images
stand in a folder that is not part of this repository:

    python -m analyses.real_weights --assets DIR [--only NAME] [--out runs/real]

Where a full sweep would take hours on two cores, a seeded, class-balanced subset of images and a
subset of layers is used; both stand in the study and so in the page.
"""

import argparse
import os
from pathlib import Path

from aptheory.exploration import explore
from aptheory.studies.study import Study


def vit_tiny(assets: Path) -> dict:
    """ViT-Tiny, pretrained on ImageNet."""
    return {
        "name": "vit_tiny_patch16_224",
        "weights": str(assets / "vit_tiny_patch16_224.safetensors"),
    }


def resnet56(assets: Path) -> dict:
    """The CIFAR ResNet-56, which timm does not have, pretrained on CIFAR-10."""
    return {
        "factory": "analyses.cifar_resnet:resnet56",
        "weights": str(assets / "cifar10_resnet56.safetensors"),
        "input_shape": [3, 32, 32],
    }


def studies(assets: Path) -> dict[str, Study]:
    """Every study of this question by its name."""
    mobile = {
        "name": "mobilenetv2_035",
        "weights": str(assets / "mobilenetv2_035.safetensors"),
        "options": {"pad_type": "same", "bn_eps": 0.001, "num_classes": 0},
    }
    signs = f"npz:{assets / 'gtsrb32.npz'}"
    textures = f"folder:{assets / 'dtd10.zip'}"
    signs_some = {"name": signs, "train": 215, "val": 129, "test": 430}
    textures_some = {"name": textures, "train": 200, "val": 100, "test": 300}
    vit_places = [0, 2, 4, 7, 10, 13, 14]
    mobile_places = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]

    def study(name: str, network: dict, task: dict, layers: list, epochs: int) -> Study:
        # Half precision: on two cores the sweep would otherwise take a day.
        recipe = {"base": "quick", "name": "quick", "epochs": epochs, "precision": "bfloat16"}
        return Study(name=name, networks=[network], tasks=[task], layers=layers, recipes=[recipe])

    return {
        "resnet56-gtsrb32": study(
            "resnet56-gtsrb32",
            resnet56(assets),
            {"name": signs, "train": 860, "val": 430, "test": 860},
            [0, 5, 10, 14, 19, 22, 25, 27, 28, 29],
            6,
        ),
        "vit-gtsrb32": study("vit-gtsrb32", vit_tiny(assets), signs_some, vit_places, 6),
        "vit-dtd10": study("vit-dtd10", vit_tiny(assets), textures_some, vit_places, 6),
        "mobilenet-dtd10": study("mobilenet-dtd10", mobile, textures_some, mobile_places, 6),
        "mobilenet-gtsrb32": study("mobilenet-gtsrb32", mobile, signs_some, mobile_places, 6),
    }


def main() -> None:
    """Run the studies that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--only", action="append")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    chosen = parser.parse_args()
    if chosen.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    for name, study in studies(chosen.assets).items():
        if chosen.only is None or name in chosen.only:
            page = explore(study, chosen.out / name, images=256, workers=chosen.workers)
            print(f"{name}: {page}")


if __name__ == "__main__":
    main()
