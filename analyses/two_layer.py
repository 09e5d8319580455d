"""Floor and rate of prompts in two-layer networks, in the settings where the theorem can show.

A frozen network, a prompt at one of two places, and the error on 1,000 test samples against the
number N of training samples; the last N is so large that it stands for N → ∞. Six questions, each a
set of `Setting`s: the floor and the rate by number of tokens P and of discriminative ones; kinds of
attention and trained networks with the global layer first, second, both or neither; the ranges of
both layers as a continuous dial; how strongly the head listens to the nuisance; the discriminative
fraction at fixed P; and convolutions.

    python -m analyses.two_layer                              # a quarter of an hour
    python -m analyses.two_layer --form middle --only "floor and rate"    # under an hour
    python -m analyses.two_layer --form full --device cuda    # two hours

Each form has a folder of its own (two_layer, two_layer_middle, two_layer_full). Writes
two_layer.csv: a row a setting, place and repetition; column nN holds the number of wrong
test samples at N. It resumes, ``--minutes`` ends it in good order, and ``--only`` and ``--model``
limit it to some of the questions and models. `two_layer_findings` says what the table means.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from analyses.theory_output import part
from aptheory.theory.patterns import Patterns, head_weights
from aptheory.theory.prompt_learning import FrozenNetwork, Learning, learn, with_best_rate
from aptheory.theory.trained_vit import TrainedViT, pretrain
from aptheory.theory.two_layer_cnn import TwoLayerCNN
from aptheory.theory.two_layer_vit import TwoLayerViT

NAME = "two_layer"
TEST_SAMPLES = 1000
MODELS = ("softmax, linear", "softmax, ReLU", "hard, ReLU", "hard, linear")


@dataclass(frozen=True)
class Setting:
    """One frozen network and the prompt that it gets.

    model : "softmax, linear" and the like, "trained", or "cnn".
    discriminative : tokens of P that carry the label.
    range_1, range_2 : of the two layers' attention; of a CNN, the widths of its kernels.
    listening : strength of the head's weights on the nuisance (`patterns.head_weights`).
    network : number of the trained network; of a CNN, its stride.
    """

    question: str
    model: str
    prompt: str
    tokens: int
    discriminative: int
    range_1: float
    range_2: float
    listening: float = 1.5
    network: int = 0

    def data(self) -> Patterns:
        return Patterns(self.tokens, fraction=self.discriminative / self.tokens)

    def build(self) -> FrozenNetwork:
        """The frozen network."""
        data, ranges = self.data(), (self.range_1, self.range_2)
        head = head_weights(data, nuisance=self.listening)
        if self.model == "cnn":
            kernels = (int(self.range_1), int(self.range_2))
            return TwoLayerCNN(head, self.tokens, kernels, stride=self.network)
        if self.model == "trained":
            return replace(_pretrained(data, ranges, self.network), head=head)
        attention, activation = self.model.lower().split(", ")
        return TwoLayerViT(
            head,
            self.tokens,
            ranges,
            attention=attention,
            activation=activation,  # type: ignore[arg-type]
        )

    def words(self) -> str:
        """What is measured, whatever the question, as a file's name."""
        values = list(asdict(self).values())[1:]
        return "_".join(
            f"{v:g}" if isinstance(v, float | int) else v.replace(", ", "-") for v in values
        )


@lru_cache(maxsize=16)
def _pretrained(data: Patterns, ranges: tuple[float, float], seed: int) -> TrainedViT:
    return pretrain(data, ranges, seed=seed)


@dataclass(frozen=True)
class Form:
    """How much is run: the short and the middle form on a processor, the full one on a GPU."""

    tokens: tuple[int, ...]
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    repetitions: int
    steps: int
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    wide: int  # tokens of the questions that hold P fixed
    local: float  # range of the layer that attends locally
    fractions_at: tuple[int, ...]  # tokens at which the discriminative fraction is swept
    ranges: tuple[float, ...]
    listening: tuple[float, ...]
    trained: int
    widths: tuple[int, ...]


SHORT = Form(
    tokens=(8, 16, 32),
    sizes=(2, 4, 8, 16, 64, 4096),
    rates=(0.0125, 0.04, 0.125),
    repetitions=4,
    steps=200,
    models=("softmax, linear", "hard, ReLU"),
    prompts=("shared",),
    wide=16,
    local=1.0,
    fractions_at=(16,),
    ranges=(1, 2, 4, 8),
    listening=(0.75, 1.5, 3.0),
    trained=1,
    widths=(3, 7),
)
MIDDLE = replace(
    SHORT,
    sizes=(2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 4096),
    rates=(0.0125, 0.04, 0.125, 0.4),
    repetitions=8,
    models=MODELS,
    prompts=("shared", "token"),
)
FULL = Form(
    tokens=(8, 12, 16, 24, 32, 48, 64),
    sizes=(2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 16384),
    rates=(0.004, 0.0125, 0.04, 0.125, 0.4),
    repetitions=16,
    steps=600,
    models=MODELS,
    prompts=("shared", "token"),
    wide=32,
    local=2.0,
    fractions_at=(32, 64),
    ranges=(1, 1.5, 2.5, 4, 6, 10, 16),
    listening=(0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0),
    trained=4,
    widths=(3, 7, 15),
)
FORMS = {"full": FULL, "middle": MIDDLE, "short": SHORT}
"""The more repetitions the earlier: an earlier form's rows count before a later one's."""


