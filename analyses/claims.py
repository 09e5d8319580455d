"""The papers' claims: what each says, how we know that it does, and what judges it here.

A claim is data and one function: its judge (`analyses.judges`) reads result tables and returns a
`Finding`. What the papers say carries the mark of how we know it:

- [read]: the abstract or the proceedings' own page; [2nd]: two independent digests of the text;
- [recalled]: from memory, never to be quoted as the paper's statement; [derived]: proved and
  checked here; [paper], [code]: printed or released by VAPT's authors; [rebuilt]: reconstructed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from analyses import judges, judges_of_methods, judges_of_sweeps
from analyses.evidence import NotMeasured
from analyses.judges import Finding, Judge, beside
from analyses.results import Results

NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Experiment:
    """What was run for a claim: the setting in words, the command, the figure that shows it."""

    setting: str
    command: str
    figure: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of paper_repro.md."""

    n: str
    says: str
    mark: str
    experiment: Experiment
    judge: Judge


def judge(claim: Claim, results: Results) -> Finding:
    """The finding of a claim; "not run yet" where its tables are missing."""
    try:
        return claim.judge(results)
    except NotMeasured:
        return Finding("–", NOT_RUN, f"its table is not there: run `{claim.experiment.command}`")


EQUIVALENCE = Experiment(
    "embedded networks and small timm networks, float32 and float64",
    "python -m analyses.equivalence",
)
SWEEP = Experiment(
    "four embedded networks on 4 or 6 embedded tasks; ViT-Tiny, MobileNetV2-0.35 and ResNet-56 "
    "on the assets",
    "python -m analyses.layer_preference; python -m analyses.real_weights --assets DIR",
    "layer_preference",
)
CAMPAIGN = Experiment(
    "eight real networks on five tasks each, 400 pictures, about 210 optimiser steps, four rates "
    "at every place, two draws of most pairs; the older sweeps by `python -m "
    "analyses.layer_preference` and `python -m analyses.real_weights`",
    "python -m analyses.campaign --question sweep --assets DIR, then python -m "
    "analyses.campaign_tables",
    "law_of_the_layer",
)
SIMILARITY = Experiment(
    "CKA between the networks, per task", "python -m analyses.cka_between", "cka_between"
)
METHODS = Experiment(
    "eight networks on three tasks each, 400 pictures, about 210 optimiser steps, every method "
    "with the rates of one ladder; the shorter runs by `python -m analyses.method_comparison`",
    "python -m analyses.campaign --question methods --assets DIR, then python -m "
    "analyses.campaign_methods",
    "campaign_methods",
)
METHODS_ON_VITS = replace(METHODS, setting=METHODS.setting.replace("eight networks", "four ViTs"))
SAMPLES = Experiment(
    "frozen two-layer networks, one, two or a quarter of the tokens discriminative, P from 8 to 64",
    "python -m analyses.two_layer --form full --device cuda",
    "sample_complexity",
)
MECHANISM = replace(
    SAMPLES, setting="every setting of claim 17, and convolutions", figure="flip_test"
)
STEPS = Experiment(
    "frozen two-layer attention networks",
    "python -m analyses.steps_to_zero_error",
    "steps_to_zero_error",
)
STEP_COST = Experiment(
    "one training step, CPU, no kept activations", "python -m analyses.cost_tables --full", "cost"
)
THROUGHPUT = Experiment("inference, CPU", "python -m analyses.cost_tables", "cost")
COUNT = Experiment("counted, without the head", "python -m analyses.cost_tables")
SWIN = Experiment(
    "needs pretrained CLIP and Swin weights",
    "aptheory run swin_tiny_patch4_window7_224 --task NAME --out DIR",
)
VAPT_COUNT = Experiment("ViT-B/16, r = 8, K = 2, counted", "python -m analyses.theory_verdicts")
EXPERTS = Experiment("a real timm attention layer", "python -m analyses.theory_verdicts")
EXPERTS_RATE = Experiment(
    "the simulation of the fact sheet, section 4", "python -m analyses.experts_rate", "experts_rate"
)
TOKEN_COUNT = Experiment(
    "ViT-Tiny with ImageNet weights at 96 pixels, ten classes of textures, one picture a class; "
    "beside it our small ViT with several draws a fraction (`python -m analyses.low_data`)",
    "python -m analyses.token_count --assets DIR",
    "token_count",
)

SHORT_SWEEPS = "older sweeps of 24 to 84 optimiser steps at one rate"
FEW_STEPS = "older runs of 8 to 24 optimiser steps, too few to compare methods"
SMALL_NETWORKS = (
    "no large network was run, and weak is said beside one; a digest says that on small networks "
    "AP hardly beats conventional fine-tuning"
)
SMALL_TEST_SETS = (
    "test sets of 400 to 860 pictures: one picture is 0.12 points or more, and what the spread "
    "over seeds measures here is largely their size"
)

