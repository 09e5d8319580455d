"""Profiles: every measure equals the plain function on extracted activations; nothing is lost."""

import itertools
import threading
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

import aptheory as ap
from aptheory import metrics
from aptheory.errors import InputError
from aptheory.profiling import watchers
from aptheory.profiling.extraction import extract_to
from aptheory.profiling.profile import COLUMNS, batches, extract, profile
from aptheory.profiling.similarity import similarity
from aptheory.profiling.watchers import UndefinedWarning


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return ap.load("aptheory_vit_mini", None)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return ap.load("aptheory_resnet_mini", None)


@pytest.fixture(scope="module")
def images():
    return torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Labelled:
    """A split: bytes with labels."""

    def __init__(self, count=60):
        generator = torch.Generator().manual_seed(1)
        self.pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).byte()
        self.labels = np.arange(count) % 3
        for label in range(3):
            self.pixels[self.labels == label, label] //= 2

    def __len__(self):
        return len(self.labels)

    def images(self, indices, size):
        assert tuple(size) == (32, 32)
        return self.pixels[list(indices)]


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, table
    return table.iloc[0]


# ----------------------------------------------------------------------------------- extraction


def test_extract_gives_each_place_and_in_order(vit, images):
    found = extract(vit, images, batch_size=7)
    assert list(found) == [layer.index for layer in vit.layers]
    with torch.no_grad():
        for layer in vit.layers:
            expected = vit.run(images, stop=layer.index)
            assert found[layer.index].shape == (24, *layer.shape)
            assert torch.allclose(found[layer.index], expected, atol=1e-5)
            assert not found[layer.index].is_inference()


def test_extract_pools_selects_and_stores_other_precisions(vit, images):
    found = extract(vit, images, layers=[-2, 3], pooled="mean", dtype=torch.float16)
    assert list(found) == [3, len(vit.layers) - 2]
    layer = vit.layers[3]
    with torch.no_grad():
        expected = layer.pooled(vit.run(images, stop=3), "mean")
    assert found[3].dtype == torch.float16
    assert torch.allclose(found[3].float(), expected, atol=1e-2)
    assert list(extract(vit, images[:2], layers="blocks")) == list(vit.block_layers)


def test_fault_average_pooling_takes_prefix_tokens_along(images):
    """Mean pooling leaves out class *and* register tokens, and loses no patch without them."""
    for options in ({"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}, {}):
        torch.manual_seed(0)
        module = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=32,
            patch_size=8,
            depth=2,
            embed_dim=12,
            num_heads=2,
            num_classes=3,
            **options,
        ).eval()
        net = ap.load(module, input_shape=(3, 32, 32))
        features = module.forward_features(images[:4])
        tokens = features[:, module.num_prefix_tokens :]
        assert tokens.shape[1] == 16
        place = next(n for n in range(len(net.layers)) if net.layers[n].layout == "tokens")
        with torch.no_grad():
            z = net.run(images[:4], stop=place)
            expected = z[:, module.num_prefix_tokens :].mean(1)
        found = extract(net, images[:4], layers=[place], pooled="mean")[place]
        assert torch.allclose(found, expected, atol=1e-6)


def test_fault_callers_images_and_kept_activations_are_never_written(resnet, images):
    """In-place ReLUs and additions inside the network must not reach what was handed out."""
    before = images.clone()
    found = extract(resnet, images, batch_size=24)
    assert torch.equal(images, before)
    for index in (0, 2, 5):
        with torch.no_grad():
            again = resnet.run(images.clone(), stop=index)
        assert torch.allclose(found[index], again, atol=1e-5)
    profile(resnet, images, measures=["cka", "globality"])
    assert torch.equal(images, before)


def test_fault_hooks_stay_after_an_error(vit, images):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vit.module.modules())

    before = hooks()

    def failing():
        yield images[:8]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(vit, failing(), measures=["attention_distance", "cka"])
    assert hooks() == before
    with torch.no_grad():
        assert torch.equal(vit(images[:2]), vit.module(images[:2]))


def test_fault_fused_attention_shows_nothing(vit, images):
    """Hooks on the dropout behind fused attention return nothing; here every block has a number."""
    table = profile(vit, images, measures=["attention_distance"])
    mean = table[table["head"] == "mean"]
    assert sorted(mean["layer"]) == list(vit.block_layers)
    assert mean["value"].between(1, 45).all()