def folder(form: str) -> str:
    """The name of a form's folder."""
    return NAME if form == "short" else f"{NAME}_{form}"


def settings(form: Form) -> Iterator[Setting]:
    """Every setting of a form, the theorem's own first."""
    for model in form.models:
        for prompt in form.prompts:
            for tokens in form.tokens:
                for count in sorted({1, 2, tokens // 4}):
                    yield Setting(
                        "floor and rate", model, prompt, tokens, count, tokens // 2, form.local
                    )
    wide, far, local = form.wide, float(form.wide // 2), form.local
    decisive = Setting("ranges", "softmax, linear", "shared", wide, 1, far, local)
    for first in form.ranges:
        for second in form.ranges:
            yield replace(decisive, range_1=first, range_2=second)
    for listening in form.listening:
        for ranges in ((far, local), (local, far)):
            yield replace(
                decisive, question="listening", listening=listening,
                range_1=ranges[0], range_2=ranges[1],
            )  # fmt: skip
    for tokens in form.fractions_at:
        for count in (count for count in (1, 2, 3, 4, 6, 8, 12, 16) if 2 * count <= tokens):
            yield replace(
                decisive, question="fraction", tokens=tokens, discriminative=count,
                range_1=float(tokens // 2),
            )  # fmt: skip
    for prompt in form.prompts:
        for first, second in ((far, local), (local, far), (far, far), (local, local)):
            kind = replace(decisive, question="kinds", prompt=prompt, range_1=first, range_2=second)
            for model in ("softmax, linear", "softmax, ReLU", "hard, ReLU", "even, ReLU"):
                yield replace(kind, model=model)
            for network in range(form.trained if first != second else 0):
                yield replace(kind, model="trained", network=network)
        for stride in (1, 2):
            for first in form.widths:
                for second in form.widths:
                    yield replace(
                        decisive, question="cnn", model="cnn", prompt=prompt, network=stride,
                        range_1=first, range_2=second,
                    )  # fmt: skip


def measure(setting: Setting, form: Form, device: str) -> pd.DataFrame:
    """A row a place and repetition: how the learned prompts err, at every N."""
    network, data = setting.build(), setting.data()
    frames = []
    for place in ("layer 1", "layer 2"):
        runs = with_best_rate(
            learn(
                network,
                data,
                place,
                sizes=form.sizes,
                rates=form.rates,
                repetitions=form.repetitions,
                learning=Learning(batch=8, steps=form.steps, shape=setting.prompt),  # type: ignore[arg-type]
                test_samples=TEST_SAMPLES,
                device=device,
            )
        )
        wrong = (TEST_SAMPLES * runs.test_error).round().astype(int)
        wide = runs.assign(wrong=wrong).pivot(index="repetition", columns="samples", values="wrong")
        wide.columns = [f"n{size}" for size in wide.columns]
        most = runs[runs.samples == max(form.sizes)].set_index("repetition")
        kept = most[["rate", "norm", "removed", "untouched", "train_error"]].round(4)
        frames.append(kept.join(wide).reset_index().assign(place=place))
    return pd.concat(frames, ignore_index=True)


def main(
    out: str | Path,
    form: str = "short",
    *,
    device: str = "cpu",
    minutes: float = float("inf"),
    only: Sequence[str] = (),
    models: Sequence[str] = (),
) -> pd.DataFrame:
    """Measure what is missing, for so many minutes at most; write and return the table.

    form : one of `FORMS`. only, models : questions and models to which the run is limited.
    """
    out, asked, start = Path(out), FORMS[form], time.monotonic()
    jobs = [
        setting
        for setting in settings(asked)
        if (not only or setting.question in only) and (not models or setting.model in models)
    ]
    frames = []
    for setting in tqdm(jobs, desc=NAME, unit="setting"):
        name = f"{form}_{setting.words()}"
        if time.monotonic() - start > 60 * minutes and not (out / "parts" / f"{name}.csv").exists():
            continue
        table = part(out, name, lambda setting=setting: measure(setting, asked, device))
        frames.append(table.assign(**asdict(setting)))
    table = pd.concat(frames, ignore_index=True)
    labels = list(asdict(jobs[0]))
    table = table[labels + [name for name in table.columns if name not in labels]]
    table.to_csv(out / f"{NAME}.csv", index=False, float_format="%.5g")
    print(f"{len(frames)} of {len(jobs)} settings in {out / NAME}.csv")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="instead of the form's folder in runs/theory")
    parser.add_argument("--form", choices=FORMS, default="short")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--only", action="append", default=[], help="one of the questions")
    parser.add_argument("--model", action="append", default=[], help='"hard, ReLU" and the like')
    given = parser.parse_args()
    main(
        given.out or Path("runs/theory") / folder(given.form),
        given.form,
        device=given.device,
        minutes=given.minutes,
        only=given.only,
        models=given.model,
    )
