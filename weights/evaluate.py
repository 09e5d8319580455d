"""What the packaged weights are worth: ``python -m weights.evaluate``.

Two questions. How well does the packaged classifier answer on held-out generated images? And do
the features transfer to real images that look different: handwritten digits, by a linear probe,
beside the same network with random weights and beside the pixels themselves?
"""

import argparse
import math
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from aptheory.networks.zoo import names
from weights.shapes import SHAPES
from weights.textures import TEXTURES
from weights.train import HELD_OUT_SEED, normalise
from weights.upstream import generate

_CPU = torch.device("cpu")


@torch.no_grad()
def upstream_accuracy(network: nn.Module, count: int = 4096) -> dict[str, float]:
    """Accuracy of the packaged classifier on ``count`` held-out generated images.

    ``shape`` and ``texture`` are read from the same 384 outputs: the probabilities of one figure
    on every texture are added, and the other way round.
    """
    right = dict.fromkeys(("main", "shape", "texture"), 0)
    draws = math.ceil(count / 512)
    for number in range(draws):
        images = generate(512, HELD_OUT_SEED["test"] + number)
        joint = network(normalise(images.pixels, _CPU)).float().softmax(1)
        table = joint.unflatten(1, (len(SHAPES), len(TEXTURES)))
        said = {"main": joint, "shape": table.sum(2), "texture": table.sum(1)}
        for name, share in said.items():
            right[name] += int((share.argmax(1) == images.answers[name]).sum())
    return {name: hits / (draws * 512) for name, hits in right.items()}


def digits() -> tuple[Float[Tensor, "images 3 32 32"], NDArray[np.int64]]:
    """scikit-learn's 1,797 handwritten digits, 8×8 grey, enlarged and normalised for the zoo."""
    data = load_digits()
    small = torch.from_numpy(data.images).float()[:, None] * (255 / 16)
    large = F.interpolate(small, size=(32, 32), mode="bilinear", antialias=True)
    return normalise(large.expand(-1, 3, -1, -1), _CPU), data.target


@torch.no_grad()
def features(network: Any, images: Tensor) -> NDArray[np.float32]:
    """What enters a timm model's classifier, for each image: (images, width)."""
    parts = [
        network.forward_head(network.forward_features(part), pre_logits=True)
        for part in images.split(256)
    ]
    return torch.cat(parts).numpy()


def probe(x: NDArray, y: NDArray, *, train: int, seeds: int = 5) -> tuple[float, float]:
    """Test accuracy of logistic regression on ``train`` images: mean and deviation over splits.

    Features are standardised; the penalty is fixed (C = 0.1), not chosen on anything. The test
    set is 797 images, balanced as the data are.
    """
    scores = []
    for seed in range(seeds):
        x_rest, x_test, y_rest, y_test = train_test_split(
            x, y, test_size=797, stratify=y, random_state=seed
        )
        x_train, _, y_train, _ = (
            (x_rest, None, y_rest, None)
            if train == len(x_rest)
            else train_test_split(
                x_rest, y_rest, train_size=train, stratify=y_rest, random_state=seed
            )
        )
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        scores.append(model.fit(x_train, y_train).score(x_test, y_test))
    return float(np.mean(scores)), float(np.std(scores, ddof=1))


def transfer(name: str, sizes: tuple[int, ...] = (100, 1000)) -> pd.DataFrame:
    """The digits probe on the network's features, with its weights and with random ones."""
    images, labels = digits()
    rows = []
    for weights in ("pretrained", "random"):
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=weights == "pretrained").eval()
        x = features(network, images)
        for size in sizes:
            mean, deviation = probe(x, labels, train=size)
            rows.append((name, weights, size, mean, deviation))
    return pd.DataFrame(rows, columns=["network", "features", "train", "accuracy", "deviation"])


def pixels(sizes: tuple[int, ...] = (100, 1000)) -> pd.DataFrame:
    """The same probe on the 64 original pixels of each digit."""
    data = load_digits()
    rows = [("", "pixels", size, *probe(data.data, data.target, train=size)) for size in sizes]
    return pd.DataFrame(rows, columns=["network", "features", "train", "accuracy", "deviation"])


def main() -> None:
    """The command line: every packaged network, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=names())
    given = parser.parse_args()
    tables = [pixels()]
    for name in given.names:
        network = timm.create_model(name, pretrained=True).eval()
        found = upstream_accuracy(network)
        print(name, "  ".join(f"{key} {share:.3f}" for key, share in found.items()))
        tables.append(transfer(name))
    print(pd.concat(tables).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