# ------------------------------------------------------------------- equal to the plain functions


def test_feature_measures_equal_the_functions_on_extracted_features(vit, images):
    names = ["effective_rank", "participation_ratio", "token_stable_rank", "globality"]
    names += ["relative_log_amplitude", "mutual_neighbours"]
    table = profile(vit, images, measures=names, batch_size=5)
    kept = extract(vit, images, batch_size=5)
    for layer in vit.layers:
        z = kept[layer.index]
        pooled, positions = layer.pooled(z, "mean"), layer.positions(z)
        row = one(table, layer=layer.index, measure="effective_rank")
        assert row["value"] == pytest.approx(metrics.effective_rank(pooled), rel=1e-4)
        assert row["layer_name"] == layer.name
        assert row["images"] == 24
        row = one(table, layer=layer.index, measure="participation_ratio")
        assert row["value"] == pytest.approx(metrics.participation_ratio(pooled), rel=1e-4)
        spatial = table[(table["layer"] == layer.index) & (table["measure"] == "globality")]
        if layer.grid is None:
            assert spatial.empty
            continue
        assert spatial["value"].item() == pytest.approx(metrics.globality(positions), rel=1e-4)
        row = one(table, layer=layer.index, measure="token_stable_rank")
        flat = positions.flatten(0, 1)
        assert row["value"] == pytest.approx(metrics.stable_rank(flat), rel=1e-4)
        maps = positions.transpose(1, 2).unflatten(2, layer.grid)
        row = one(table, layer=layer.index, measure="relative_log_amplitude")
        expected = metrics.relative_log_amplitude(maps).mean(0)[-1]
        assert row["value"] == pytest.approx(float(expected), rel=1e-4)
    first, last = (vit.layers[i].pooled(kept[i], "mean") for i in (1, 3))
    row = one(table, layer=1, other_layer=3, measure="mutual_neighbours")
    assert row["value"] == pytest.approx(metrics.mutual_neighbours(first, last))


def test_cka_equals_the_accumulator_on_extracted_features(resnet, images):
    table = profile(resnet, images, measures=["cka"], batch_size=8, cka_pooled="all")
    kept = extract(resnet, images, batch_size=8)
    stream = metrics.CKA(len(kept))
    for start in range(0, 24, 8):
        stream.update([each[start : start + 8] for each in kept.values()])
    expected = stream.compute().value
    for i in (0, 3, len(kept) - 1):
        for j in (1, 3):
            row = one(table, layer=i, other_layer=j)
            assert row["value"] == pytest.approx(float(expected[i, j]), abs=1e-5)
            assert row["low"] <= row["value"] + 1e-9
    assert (table["network"] == resnet.name).all()


