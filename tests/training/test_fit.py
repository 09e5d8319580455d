"""Training: a stack gives what its runs would give alone, and a seed gives the same bits."""

import dataclasses
import math
import pickle
from typing import ClassVar

import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.methods import LayerProbe, LinearProbe, RandomPerturbation
from aptheory.training import loop as loop_module
from aptheory.training.fit import Recipe, Run, fit, fit_many, grid, kept_for, stack_size
from aptheory.training.kept import Kept
from tests.quarters import RECIPE, small_cnn, small_task

PLAIN = {"head_init": "default", "scale_prompts": False}  # nothing but the optimiser
RUNS = [
    Run(seed=3, lr=0.03),
    Run(seed=4, lr=0.001, weight_decay=0.3),
    Run(seed=3, lr=0.1, weight_decay=0.0),
]


def learned(adapted, k=0):
    return dict(adapted.run_parameters(k))


@pytest.mark.parametrize("name", ["vit", "cnn"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_each_run_of_a_stack_is_the_run_alone(name, optimizer, task, request):
    net = request.getfixturevalue(name)
    method = ap.ActivationPrompt(layer=net.block_layers[1], std=0.02)
    recipe = RECIPE.but(together=3, optimizer=optimizer)
    stack = fit_many(method, net, task, runs=RUNS, recipe=recipe, keep_models=True)
    for run, outcome in zip(RUNS, stack, strict=True):
        alone = fit_many(method, net, task, runs=[run], recipe=recipe, keep_models=True)[0]
        for key, value in learned(alone.adapted).items():
            other = learned(outcome.adapted)[key]
            torch.testing.assert_close(other, value, rtol=2e-3, atol=2e-4)
        losses = [entry["train_loss"] for entry in alone.curve]
        assert [entry["train_loss"] for entry in outcome.curve] == pytest.approx(losses, rel=1e-4)
        assert outcome.test_accuracy == pytest.approx(alone.test_accuracy, abs=1.5 / 44)
    # The runs differ, so the agreement above is not that of equal runs.
    assert stack[0].curve[-1]["train_loss"] != stack[2].curve[-1]["train_loss"]


def test_dropout_of_a_stack_is_that_of_the_run_alone(vit, task):
    method = ap.VPT(tokens=2, deep=True)
    recipe = RECIPE.but(together=2)
    stack = fit_many(method, vit, task, runs=RUNS[:2], recipe=recipe)
    alone = fit_many(method, vit, task, runs=RUNS[1:2], recipe=recipe)[0]
    for ours, theirs in zip(stack[1].curve, alone.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_one_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(vit, task):
    method = ap.ActivationPrompt(layer=1)

    def once(seed):
        adapted = method.attach(vit, classes=4)
        outcome = fit(adapted, task, recipe=RECIPE, seed=seed)
        return outcome, learned(adapted)

    state = torch.get_rng_state()
    first, values = once(5)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    second, again = once(5)
    assert first.curve == second.curve
    assert all(torch.equal(values[key], again[key]) for key in values)
    other, _ = once(6)
    assert other.curve != first.curve


def test_training_by_hand_gives_the_same_numbers(vit, task):
    """The loop written out for one run, without keeping, through the whole network."""
    place, recipe = 2, RECIPE.but(epochs=2, **PLAIN)
    adapted = ap.ActivationPrompt(layer=place).attach(vit, classes=4)
    outcome = fit(adapted, task, recipe=recipe, seed=1)

    x = vit.normalize(task.train.images(range(90), (16, 16)))
    y = torch.from_numpy(task.train.labels)
    with torch.no_grad():
        clean = vit.run(x, stop=len(vit.layers) - 1).double()
    ours = ap.ActivationPrompt(layer=place).attach(vit, classes=4, seed=1)
    ours.head.shift.copy_(clean.mean(0))
    ours.head.scale.copy_(clean.std(0, correction=0))
    optimizer = torch.optim.AdamW(ours.trainable, lr=recipe.lr, weight_decay=recipe.weight_decay)
    generator = loop_module.order_generator(1)
    for epoch in range(2):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 + math.cos(math.pi * epoch / 2)) / 2
        for rows in torch.randperm(90, generator=generator).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(ours(x[rows]), y[rows]).backward()
            optimizer.step()
    for key, value in learned(ours).items():
        torch.testing.assert_close(learned(adapted)[key], value, rtol=1e-3, atol=1e-5)
    ours.eval()
    with torch.no_grad():
        test = ours(vit.normalize(task.test.images(range(44), (16, 16)))).argmax(1)
    right = (test.numpy() == task.test.labels).mean()
    assert outcome.test_accuracy == pytest.approx(right, abs=1e-9)


def test_it_learns_and_counts(cnn, task):
    outcome = fit(ap.VisualPrompt().attach(cnn, classes=4), task, recipe=RECIPE.but(epochs=12))
    assert outcome.train_accuracy > 0.7
    assert outcome.val_accuracy > 0.45  # chance is 0.25
    assert outcome.parameters_without_head == 3 * 16 * 16
    assert outcome.parameters == 3 * 16 * 16 + 4 * (cnn.num_features + 1)
    assert outcome.epochs == 12
    assert len(outcome.curve) == 12


def test_frozen_weights_get_no_gradient_and_no_change(vit, task, monkeypatch):
    before = {name: value.clone() for name, value in vit.module.state_dict().items()}
    adapted = ap.ActivationPrompt(layer=2).attach(vit, classes=4)
    seen = []
    rest = adapted.rest
    monkeypatch.setattr(adapted, "rest", lambda z: seen.append(z.requires_grad) or rest(z))
    fit(adapted, task, recipe=RECIPE.but(epochs=1))
    assert seen
    assert not any(seen), "the kept activation must not carry a graph"
    assert all(p.grad is None for p in vit.module.parameters())
    frozen = [p for p in adapted.net.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None for p in frozen)
    assert all(torch.equal(before[k], v) for k, v in vit.module.state_dict().items())


# ---- the last place


def test_prompt_at_the_classifiers_input_is_the_linear_probe(vit, task):
    """What is exact: the two are one function class (the prompt is a shift of the head's bias,
    b' = b + W delta / scale), so a trained prompt has a probe that equals it to rounding. The
    optimiser's path differs, as the bias moves through delta too: both start from the probe that
    has converged, and the accuracies stay close."""
    recipe = Recipe(epochs=10, batch_size=32, lr=0.01)
    last = len(vit.layers) - 1
    adapted = ap.ActivationPrompt(layer=last).attach(vit, classes=4)
    prompt = fit(adapted, task, recipe=recipe, seed=2)
    probe = fit(LinearProbe().attach(vit, classes=4), task, recipe=recipe, seed=2)
    assert abs(prompt.test_accuracy - probe.test_accuracy) <= 2 / 44
    assert abs(prompt.val_accuracy - probe.val_accuracy) <= 2 / 40
    assert prompt.test_loss == pytest.approx(probe.test_loss, rel=0.05)

    same = LinearProbe().attach(vit, classes=4)
    values = learned(adapted)
    delta = next(v for k, v in values.items() if not k.startswith("head."))
    weight = values["head.weight"].double()
    with torch.no_grad():
        same.head.shift.copy_(adapted.head.shift)
        same.head.scale.copy_(adapted.head.scale)
        learned(same)["head.weight"].copy_(values["head.weight"])
        moved = values["head.bias"] + weight @ (delta.flatten() / adapted.head.scale[0]).double()
        learned(same)["head.bias"].copy_(moved)
        x = vit.normalize(task.test.images(range(44), (16, 16)))
        torch.testing.assert_close(same.eval()(x), adapted.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_prompt_that_cannot_move_is_the_linear_probe_to_the_last_bit(vit, task):
    """The two start alike, so with a fixed prompt of zero the paths are the same, bit for bit."""
    probe = fit(LinearProbe().attach(vit, classes=4), task, recipe=RECIPE, seed=2)
    adapted = ap.ActivationPrompt(layer=len(vit.layers) - 1).attach(vit, classes=4)
    for name, parameter in adapted.run_parameters(0):
        parameter.requires_grad_(name.startswith("head."))
    fixed = fit(adapted, task, recipe=RECIPE, seed=2)
    assert [c["train_loss"] for c in fixed.curve] == [c["train_loss"] for c in probe.curve]
    assert fixed.test_accuracy == probe.test_accuracy


def test_a_head_alone_on_edited_features_is_trained_as_written(vit, task):
    """A fixed perturbation is run once an image: as if the network were run at every step."""
    method = RandomPerturbation(layer=1, norm=3.0)
    recipe = RECIPE.but(together=2, **PLAIN)
    stack = fit_many(method, vit, task, runs=grid(seeds=(0, 1)), recipe=recipe)
    flipped = RECIPE.but(augment="flip", **PLAIN)
    slow = fit_many(method, vit, task, runs=grid(seeds=(1,)), recipe=flipped)
    adapted = method.attach(vit, classes=4, seed=1)
    x = vit.normalize(task.train.images(range(90), (16, 16)))
    with torch.no_grad():
        features = adapted.features(vit.run(x, stop=1))
        clean = vit.run(x, stop=len(vit.layers) - 1).double()
    assert not torch.allclose(features, clean.float(), atol=1e-2)
    adapted.head.shift.copy_(clean.mean(0))
    adapted.head.scale.copy_(clean.std(0, correction=0))
    optimizer = torch.optim.AdamW(adapted.trainable, lr=RECIPE.lr, weight_decay=1e-4)
    generator = loop_module.order_generator(1)
    total = 0.0
    for rows in torch.randperm(90, generator=generator).split(32):
        optimizer.zero_grad()
        y = torch.from_numpy(task.train.labels)[rows]
        loss = torch.nn.functional.cross_entropy(adapted.head(features[rows]), y)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(rows) / 90
    assert stack[1].curve[0]["train_loss"] == pytest.approx(total, rel=1e-4)
    assert slow[0].curve[0]["train_loss"] != pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("method", [LinearProbe(), LayerProbe(layer=2)])
def test_a_head_alone_runs_the_network_once_an_image(method, vit, task, monkeypatch):
    images = []
    run = vit.run

    def counted(x, **where):
        images.append(len(x) if where["start"] < where["stop"] else 0)
        return run(x, **where)

    monkeypatch.setattr(vit, "run", counted)
    adapted = method.attach(vit, classes=4)
    fit(adapted, task, recipe=RECIPE.but(epochs=9))
    assert sum(images) == 90 + 40 + 44


# ---- recipes


def test_the_schedules():
    vpt = Recipe.named("vpt")
    assert vpt.peak_lr(2.5) == pytest.approx(2.5 * 64 / 256)
    factors = [vpt.lr_factor(epoch) for epoch in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5)
    assert min(factors) > 0
    paper = Recipe.named("paper_ap")
    assert (paper.optimizer, paper.schedule, paper.epochs) == ("sgd", "cosine", 1000)
    assert Recipe.named("quick", epochs=7).epochs == 7
    assert Recipe(schedule="constant").lr_factor(19) == 1.0


def test_weight_decay_spares_the_heads_bias_where_the_recipe_says_so(vit, task):
    adapted = LinearProbe().attach(vit, classes=4)
    recipe = Recipe.named("vapt", epochs=1, warmup_epochs=0, lr=0.0, weight_decay=0.1)
    outcome = fit(adapted, task, recipe=recipe, seed=0)
    assert outcome.weight_decay == 0.1
    values = learned(adapted)
    assert torch.all(values["head.bias"] == torch.tensor(-4.595))
    assert float(values["head.weight"].detach().std()) == pytest.approx(math.sqrt(2 / 4), rel=0.3)
    kept = kept_for(vit, task, recipe, layer=adapted.first_layer)
    groups = loop_module.Loop(adapted, [Run()], kept, recipe).optimizer.param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (1, 0.0)]


def test_standardisation_is_that_of_the_clean_training_features(cnn, task):
    adapted = ap.VisualPrompt(std=0.5).attach(cnn, classes=4)
    fit(adapted, task, recipe=RECIPE.but(epochs=1))
    x = cnn.normalize(task.train.images(range(90), (16, 16)))
    with torch.no_grad():
        clean = cnn.run(x, stop=len(cnn.layers) - 1)
    torch.testing.assert_close(adapted.head.shift[0], clean.mean(0), rtol=1e-4, atol=1e-5)
    live = clean.std(0) > 1e-3
    assert live.any()
    torch.testing.assert_close(
        adapted.head.scale[0, live], clean.std(0, correction=0)[live], rtol=1e-3, atol=1e-5
    )


def test_a_head_that_starts_as_the_probe_starts_better(vit, task):
    start = RECIPE.but(epochs=1, lr=0.0)
    method = ap.ActivationPrompt(layer=2)
    cold = fit(method.attach(vit, classes=4), task, recipe=start.but(head_init="default"))
    warm = fit(method.attach(vit, classes=4), task, recipe=start)
    assert warm.curve[0]["train_loss"] < 0.95 * cold.curve[0]["train_loss"]


@pytest.mark.parametrize(
    "bad",
    [
        {"optimizer": "lion"},
        {"epochs": 0},
        {"lr": math.nan},
        {"lr": -1.0},
        {"views": 2},
        {"warmup_epochs": -1},
        {"keep": "cloud"},
    ],
)
def test_bad_recipes_are_refused(bad):
    with pytest.raises(InputError):
        Recipe(**bad)


def test_unknown_recipe_and_setting_are_refused():
    with pytest.raises(InputError, match="vapt"):
        Recipe.named("fast")
    with pytest.raises(InputError, match="learning_rate"):
        Recipe().but(learning_rate=1.0)


# ---- things that go wrong


def test_a_run_that_diverges_stops_with_its_reason_and_the_others_go_on(vit, task):
    method = ap.ActivationPrompt(layer=1)
    recipe = RECIPE.but(optimizer="sgd", together=3, epochs=4)
    runs = [Run(seed=0, lr=0.01), Run(seed=1, lr=1e38), Run(seed=2, lr=0.02)]
    good, bad, fine = fit_many(method, vit, task, runs=runs, recipe=recipe)
    assert bad.stopped_reason is not None
    assert "epoch" in bad.stopped_reason
    assert bad.failed
    assert math.isnan(bad.test_accuracy)
    for run, outcome in ((runs[0], good), (runs[2], fine)):
        alone = fit_many(method, vit, task, runs=[run], recipe=recipe)[0]
        assert outcome.stopped_reason is None
        assert len(outcome.curve) == 4
        losses = [entry["train_loss"] for entry in alone.curve]
        assert [entry["train_loss"] for entry in outcome.curve] == pytest.approx(losses, rel=1e-4)


def test_out_of_memory_halves_the_batch_says_so_and_changes_nothing(vit, task, monkeypatch):
    method = ap.ActivationPrompt(layer=1)
    plain = fit(method.attach(vit, classes=4), task, recipe=RECIPE)
    adapted = method.attach(vit, classes=4)
    rest, sizes, said = adapted.rest, [], []

    def short_of_memory(z):
        if torch.is_grad_enabled():
            if len(z) > 9:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
            sizes.append(len(z))
        return rest(z)

    monkeypatch.setattr(adapted, "rest", short_of_memory)
    outcome = fit(adapted, task, recipe=RECIPE, log=said.append)
    assert max(sizes) == 8
    assert any("out of memory" in text for text in said)
    assert len(outcome.notes) == 2  # 32 -> 16 -> 8
    for ours, theirs in zip(outcome.curve, plain.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_other_errors_are_not_swallowed(vit, task, monkeypatch):
    adapted = ap.ActivationPrompt(layer=1).attach(vit, classes=4)
    monkeypatch.setattr(adapted, "rest", lambda z: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        fit(adapted, task, recipe=RECIPE)


def test_early_stopping_goes_back_to_the_best_validated_state(vit, task):
    recipe = RECIPE.but(epochs=30, patience=2, together=2, lr=0.05, schedule="constant")
    runs = [Run(seed=0), Run(seed=1, lr=0.2)]
    stack = fit_many(ap.ActivationPrompt(layer=1), vit, task, runs=runs, recipe=recipe)
    assert any(outcome.epochs < 30 for outcome in stack)
    for outcome in stack:
        seen = [entry["val_accuracy"] for entry in outcome.curve]
        assert outcome.val_accuracy == pytest.approx(max(seen))
        if outcome.epochs < 30:
            assert outcome.stopped_reason is not None
            assert "validation" in outcome.stopped_reason
            assert len(seen) - 1 - seen.index(max(seen)) == 2


def test_classes_must_match(vit, task):
    with pytest.raises(InputError, match="classes"):
        fit(LinearProbe().attach(vit, classes=3), task)
    with pytest.raises(InputError, match="fit_many"):
        fit(LinearProbe().attach(vit, classes=4, runs=2), task)
    with pytest.raises(InputError, match="methods"):
        fit_many([LinearProbe()], vit, task, runs=grid(seeds=(0, 1)))


def test_kept_activations_of_something_else_are_refused(vit, cnn, task):
    with pytest.raises(InputError, match="cannot serve"):
        fit_many(LinearProbe(), vit, task, runs=[Run()], kept=Kept.start(cnn, task))
    twin = dataclasses.replace(task)
    with pytest.raises(InputError, match="others of the same names: make them from"):
        fit_many(LinearProbe(), vit, task, runs=[Run()], kept=Kept.start(vit, twin))
    with pytest.raises(InputError, match="augmentation"):
        fit_many(
            LinearProbe(),
            vit,
            task,
            runs=[Run()],
            recipe=Recipe(augment="flip"),
            kept=Kept.start(vit, task),
        )


def test_what_torch_is_set_to_outside_does_not_change_a_run(vit, task):
    method, run, recipe = ap.ActivationPrompt(layer=2), Run(seed=1, lr=0.03), RECIPE.but(epochs=2)
    (plain,) = fit_many(method, vit, task, runs=[run], recipe=recipe)
    with torch.autocast("cpu", torch.bfloat16):
        (mixed,) = fit_many(method, vit, task, runs=[run], recipe=recipe)
    assert mixed.val_loss == plain.val_loss
    with torch.device("meta"), pytest.raises(InputError, match="default device is meta"):
        method.attach(vit, classes=4)
    with torch.device("meta"), pytest.raises(InputError, match="default device is meta"):
        ap.load(vit.module, input_shape=vit.input_shape)
    prompt = method.attach(vit, classes=4)
    with torch.device("meta"):  # as of any device whose generators are not the processor's
        prompt.reset([1])
    assert not prompt.trainable[0].is_meta
    again = pickle.loads(pickle.dumps(plain))
    assert again != plain  # results are equal to themselves alone
    assert plain in [again, plain]


# ---- the form of the work


def test_methods_that_cannot_be_stacked_train_one_by_one(cnn, task):
    method = ap.FullFineTuning()
    assert stack_size(method, cnn, RECIPE.but(together=8), 8, 0) == 1
    outcomes = fit_many(method, cnn, task, runs=RUNS[:2], recipe=RECIPE.but(epochs=1))
    assert [outcome.seed for outcome in outcomes] == [3, 4]
    assert outcomes[0].first_layer == 0


class Shift(torch.nn.Module):
    """A learned tensor that is not made one a run, or one number of BatchNorm."""

    def __init__(self, layer, batch_norm):
        super().__init__()
        self.delta = torch.nn.Parameter(torch.zeros(layer.shape), requires_grad=not batch_norm)
        self.norm = torch.nn.BatchNorm1d(layer.shape[0], affine=False) if batch_norm else None

    def forward(self, z):
        return z + self.delta if self.norm is None else self.norm(z)


@dataclasses.dataclass(frozen=True)
class OwnShift(ap.Method):
    layer: int = 2
    batch_norm: bool = False
    name: ClassVar[str] = "own_shift"

    def install(self, adapted):
        adapted.edit(self.layer, Shift(adapted.net.place(self.layer), self.batch_norm))
        return self.layer


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_method_whose_runs_would_share_what_learns_trains_one_by_one(batch_norm, vit, task):
    method, recipe = OwnShift(batch_norm=batch_norm), RECIPE.but(epochs=2, together=8)
    with pytest.raises(InputError, match="cannot hold 2 runs at once: edits.2.0.* is one for all"):
        method.attach(vit, classes=4, runs=2)
    outcomes = fit_many(method, vit, task, runs=RUNS, recipe=recipe)
    for run, outcome in zip(RUNS, outcomes, strict=True):
        (alone,) = fit_many(method, vit, task, runs=[run], recipe=recipe)
        assert outcome.val_loss == alone.val_loss
        assert outcome.test_loss == alone.test_loss


def test_one_method_for_each_run(vit, task):
    methods = [ap.ActivationPrompt(layer=2), LinearProbe(), ap.ActivationPrompt(layer=1)]
    outcomes = fit_many(methods, vit, task, runs=grid(seeds=(0, 0, 0)), recipe=RECIPE)
    assert [o.method["method"] for o in outcomes] == ["ap", "linear_probe", "ap"]
    assert [o.first_layer for o in outcomes] == [2, len(vit.layers) - 1, 1]


def test_stacks_shrink_with_the_activation(vit):
    recipe = Recipe(batch_size=64)
    deep = stack_size(LinearProbe(), vit, recipe, 1000, len(vit.layers) - 1)
    shallow = stack_size(ap.VisualPrompt(), vit, recipe, 1000, 0)
    assert deep > shallow >= 1
    assert stack_size(ap.VisualPrompt(), vit, recipe.but(together=5), 1000, 0) == 5


def test_bfloat16_trains_close_to_float32(vit, task):
    method = ap.ActivationPrompt(layer=1)
    full = fit(method.attach(vit, classes=4), task, recipe=RECIPE)
    half = fit(method.attach(vit, classes=4), task, recipe=RECIPE.but(precision="bfloat16"))
    for ours, theirs in zip(half.curve, full.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in vit.module.parameters())


def test_an_outcome_is_plain_values(vit, task):
    import json

    adapted = LinearProbe().attach(vit, classes=4)
    outcome = fit(adapted, task, recipe=RECIPE, predictions=True)
    assert outcome.predictions is not None
    assert outcome.predictions.shape == (44,)
    record = outcome.record()
    assert "predictions" not in record
    json.dumps(record)
    assert dataclasses.is_dataclass(outcome)


def test_a_run_whose_last_step_overflows_has_failed():
    """Its loss was finite before that step, and an accuracy can be had of any logits."""
    net, task = small_cnn(), small_task()
    adapted = ap.ActivationPrompt(layer=1).attach(net, classes=len(task.classes))
    outcome = ap.fit(adapted, task, recipe=ap.Recipe(epochs=1, batch_size=1000), lr=1e30)
    assert outcome.failed
    assert outcome.stopped_reason.startswith("its loss on val images was not finite after epoch 1")
    assert math.isnan(outcome.test_accuracy)
