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

from aptheory.explore import explore
from aptheory.study import Study

QUICK = {"base": "quick", "name": "quick20", "epochs": 20}


def studies(assets: Path) -> dict[str, Study]:
    """Every study of this question by its name."""
    vit = {
        "name": "vit_tiny_patch16_224",
        "weights": str(assets / "vit_tiny_patch16_224.safetensors"),
    }
    mobile = {
        "name": "mobilenetv2_035",
        "weights": str(assets / "mobilenetv2_035.safetensors"),
        "options": {"pad_type": "same", "bn_eps": 0.001, "num_classes": 0},
    }
    resnet = {
        "factory": "analyses.cifar_resnet:resnet56",
        "weights": str(assets / "cifar10_resnet56.safetensors"),
        "input_shape": [3, 32, 32],
    }
    signs = f"npz:{assets / 'gtsrb32.npz'}"
    textures = f"folder:{assets / 'dtd10.zip'}"
    large = {"seeds": (0, 1, 2), "recipes": [{**QUICK, "precision": "bfloat16", "epochs": 12}]}
    return {
        "resnet56-gtsrb32": Study(
            name="resnet56-gtsrb32",
            networks=[resnet],
            tasks=[{"name": signs, "train": 1290, "val": 430, "test": 1290}],
            layers=[0, 1, 5, 10, 14, 17, 19, 22, 25, 27, 28, 29],
            recipes=[QUICK],
        ),
        "vit-gtsrb32": Study(
            name="vit-gtsrb32",
            networks=[vit],
            tasks=[{"name": signs, "train": 645, "val": 215, "test": 645}],
            layers=[0, 1, 3, 5, 7, 9, 11, 13, 14],
            **large,
        ),
        "vit-dtd10": Study(
            name="vit-dtd10",
            networks=[vit],
            tasks=[{"name": textures, "train": 300, "val": 100, "test": 400}],
            layers=[0, 1, 3, 5, 7, 9, 11, 13, 14],
            **large,
        ),
        "mobilenet-gtsrb32": Study(
            name="mobilenet-gtsrb32",
            networks=[mobile],
            tasks=[{"name": signs, "train": 645, "val": 215, "test": 645}],
            layers=[0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0],
            **large,
        ),
        "mobilenet-dtd10": Study(
            name="mobilenet-dtd10",
            networks=[mobile],
            tasks=[{"name": textures, "train": 300, "val": 100, "test": 400}],
            layers=[0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0],
            **large,
        ),
    }


def main() -> None:
    """Run the studies that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--only", action="append")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    chosen = parser.parse_args()
    if chosen.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    for name, study in studies(chosen.assets).items():
        if chosen.only is None or name in chosen.only:
            page = explore(study, chosen.out / name, images=256)
            print(f"{name}: {page}")


if __name__ == "__main__":
    main()