def test_attention_equals_the_map_of_the_unfused_model(vit, images):
    """The whole path against timm's own unfused attention: q and k from the module's weights."""
    table = profile(vit, images[:6], measures=["attention_distance", "prefix_share"])
    block = vit.module.blocks[2]
    with torch.no_grad():
        z = block.norm1(vit.run(images[:6], stop=vit.block_layers[2]))
        attn = block.attn
        batch, tokens, _ = z.shape
        qkv = attn.qkv(z).reshape(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = attn.q_norm(qkv[0]), attn.k_norm(qkv[1])
        p = (q * attn.scale @ k.mT).softmax(-1)
    layer = vit.layers[vit.block_layers[2]]
    pixels = (32 / layer.grid[0], 32 / layer.grid[1])
    distances = metrics.grid_distances(layer.grid, pixels)
    expected = metrics.attention_distance(p, distances, prefix=layer.prefix).mean(0)
    for head in range(attn.num_heads):
        row = one(table, layer=layer.index, measure="attention_distance", head=head)
        assert row["value"] == pytest.approx(float(expected[head]), rel=1e-5)
    row = one(table, layer=layer.index, measure="prefix_share", head="mean")
    share = float(metrics.prefix_share(p, prefix=layer.prefix).mean())
    assert row["value"] == pytest.approx(share, rel=1e-5)


def test_windows_have_global_distances():
    torch.manual_seed(0)
    module = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=(32, 64),
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 2),
        num_classes=3,
    ).eval()
    net = ap.load(module, input_shape=(3, 32, 64))
    images = torch.randn(4, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    table = profile(net, images, measures=["attention_distance"])
    mean = table[table["head"] == "mean"]
    assert len(mean) == 4
    # At random weights attention in a window is nearly uniform: 4 × 4 tokens of 4, then 8, pixels.
    uniform = [float(metrics.grid_distances((4, 4), (s, s)).mean()) for s in (4, 8)]
    assert mean["value"].iloc[0] == pytest.approx(uniform[0], rel=0.05)
    assert mean["value"].iloc[2] == pytest.approx(uniform[1], rel=0.05)
    # The mask of the shifted windows keeps tokens that the roll brought together apart.
    assert mean["value"].iloc[1] < uniform[0] * 1.02


def test_receptive_field_grows_with_depth(resnet, images):
    names = ["receptive_radius", "receptive_extent"]
    table = profile(resnet, images, measures=names, gradient_images=6)
    radius = table[table["measure"] == "receptive_radius"].sort_values("layer")
    assert radius["value"].iloc[0] < 3
    assert radius["value"].is_monotonic_increasing
    assert (radius["images"] == 6).all()


# ------------------------------------------------------------------------------------ one pass


def test_the_batch_size_changes_nothing_but_cka(vit, images):
    names = ["attention_distance", "attention_entropy", "effective_rank", "globality"]
    tables = [profile(vit, images, measures=names, batch_size=size) for size in (24, 5)]
    assert np.allclose(tables[0]["value"], tables[1]["value"], rtol=1e-4)


def test_only_one_layers_batch_is_alive(resnet, images):
    """Activations of earlier layers and batches are gone when the next layer is seen."""
    alive: list[weakref.ref] = []
    most = 0

    class Spy(watchers.Watcher):
        measures = ("spy",)

        def see(self, sight):
            nonlocal most
            alive[:] = [ref for ref in alive if ref() is not None]
            alive.append(weakref.ref(sight.z))
            most = max(most, len(alive))

        def rows(self):
            return iter([])

    original = watchers.WATCHERS
    watchers.WATCHERS = (*original, Spy)
    try:
        profile(resnet, images, measures=["spy", "cka", "effective_rank"], batch_size=6)
    finally:
        watchers.WATCHERS = original
    assert most <= 2  # this layer's, and the images of the batch


def test_shards_of_the_images_merge(vit, images):
    whole = metrics.Globality()
    halves = metrics.Globality(), metrics.Globality()
    layer = vit.layers[4]
    kept = layer.positions(extract(vit, images, layers=[4])[4])
    whole.update(kept)
    for half, part in zip(halves, kept.split(12), strict=True):
        half.update(part)
    halves[0].merge(halves[1])
    assert torch.allclose(halves[0].compute().value, whole.compute().value)


def test_tasks_splits_bytes_and_batches_are_the_same_images(vit):
    split = Labelled()
    options = {"measures": ["effective_rank"], "batch_size": 20}
    tables = [
        profile(vit, source, **options)
        for source in (split, split.pixels, vit.normalize(split.pixels), split.pixels.split(13))
    ]
    for table in tables[1:]:
        assert np.allclose(table["value"], tables[0]["value"], rtol=1e-4)


def test_labelled_measures(vit):
    split = Labelled()
    names = ["probe_accuracy", "logme", "class_distance_ratio"]
    table = profile(vit, split, measures=names, layers=[0, 4, -1], limit=45, seed=3)
    assert set(table["layer"]) == {0, 4, len(vit.layers) - 1}
    accuracy = table[table["measure"] == "probe_accuracy"]
    assert (accuracy["images"] == 45).all()
    assert accuracy["value"].iloc[0] > 0.9  # the colour means tell the classes apart
    again = profile(vit, split, measures=names, layers=[0, 4, -1], limit=45, seed=3)
    pd.testing.assert_frame_equal(table, again)
    with pytest.raises(InputError, match="need labels"):
        profile(vit, split.pixels, measures=["logme"])


def test_a_task_names_its_rows(vit):
    task = ap.task("digits")
    table = profile(vit, task, measures=["effective_rank"], limit=20, split="val", layers=[-1])
    row = table.iloc[0]
    assert (row["task"], row["split"], row["images"], row["depth"]) == ("digits", "val", 20, 1.0)


def test_attention_of_some_layers_runs_on_past_the_last(vit, images):
    last = vit.block_layers[-1]
    table = profile(vit, images[:4], measures=["attention_entropy"], layers=[2, last])
    assert sorted(table["layer"].unique()) == [2, last]


# ------------------------------------------------------------------------------------ refusals


def test_bad_requests_are_refused_in_a_sentence(vit, resnet, images):
    for call, words in (
        (lambda: profile(vit, images, measures=["cca"]), "Unknown measure 'cca'"),
        (lambda: profile(vit, images, layers=[99]), "no place 99"),
        (lambda: profile(vit, images[:0]), "no images"),
        (lambda: profile(vit, images, batch_size=0), "from 1 up"),
        (lambda: profile(resnet, images, measures=["attention_distance"]), "no attention"),
        (lambda: profile(vit, ap.task("digits"), split="dev"), "'val'"),
        (lambda: profile(vit, images[:3]), r"needs 4 images or more \(given: 3\)"),
        (lambda: profile(vit, ap.task("digits"), limit=2), r"\(given: 2\)"),
        (lambda: profile(vit, images, batch_size=3), "needs 4 images a batch"),
        (lambda: profile(vit, images[:6].split(3)), "no batch of 4 images or more came"),
        (lambda: extract(vit, images.split(4)), "does not tell"),
        (lambda: extract(vit, images[:0]), "no images"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_constant_layers_lose_their_rows_with_a_warning(resnet):
    same = torch.zeros(8, 3, 32, 32)
    with pytest.warns(UndefinedWarning, match="never varies"):
        table = profile(resnet, same, measures=["cka", "effective_rank_centred"], layers=[0, 3])
    assert set(table["measure"]) == {"effective_rank_centred"}
    assert (table["value"] == 0).all()


def test_a_single_image_is_measured_where_that_means_something(vit, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        table = profile(vit, images[:1], measures=["attention_distance", "globality"])
    assert table["value"].notna().all()
    assert set(table["measure"]) == {"attention_distance"}
    with pytest.raises(InputError, match="4 images"):
        profile(vit, images[:1], measures=["cka"])


# ---------------------------------------------------------------------------------- similarity


def test_similarity_of_two_networks(vit, resnet):
    split = Labelled(32)
    table = similarity(
        vit, resnet, images=split, batch_size=16, layers=[1, 4], other_layers=[0, 2, 5]
    )
    assert len(table) == 6
    left = extract(vit, split, batch_size=16)
    right = extract(resnet, split, batch_size=16)
    stream = metrics.CKA(2)
    layer = vit.layers[4]
    for start in (0, 16):
        a, b = left[4][start : start + 16, layer.prefix :], right[5][start : start + 16]
        stream.update([a, b])
    row = one(table, layer=4, other_layer=5)
    assert row["value"] == pytest.approx(float(stream.compute().value[0, 1]), abs=1e-5)
    assert (row["network"], row["other_network"]) == (vit.name, resnet.name)


def test_similarity_of_two_networks_sees_the_same_batches_in_both(vit):
    x = vit.normalize(Labelled(32).pixels)
    options = {"layers": [2], "other_layers": [2]}
    expected = similarity(vit, vit, images=list(x.split(8)), **options)["value"].item()
    assert expected == pytest.approx(1)
    shuffled = DataLoader(TensorDataset(x), batch_size=8, shuffle=True, collate_fn=stacked)
    for images in (iter(x.split(8)), shuffled):
        found = similarity(vit, vit, images=images, **options)
        assert found["value"].item() == pytest.approx(1, abs=1e-5)
        assert found["images"].item() == 32
    endless = similarity(vit, vit, images=itertools.cycle(x.split(8)), limit=16, **options)
    assert endless["images"].item() == 16


def stacked(samples):
    return torch.stack([image for (image,) in samples])


def test_a_network_in_training_mode_is_refused(resnet, images):
    resnet.module.train()
    try:
        for look in (lambda: extract(resnet, images), lambda: profile(resnet, images)):
            with pytest.raises(InputError, match="is in training mode, .* call net.eval.. first"):
                look()
    finally:
        resnet.eval()


def test_extract_refuses_what_does_not_know_its_images(vit, images):
    with pytest.raises(InputError, match="must know the number of images before it starts"):
        extract(vit, DataLoader(TensorDataset(images), batch_size=7))


def test_extracted_files_that_are_removed_meanwhile_are_named(vit, tmp_path):
    class Removing(Labelled):
        def images(self, indices, size):
            (tmp_path / "train.npz").unlink(missing_ok=True)
            return super().images(indices, size)

    task = ap.task("digits").subset(train=20, val=10, test=10)
    task = replace(task, val=Removing(6))
    with pytest.raises(InputError, match=r"train.npz was removed while the others"):
        extract_to(vit, task, tmp_path, layers=[3], splits=("train", "val"))
    assert not (tmp_path / "features.json").exists()


def test_a_table_without_rows_has_its_columns(vit):
    with pytest.warns(UndefinedWarning):
        table = profile(vit, Labelled(1), measures=("logme",), layers=[2])
    assert table.empty
    assert list(table.columns) == list(COLUMNS)


def test_similarity_exactly(resnet, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.ChanceWarning)
        table = similarity(resnet, images=images, exact=True, layers=[0, 2, -1], batch_size=7)
        kept = extract(resnet, images, layers=[0, 2, -1])
        for measure, estimator in (("cka", "unbiased"), ("cka_biased", "biased")):
            expected = metrics.cka_map(list(kept.values()), estimator=estimator)
            found = table[table["measure"] == measure]
            square = found.pivot(index="layer", columns="other_layer", values="value").values
            assert np.allclose(square, expected, atol=1e-6)
    rbf = similarity(resnet, images=images, exact=True, layers=[0, 2], kernel="rbf")
    expected = metrics.cka(kept[0], kept[2], kernel="rbf")
    row = one(rbf, layer=0, other_layer=2, measure="cka")
    assert row["value"] == pytest.approx(expected, abs=1e-6)


def test_batches_normalises_bytes_only(vit):
    pixels = Labelled(4).pixels
    ((x, labels),) = batches(vit, pixels, batch_size=8)
    assert labels is None
    assert torch.equal(x, vit.normalize(pixels))


def test_maps_in_reused_memory_are_the_same_maps(vit, images):
    from aptheory.networks.attention import observe_attention

    kept: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for reuse, maps in kept.items():
        with torch.no_grad():
            plain = vit(images[:3])
            with observe_attention(vit, lambda _, p, m=maps: m.append(p.clone()), reuse=reuse):
                assert torch.equal(vit(images[:3]), plain)
                vit(images[3:5])  # another shape
            with torch.inference_mode(), observe_attention(vit, lambda *_: None, reuse=reuse):
                vit(images[:3])
    assert len(kept[True]) == 2 * len(vit.block_layers)
    for a, b in zip(kept[False], kept[True], strict=True):
        assert torch.equal(a, b)
    assert torch.allclose(kept[True][0].sum(-1), torch.ones(()), atol=1e-5)


def test_a_measure_that_is_named_twice_is_measured_once(resnet, images):
    once = ap.profile(resnet, images, measures=("attention_distance", "effective_rank"))
    named = ("attention_distance", "attention_distance", "effective_rank", "effective_rank")
    pd.testing.assert_frame_equal(once, ap.profile(resnet, images, measures=named))
    with pytest.raises(InputError, match="attention"):
        ap.profile(resnet, images, measures=named[:2])


def test_what_another_thread_runs_in_the_network_is_not_seen(vit, resnet, images):
    for net in (vit, resnet):
        measures = ["attention_distance"] if net is vit else ["moment_shift"]
        alone = profile(net, images, measures=measures, batch_size=4)
        ended = threading.Event()

        def extract_on(net=net, ended=ended):
            while not ended.is_set():
                extract(net, images[:8], batch_size=4)

        others = [threading.Thread(target=extract_on) for _ in range(2)]
        for other in others:
            other.start()
        try:
            beside = profile(net, images, measures=measures, batch_size=4)
        finally:
            ended.set()
            for other in others:
                other.join()
        pd.testing.assert_frame_equal(beside, alone)