# fmt: off
CLAIMS = (
    # Activation prompts and their equivalents
    Claim("1", "VP is AP at the input",
          "derived", EQUIVALENCE, judges.equivalence(1)),
    Claim("2", "AP equals BatchNorm's β under the conditions",
          "2nd, derived", EQUIVALENCE, judges.equivalence(2)),
    Claim("3", "AP equals LayerNorm's β after it, and not before",
          "2nd, derived", EQUIVALENCE, judges.equivalence(3, differs=True)),
    Claim("4", "AP is more flexible than NORM-TUNE",
          "derived", EQUIVALENCE, judges.equivalence(4, differs=True)),
    Claim("5", "AP at the last map is the linear probe",
          "derived", EQUIVALENCE, judges.equivalence(5)),
    Claim("6", "train-mode BatchNorm cancels channel-constant AP",
          "derived", EQUIVALENCE, judges.equivalence(6)),
    # What they gain, and where
    Claim("7", "AP beats VP on CNNs (paper: more than +4 points)",
          "2nd", CAMPAIGN, beside(
              judges_of_sweeps.against_vp(vit=False),
              judges.ap_against_vp(vit=False), SHORT_SWEEPS)),
    Claim("8", "AP beats VP on ViTs (paper: more than +1.5 points)",
          "2nd", CAMPAIGN, beside(
              judges_of_sweeps.against_vp(vit=True),
              judges.ap_against_vp(vit=True), SHORT_SWEEPS)),
    Claim("9", "AP ≥ NORM-TUNE ≥ LINEAR-PROBE",
          "2nd", METHODS, beside(judges_of_methods.order, judges.order, FEW_STEPS)),
    Claim("10", "NORM-TUNE beats VP",
          "2nd", METHODS, beside(
              judges_of_methods.beats("norm_tuning", "vp"),
              judges.beats("norm_tuning", "vp"), FEW_STEPS)),
    Claim("11", "CNNs prefer deep layers",
          "2nd", CAMPAIGN, beside(
              judges_of_sweeps.preference(vit=False),
              judges.preference(vit=False), SHORT_SWEEPS)),
    Claim("12", "ViTs prefer shallow layers",
          "2nd", CAMPAIGN, beside(
              judges_of_sweeps.preference(vit=True),
              judges.preference(vit=True), SHORT_SWEEPS)),
    Claim("13", "the preference is the architecture's, not the data's",
          "2nd", CAMPAIGN, beside(
              judges_of_sweeps.architecture, judges.architecture, SHORT_SWEEPS)),
    # Why there
    Claim("14", "deep CNN features resemble middle ViT layers",
          "2nd", SIMILARITY, judges.cka),
    Claim("15", "mean attention distance falls with depth",
          "2nd", replace(SWEEP, figure="attention_distance"), judges.distance),
    Claim("16", "globality explains the preference (the paper: by eye)",
          "2nd", replace(SWEEP, figure="relation"), judges.globality),
    Claim("17", "the shallow prompt needs fewer samples",
          "2nd", SAMPLES, judges.theory("17")),
    Claim("18", "steps grow with P/η",
          "recalled", STEPS, judges.theory("18")),
    Claim("M", "the learned prompt removes the patterns without meaning, at a norm that depends on "
          "the layer",
          "2nd", MECHANISM, judges.theory("M")),
    # What they cost
    Claim("19", "AP is cheaper than VP on CNNs (paper: 0.57 of the time, 0.52 of the memory)",
          "2nd", STEP_COST, judges.cost("cnn", (0.4, 0.75), 0.75)),
    Claim("20", "AP is hardly cheaper than VP on ViTs (derived: 0.96 at layer 3 of 24)",
          "derived", STEP_COST, judges.cost("vit", (0.85, 1.05), 1.05)),
    Claim("21", "AP keeps the frozen network's throughput, VPT does not",
          "read, derived", THROUGHPUT, judges.throughput),
    Claim("22", "AP tunes few parameters (about 0.2 M)",
          "derived", COUNT, judges.count),
    # How far the claims reach
    Claim("23", "AP ranks 2nd to 4th among PEFT methods on ViTs",
          "2nd", METHODS_ON_VITS, beside(
              judges_of_methods.rank, judges.rank, FEW_STEPS)),
    Claim("24", "holds on CLIP and Swin",
          "2nd", SWIN, judges.not_testable(
              "no pretrained Swin or CLIP weights could be had where this was measured; "
              "the command runs on any timm Swin")),
    Claim("25", "weak on small models",
          "2nd", CAMPAIGN, judges.not_with_these_runs(
              beside(judges_of_sweeps.small, judges.small, SHORT_SWEEPS), SMALL_NETWORKS)),
    Claim("26", "spread over seeds is at most 0.3 %",
          "2nd", replace(SWEEP, figure=""), judges.not_with_these_runs(
              judges.seeds, SMALL_TEST_SETS)),
    Claim("27", "the prompt adds more than the layer's own probe",
          "derived", CAMPAIGN, beside(
              judges_of_sweeps.more_than_probe, judges.more_than_probe, SHORT_SWEEPS)),
    # VAPT
    Claim("V1", "VAPT tunes fewer parameters than VPT-deep (0.36 % against 0.73 %)",
          "paper, derived", VAPT_COUNT, judges.theory("V1")),
    Claim("V2", "an attention head with prompts is a mixture of experts",
          "paper", EXPERTS, judges.theory("V2")),
    Claim("V3", "adaptive prompts are estimated at about n^(-1/2)",
          "paper, rebuilt", EXPERTS_RATE, judges.theory("V3")),
    Claim("V4", "with 1 % of the data VAPT is far above VPT (60.1 against 3.6 on Stanford Dogs)",
          "paper", TOKEN_COUNT, judges.theory("V4")),
    Claim("V5", "VAPT beats VPT-deep (VTAB means 72.91 and 69.43)",
          "paper", METHODS_ON_VITS, beside(
              judges_of_methods.beats("vapt:tokens=10", "vpt:tokens=10"),
              judges.beats("vapt", "vpt", vit_only=True), FEW_STEPS)),
)
# fmt: on
