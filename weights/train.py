"""Train a network of the zoo again: ``python -m weights.train aptheory_vit_mini``.

Every image is drawn for its step and seen once. All questions are answered from the network's own
features, by the packaged classifier for the main one and by linear heads, dropped afterwards, for
the rest. A checkpoint after every epoch lets a run that was stopped go on; the weights that are
exported are an exponential mean over the last steps.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from aptheory.errors import InputError
from aptheory.networks.zoo.models import MEAN, STD, weights_file
from weights.shapes import SHAPES
from weights.upstream import NO_ANSWER, QUESTIONS, Images, generate

#: Seeds of images that training never sees; each split of every run is the same.
HELD_OUT_SEED = {"val": 1 << 60, "test": 1 << 61}
#: What a question counts for in the loss; the others are easier and quickly answered.
_WEIGHT = {"main": 1.0, "shape": 1.0, "texture": 0.7}
_OTHER_WEIGHT = 0.3


@dataclass(frozen=True)
class Training:
    """How one network is trained. An epoch is ``epoch_images`` new images."""

    epochs: int
    lr: float
    weight_decay: float = 0.05
    batch_size: int = 64
    epoch_images: int = 10_240
    warmup_epochs: float = 1.0
    clutter_epochs: float = 0.3  # share of the run after which the images are fully cluttered
    places: float = 1.5  # weight of the question which figure lies at each place
    average: float = 0.998  # decay a step of the exponential mean of the weights
    seed: int = 0


TRAININGS = {
    "aptheory_vit_mini": Training(epochs=60, lr=1e-3),
    "aptheory_resnet_mini": Training(epochs=18, lr=2e-3, places=0.0),
    "aptheory_vit_gap_mini": Training(epochs=24, lr=1e-3),
    "aptheory_resnet_deep_mini": Training(epochs=10, lr=2e-3),
}


class Answers(nn.Module):
    """A network and one linear head for each question beside the main one.

    In training there is one more: which figure lies at each place of the last map or of the patch
    tokens? It has 64 answers an image, which a ViT, that has to learn what a neighbourhood is,
    needs most.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        network: Any = timm.create_model(name)
        if hasattr(network, "pos_embed"):
            know_positions(network)
        self.network: Any = network
        self.heads = nn.ModuleDict(
            {
                question: nn.Linear(network.num_features, answers)
                for question, answers in QUESTIONS.items()
                if question != "main"
            }
        )
        self.places = nn.Linear(network.num_features, len(SHAPES) + 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of every question, and (batch, figures + 1, rows, columns) of ``places``."""
        features = self.network.forward_features(x)
        main = self.network.forward_head(features)
        pooled = self.network.forward_head(features, pre_logits=True)
        if features.ndim == 3:
            patches = features[:, self.network.num_prefix_tokens :]
            grid = patches.unflatten(1, self.network.patch_embed.grid_size)
        else:
            grid = features.permute(0, 2, 3, 1)
        logits = {name: head(pooled) for name, head in self.heads.items()}
        return {"main": main, "places": self.places(grid).permute(0, 3, 1, 2)} | logits


@torch.no_grad()
def know_positions(vit: Any) -> None:
    """Start a ViT's learned positions from sines and cosines instead of almost nothing.

    timm starts them at a fiftieth of the patches' own size. From there 150,000 images were not
    enough for our ViT to tell where a figure lies (14 % on nine cells, chance is 11 %). Periods
    run from 6 to 120 patches, because the grid is 8 patches wide, not the 1,000 words of a text.
    """
    grid = vit.patch_embed.grid_size
    waves = build_sincos2d_pos_embed(list(grid), dim=vit.embed_dim, temperature=20.0)
    vit.pos_embed[0, -len(waves) :] = waves


def normalise(pixels: Tensor, device: torch.device) -> Tensor:
    """Pixels from 0 to 255 as the packaged networks expect them."""
    mean = torch.tensor(MEAN, device=device)[:, None, None]
    std = torch.tensor(STD, device=device)[:, None, None]
    return (pixels.to(device).float() / 255 - mean) / std


def _batches(training: Training, epoch: int) -> Iterator[Images]:
    """The batches of one epoch; generated 512 images at a time, which is the fastest."""
    drawn_together = max(512 // training.batch_size, 1) * training.batch_size
    drawn_together = min(drawn_together, training.epoch_images)
    draws = training.epoch_images // drawn_together
    for draw in range(draws):
        done = (epoch + draw / draws) / (training.clutter_epochs * training.epochs)
        number = epoch * draws + draw
        images = generate(
            drawn_together, (training.seed << 40) + number, clutter=min(0.2 + 0.8 * done, 1.0)
        )
        for start in range(0, drawn_together, training.batch_size):
            yield images.part(start, start + training.batch_size)


def loss_of(logits: dict[str, Tensor], images: Images, places: float) -> Tensor:
    """The weighted sum of the questions' cross entropies, images without an answer left out.

    ``places`` is the weight of the question asked at every place; 0 leaves it out.
    """
    weights = _WEIGHT | {"places": places}
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for name, logit in logits.items():
        weight = weights.get(name, _OTHER_WEIGHT)
        if weight == 0:
            continue
        if name == "places":
            rows, columns = logit.shape[-2:]
            label = images.where((rows, columns)).to(logit.device)
        else:
            label = images.answers[name].to(logit.device)
        # The sum over the answered divided by all, so that an empty batch gives 0, not NaN.
        one = (
            nn.functional.cross_entropy(
                logit.float(), label, ignore_index=NO_ANSWER, reduction="sum"
            )
            / label.numel()
        )
        total = total + weight * one
    return total


@torch.no_grad()
def accuracies(model: nn.Module, split: str, count: int, device: torch.device) -> dict[str, float]:
    """Share of right answers per question on held-out images, fully cluttered."""
    model.eval()
    right = dict.fromkeys(QUESTIONS, 0)
    asked = dict.fromkeys(QUESTIONS, 0)
    for number in range(math.ceil(count / 512)):
        images = generate(512, HELD_OUT_SEED[split] + number)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(normalise(images.pixels, device))
        for name in QUESTIONS:
            label = images.answers[name].to(device)
            right[name] += int((logits[name].argmax(1) == label).sum())
            asked[name] += int((label != NO_ANSWER).sum())
    return {name: right[name] / asked[name] for name in QUESTIONS}


def _running_mean(decay: float) -> Callable[[Any, Any, Any], None]:
    """The update of an exponential mean whose memory starts short, so that it forgets the start."""

    @torch.no_grad()
    def update(mean: Any, current: Any, updates: Any) -> None:
        now = min(decay, (1 + float(updates)) / (10 + float(updates)))
        for kept, new in zip(mean, current, strict=True):
            if kept.is_floating_point():
                kept.lerp_(new.to(kept.dtype), 1 - now)
            else:
                kept.copy_(new)

    return update


def export(network: nn.Module, path: Path, facts: dict[str, str]) -> None:
    """Write the weights: matrices and kernels in half precision, all else in single precision.

    Norms' parameters and running moments are few, and half precision would hurt them.
    """
    state = {
        key: (value.half() if value.is_floating_point() and value.ndim > 1 else value)
        .cpu()
        .contiguous()
        for key, value in network.state_dict().items()
    }
    beside = path.with_suffix(".part")
    save_file(state, beside, metadata=facts)
    beside.chmod(0o644)  # safetensors writes for the owner alone
    beside.replace(path)


def train(
    name: str,
    training: Training,
    *,
    folder: Path,
    device: torch.device,
    out: Path | None = None,
) -> dict[str, float]:
    """Train ``name`` and write its weights to ``out`` (the packaged file where None).

    ``folder`` receives a checkpoint and a line of ``log.jsonl`` after every epoch, and
    ``mean.safetensors``, the weights so far. Returns the test accuracy of every question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(training.seed)
    model = Answers(name).to(device)
    if device.type == "cpu":
        # torch's fused attention has a slow backward pass on CPU: half the images a second.
        attention: Any
        for attention in model.modules():
            if hasattr(attention, "fused_attn"):
                attention.fused_attn = False
    layout = torch.channels_last if "vit" not in name else torch.contiguous_format
    model = model.to(memory_format=layout)
    groups: list[dict[str, Any]] = [
        # Biases and norms are not decayed.
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        {"params": [p for p in model.parameters() if p.ndim > 1]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=training.lr, weight_decay=training.weight_decay)
    mean: Any = AveragedModel(model, multi_avg_fn=_running_mean(training.average), use_buffers=True)
    steps_an_epoch = training.epoch_images // training.batch_size
    total, warm = training.epochs * steps_an_epoch, training.warmup_epochs * steps_an_epoch

    def factor(step: int) -> float:
        done = max(step - warm, 0) / max(total - warm, 1)
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    checkpoint, first, seconds = folder / "checkpoint.pt", 0, 0.0
    parts: dict[str, Any] = {
        "model": model,
        "mean": mean,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if saved["training"] != asdict(training):
            raise InputError(
                f"{checkpoint} belongs to another recipe; delete it or choose another --folder"
            )
        for key, part in parts.items():
            part.load_state_dict(saved[key])
        first, seconds = saved["epoch"], saved["seconds"]

    with tqdm(total=total, initial=first * steps_an_epoch, unit="step", desc=name) as bar:
        for epoch in range(first, training.epochs):
            began = time.monotonic()
            model.train()
            for images in _batches(training, epoch):
                x = normalise(images.pixels, device).contiguous(memory_format=layout)
                with torch.autocast(device.type, torch.bfloat16):
                    logits = model(x)
                loss = loss_of(logits, images, training.places)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                mean.update_parameters(model)
                bar.update()
            seconds += time.monotonic() - began
            found = accuracies(mean.module, "val", 512, device)
            bar.set_postfix(loss=loss.item(), main=found["main"], shape=found["shape"])
            line = {"epoch": epoch + 1, "seconds": seconds, "loss": loss.item()} | found
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            export(mean.module.network, folder / "mean.safetensors", {"epoch": str(epoch + 1)})
            state = {key: part.state_dict() for key, part in parts.items()}
            state |= {"epoch": epoch + 1, "seconds": seconds, "training": asdict(training)}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)

    found = accuracies(mean.module, "test", 8192, device)
    facts = asdict(training) | {"seconds": round(seconds), "device": device.type} | found
    (folder / "result.json").write_text(json.dumps(facts, indent=1))
    export(
        mean.module.network,
        out or weights_file(name),
        {key: str(value) for key, value in facts.items()},
    )
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(TRAININGS))
    parser.add_argument("--epochs", type=int, help="of 10,240 new images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="for checkpoints; runs/zoo/NAME by default")
    parser.add_argument(
        "--out", type=Path, help="where the weights go; into the package by default"
    )
    given = parser.parse_args()
    training = TRAININGS[given.name]
    training = Training(
        **(
            asdict(training)
            | {"seed": given.seed}
            | ({"epochs": given.epochs} if given.epochs else {})
        )
    )
    found = train(
        given.name,
        training,
        folder=given.folder or Path("runs/zoo") / given.name,
        device=torch.device(given.device),
        out=given.out,
    )
    for name, share in found.items():
        print(f"{name:8} {share:.3f}")


if __name__ == "__main__":
    main()
