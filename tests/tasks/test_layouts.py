"""What people's folders and lists hold beside plain pictures: read as it is, said, or refused."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import aptheory as ap
from aptheory import tasks
from aptheory.errors import InputError
from aptheory.tasks.pictures import Scale, read_header, with_channels
from aptheory.tasks.readers.files import decode_image
from aptheory.tasks.sheets import write_sheets
from aptheory.tasks.splits import stratified_cut
from aptheory.tasks.survey import survey
from tests.tasks import tasks_fixtures as make

TWO = {"train": {"a": 5, "b": 5}, "test": {"a": 2, "b": 2}}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


def sizes(task):
    return [len(split) for split in (task.train, task.val, task.test)]


def test_each_real_folder_is_read_once(tmp_path):
    place = make.folder(tmp_path / "s", {"": {"cat": 10, "dog": 10}})
    (place / "cat" / "latest").symlink_to(".")
    (place / "dog" / "up").symlink_to("..")
    (place / "cat" / "self").symlink_to("self")
    (place / "again").symlink_to("dog")
    task = ap.task(place)
    assert task.classes == ("cat", "dog")
    assert sum(sizes(task)) == 20
    assert task.left_out["link into a folder that is read already"] >= 2
    assert task.left_out["link that leads nowhere"] == 1


def test_split_folders_may_be_links(tmp_path):
    make.folder(tmp_path / "s" / "raw", TWO)
    (tmp_path / "s" / "train").symlink_to("raw/train")
    (tmp_path / "s" / "test").symlink_to("raw/test")
    assert sizes(ap.task(f"folder:{tmp_path / 's'}")) == [8, 2, 4]


def test_what_is_left_out_is_counted(tmp_path):
    place = make.folder(tmp_path / "s", TWO)
    for name in ("@eaDir", ".ipynb_checkpoints", "__MACOSX"):
        make.folder(place / "train" / name, {"": {"": 2}})
    data = make.encoded(make.picture(201), "JPEG")
    (place / "train/a/one.jfif").write_bytes(data)
    (place / "train/a/two").write_bytes(make.encoded(make.picture(202), "JPEG"))
    (place / "train/a/notes.txt").write_text("no picture")
    (place / "train/a/drawing.svg").write_text("<svg/>")
    (place / "train/empty").mkdir()
    (place / "train/a/000_mask.png").write_bytes(make.encoded(make.picture(3)))
    os.mkfifo(place / "train/a/pipe")
    make.folder(place / "extra", {"": {"": 3}})
    task = ap.task(place)
    assert task.classes == ("a", "b")
    assert sizes(task)[0] + sizes(task)[1] == 12  # .jfif, and by content the one without a suffix
    assert task.left_out == {
        "class folder 'empty' without a picture that is read": 1,
        "file .txt": 1,
        "hidden or system folder .ipynb_checkpoints": 1,
        "hidden or system folder @eaDir": 1,
        "hidden or system folder __MACOSX": 1,
        "mask or depth map beside its picture": 1,
        "picture .svg, which is not read": 1,
        "picture in folder 'extra' beside the splits": 3,
        "pipe or device": 1,
    }


@pytest.mark.parametrize("name", ["dev", "eval", "validation", "Valid"])
def test_names_of_validation(tmp_path, name):
    place = make.folder(tmp_path / "s", {**TWO, name: {"a": 1, "b": 1}})
    assert sizes(ap.task(place)) == [10, 2, 4]
    data = make.arrays()
    np.savez(
        tmp_path / "d.npz", **data, **{f"x_{name}": data["x_test"], f"y_{name}": data["y_test"]}
    )
    assert sizes(ap.task(tmp_path / "d.npz")) == [40, 12, 12]
    make.folder(place, {"val": {"a": 1, "b": 1}})
    with pytest.raises(InputError, match="two val folders"):
        ap.task(place)


def test_a_class_may_be_called_train_or_a_number(tmp_path):
    counts = {"": {"train": 5, "bus": 5, "1.5": 5, "nan": 5}}
    task = ap.task(make.folder(tmp_path / "s", counts))
    assert task.classes == ("1.5", "bus", "nan", "train")


def test_names_composed_in_two_ways_are_one_class_and_it_is_said(tmp_path, caplog):
    composed, apart = "caf\u00e9", "cafe\u0301"
    counts = {"train": {composed: 5, "b": 5}, "test": {apart: 2, "b": 2}}
    with caplog.at_level("INFO", logger="aptheory"):
        assert ap.task(make.folder(tmp_path / "s", counts)).classes == ("b", composed)
    assert caplog.messages == [f"class '{composed}' is written in 2 ways of Unicode: one class"]


def test_names_that_differ_by_case_are_two_classes_and_it_is_said(tmp_path, caplog):
    with caplog.at_level("INFO", logger="aptheory"):
        task = ap.task(make.folder(tmp_path / "s", {"": {"Cat": 5, "cat": 5, "dog": 5}}))
    assert task.classes == ("Cat", "cat", "dog")
    assert any("'Cat' and 'cat', which differ by case alone" in text for text in caplog.messages)


def test_a_task_says_how_its_pictures_become_images(tmp_path):
    root = make.folder(tmp_path / "s", {"": {"a": 5, "b": 5}})
    (root / "a/000.jpg").rename(root / "a/000")
    task = ap.task(root)
    told = "1 without a suffix and 9 .jpg files; "
    assert f"{told}made images by the evaluation transform of the network" in str(task)
    assert f"{told}shorter side resized, aspect ratio kept" in str(task.resized("center"))
    assert f"{told}resized without keeping the aspect ratio" in str(task.resized("squash"))
    assert "without keeping the aspect ratio" in str(ap.task("orientation"))


def test_folders_of_pictures_and_masks_are_asked_about(tmp_path):
    with pytest.raises(
        InputError, match=r"not like classes; name the pictures: folder:PATH/images"
    ):
        ap.task(make.folder(tmp_path / "s", {"": {"images": 4, "masks": 4}}))


def test_lists_may_not_lead_out_of_their_folder(tmp_path):
    root = make.vtab_folder(tmp_path / "v", test=10)
    (tmp_path / "secret.png").write_bytes(make.encoded(make.picture(3)))
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        (root / "test.txt").write_text(f"{path} 1\n")
        with pytest.raises(InputError, match="leads out of"):
            ap.task(f"vtab:{root}")


def test_tables(tmp_path):
    place = make.folder(tmp_path / "p", {"": {"a": 9, "b": 9}})
    names = sorted(str(file.relative_to(tmp_path)) for file in place.rglob("*.jpg"))
    rows = [f"{name};{name[2]};{number // 3}" for number, name in enumerate(names)]
    file = tmp_path / "list.csv"
    file.write_text("\ufeffbild;klasse;patient\n" + "\n".join([*rows, rows[0]]))
    with pytest.raises(InputError, match="name it: csv:FILE\\?path=COLUMN"):
        ap.task(f"csv:{file}")
    task = ap.task(f"csv:{file}?path=bild&label=klasse&group=patient")
    assert task.classes == ("a", "b")
    assert task.left_out == {"row that repeats a picture": 1}
    groups = [{names.index(key) // 3 for key in s.keys} for s in (task.train, task.val, task.test)]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 6  # no patient on two sides
    file.write_text("\n".join(f"{name},{name[2]}" for name in names))  # without a head
    assert sum(sizes(ap.task(file))) == 18
    file.write_text(f"path,label\n{names[0]},a\n{names[0]},b\n")
    with pytest.raises(InputError, match="has two labels"):
        ap.task(file)


def test_a_cut_never_parts_copies_or_groups(tmp_path):
    place = make.folder(tmp_path / "s", {"": {"a": 20, "b": 20}})
    for number in range(10):
        data = (place / f"a/{number:03d}.jpg").read_bytes()
        (place / f"a/copy{number}.jpg").write_bytes(data)
    for seed in range(3):
        task = ap.task(place, seed=seed)
        assert "copies kept on one side" in task.provenance
        assert not survey(task, progress=False).copies_across()
    labels, groups = np.arange(60) % 2, np.arange(60) // 6
    for part in stratified_cut(labels, (0.6, 0.2, 0.2), seed=0, groups=groups):
        assert len(part) == 6 * len(np.unique(groups[part]))
    task = ap.task(place, group=lambda path: path[-len("0.jpg")])
    assert "groups kept whole" in task.provenance


def test_folders_inside_a_class_folder_are_said(tmp_path):
    place = make.folder(tmp_path / "s", {"": {"cat": 9, "cat/kitten": 4, "dog": 9}})
    task = ap.task(place)
    assert sum(sizes(task)) == 22
    said = "4 pictures lie in folders inside a class folder ('cat/kitten') and are taken for"
    assert said in " ".join(task.notes)
    assert said in " ".join(str(tasks.check(place)).split())
    assert "inside a class folder" in repr(task)
    flat = ap.task(make.folder(tmp_path / "flat", {"": {"cat": 9, "dog": 9}}))
    assert not any("inside" in note for note in flat.notes)


def test_groups_of_arrays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 4, 4, 3), dtype=np.uint8)
    patients = np.arange(48) // 4
    whole = {"x": pixels, "y": np.arange(48) % 2, "patient": patients}
    np.savez(tmp_path / "a.npz", **whole)
    for task in (
        ap.task(f"npz:{tmp_path / 'a.npz'}?group=patient"),
        ap.task(tmp_path / "a.npz", group="patient"),
    ):
        assert "12 groups kept whole" in task.provenance
        assert not task.left_out
        where = {image.tobytes(): patient for image, patient in zip(pixels, patients, strict=True)}
        parts = (task.train, task.val, task.test)
        seen = [{where[image.tobytes()] for image in part.pixels} for part in parts]
        assert sum(map(len, seen)) == len(set().union(*seen)) == 12
    with pytest.raises(InputError, match="has no array 'ward' to group by"):
        ap.task(f"npz:{tmp_path / 'a.npz'}?group=ward")
    np.savez(tmp_path / "b.npz", **{**whole, "patient": patients[:5]})
    with pytest.raises(InputError, match="one value for each of the 48"):
        ap.task(f"npz:{tmp_path / 'b.npz'}?group=patient")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("digits", "comes with its splits"),
        ("cifar100", "comes with its splits"),
        ("vtab:x", "cuts nothing"),
        ("tfds:x", "published splits"),
        ("torchvision:CIFAR10", "nothing to group them by"),
        ("folder:x", "names no column"),
        ("fgvc:x", "names no column"),
    ],
)
def test_why_there_are_no_groups(source, reason):
    with pytest.raises(InputError, match=reason):
        ap.task(source, group="patient")


def test_folds_test_every_picture_once(tmp_path):
    task = ap.task(make.folder(tmp_path / "s", {"": {"a": 15, "b": 15}}))
    folds = task.folds(3)
    assert sorted(np.concatenate([fold.test.indices for fold in folds])) == list(range(30))
    for fold in folds:
        assert np.bincount(fold.test.labels).tolist() == [5, 5]
        assert not set(fold.train.indices) & {*fold.val.indices, *fold.test.indices}


def test_check_names_damage_and_copies(tmp_path):
    place = make.folder(tmp_path / "s", {"train": {"a": 6, "b": 6}, "test": {"a": 2, "b": 2}})
    (place / "test/a/000.jpg").write_bytes((place / "train/a/001.jpg").read_bytes())
    checked = tasks.check(f"folder:{place}", progress=False)
    assert checked.ok
    ((a, x, b, y),) = checked.survey.copies_across()
    assert {a, b} <= {"train", "val", "test"}
    assert {x, y} == {"train/a/001.jpg", "test/a/000.jpg"}
    (place / "train/b/003.jpg").write_bytes(b"no picture")
    checked = tasks.check(f"folder:{place}", progress=False)
    assert not checked.ok
    assert "train/b/003.jpg cannot be decoded" in str(checked)
    assert len(write_sheets(checked.task, tmp_path / "sheets")) == 2


def test_a_class_that_no_image_has_and_one_of_two_lines_are_told_plainly(tmp_path):
    place = make.folder(tmp_path / "s", {"": {"a": 6, "b\nc": 6}})
    lines = str(tasks.check(f"folder:{place}", progress=False)).splitlines()
    assert any(line.split() == ["b\\nc", "4", "1", "1"] for line in lines)
    x, y = np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 2
    np.savez(tmp_path / "d.npz", x=x, y=y, class_names=["a", "b", "never"])
    with pytest.raises(InputError, match="d.npz has no image of class 'never'"):
        ap.task(tmp_path / "d.npz")


@pytest.mark.filterwarnings("ignore:.*(Corrupt EXIF|Truncated File):UserWarning")
def test_check_reads_the_first_frame_of_a_file_that_is_cut_short(tmp_path):
    place = make.folder(tmp_path / "s", {"": {"a": 6, "b": 6}})
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    for form in ("tiff", "gif"):
        file = place / f"a/pages.{form}"
        pages[0].save(file, save_all=True, append_images=pages[1:])
        file.write_bytes(file.read_bytes()[: 3 * file.stat().st_size // 5])
    checked = tasks.check(f"folder:{place}", progress=False)
    assert checked.ok
    assert "the first frame of a file that is cut short" in str(checked)


@pytest.mark.parametrize("form", ["TIFF", "GIF"])
def test_no_more_frames_are_counted_than_anybody_asks_for(form, monkeypatch):
    pages = [Image.new("L", (8, 8), shade) for shade in range(9)]
    file = io.BytesIO()
    pages[0].save(file, form, save_all=True, append_images=pages[1:])
    assert read_header(file.getvalue(), frames=True).frames == 9
    monkeypatch.setattr("aptheory.tasks.pictures.MOST_FRAMES", 4)
    assert read_header(file.getvalue(), frames=True).frames == 4
    assert read_header(file.getvalue()).frames == 1


def test_bombs_are_refused_at_once(tmp_path):
    file = tmp_path / "s.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(6):
            archive.writestr(f"{'ab'[number % 2]}/{number}.bmp", bytes(2**25 + number))
    with pytest.raises(InputError, match="would grow to 34 MB"):
        ap.task(file).train.images([0], (8, 8))
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000, 1)}
    np.lib.format.write_array_header_1_0(header, form)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    with pytest.raises(InputError, match="promises 1,000,000,000,000 bytes of numbers, and"):
        ap.task(tmp_path / "d.npz")
    np.savez_compressed(tmp_path / "e.npz", x=np.array([{}]), y=[0])
    with pytest.raises(InputError, match="an array of Python objects"):
        ap.task(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("mode", "form", "side"),
    [("RGBA", "PNG", 4200), ("LA", "PNG", 4200), ("I;16", "PNG", 4200), ("L", "PNG", 6400),
     ("RGB", "PNG", 7200), ("CMYK", "TIFF", 5100), ("F", "TIFF", 4200), ("RGB", "WEBP", 3600),
     ("RGB", "JPEG2000", 3200)],
)  # fmt: skip
def test_a_picture_that_would_take_too_much_memory_is_refused(mode, form, side):
    options = {"compression": "tiff_deflate"} if form == "TIFF" else {}
    data = io.BytesIO()
    Image.new(mode, (side, side)).save(data, form, **options)
    with pytest.raises(InputError, match=f"{side}×{side} pixels in .* grow too large"):
        decode_image(data.getvalue(), "bomb")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F"])
def test_pictures_are_read_strip_by_strip_as_at_once(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 2**16, (11, 7, 4))
    image = Image.fromarray((values >> 8).astype(np.uint8), "RGBA")
    if mode in ("LA", "P"):
        image = image.convert(mode)
    elif mode != "RGBA":
        depth = {"I;16": np.uint16, "F": np.float32}[mode]
        image = Image.fromarray(values[..., 0].astype(depth))
    data = io.BytesIO()
    transparent = {"transparency": 3} if mode == "P" else {}
    image.save(data, "TIFF" if mode == "F" else "PNG", **transparent)
    whole = decode_image(data.getvalue(), "picture")
    monkeypatch.setattr("aptheory.tasks.pictures.STRIP", 2)
    assert (decode_image(data.getvalue(), "picture") == whole).all()
    if mode in ("RGBA", "LA"):
        grey, alpha = np.asarray(image.convert("RGBA"), float)[..., :3], np.asarray(image)[..., -1:]
        assert abs(whole - (grey * alpha + 255.0 * (255 - alpha)) / 255).max() <= 1


def test_a_large_array_that_is_packed_very_small_is_refused_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr("aptheory.tasks.readers.npz.LARGE", 10**5)
    black = {"x": np.zeros((60, 64, 64, 3), np.uint8), "y": np.arange(60) % 2}
    black["x"][:, 0, 0, 0] = range(60)
    np.savez_compressed(tmp_path / "black.npz", **black)
    with pytest.raises(InputError, match="would take 1 MB unpacked, more than 200 times"):
        ap.task(tmp_path / "black.npz")
    np.savez(tmp_path / "black.npz", **black)
    assert len(ap.task(tmp_path / "black.npz").classes) == 2


def test_the_fault_of_a_users_function_is_not_one_of_the_pictures(tmp_path):
    place = make.folder(tmp_path / "s", {"": {"a": 3, "b": 3}})
    with pytest.raises(InputError, match="given as group raised ZeroDivisionError.*; mend it"):
        ap.task(f"folder:{place}", group=lambda *path: 1 / 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 2048, 4095], [0, 128, 255]),
        ([0, 32768, 65535], [0, 128, 255]),
        ([-1024, 0, 3071], [0, 64, 255]),
        ([30000, 30050, 30100], [0, 100, 200]),
        ([0, 1, 1], [0, 255, 255]),
    ],
)
def test_scales_of_whole_sets(values, expected):
    values = np.array(values)
    scale = Scale.of(float(values.min()), float(values.max()), True)
    assert np.abs(scale(values).astype(int) - expected).max() <= 1


def test_channels_are_brought_to_the_networks_own_or_refused():
    grey = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(with_channels(with_channels(grey, 3, "net"), 1, "net"), grey)
    bands = torch.zeros(2, 12, 4, 4, dtype=torch.uint8)
    assert with_channels(bands, 12, "net") is bands
    with pytest.raises(InputError, match="net takes 3 channels, but the pictures have 12"):
        with_channels(bands, 3, "net")
    task = tasks.Task.from_arrays(
        np.zeros((30, 4, 4, 12), np.uint8) + np.arange(30)[:, None, None, None].astype(np.uint8),
        np.arange(30) % 2,
    )
    assert task.train.images([0], (2, 2)).shape == (1, 12, 2, 2)


class Drawn:
    """A split of somebody's own: floats from 0 to 1, and if ``random`` other ones at each look."""

    def __init__(self, anew):
        self.labels = np.arange(20) % 2
        self.anew = anew
        self.generator = np.random.default_rng(0)
        self.pixels_ = self.generator.random((20, 3, 8, 8), dtype=np.float32)

    def __len__(self):
        return 20

    def images(self, indices, size):
        chosen = self.pixels_[np.asarray(indices)]
        return torch.from_numpy(chosen * self.generator.random() if self.anew else chosen)


@pytest.mark.parametrize(("dark", "read"), [(1, True), (8, False)])
def test_the_set_says_what_floats_stand_for(dark, read, caplog):
    """One nearly black picture among pictures from 0 to 255 is that; half of them are another
    range."""
    values = np.random.default_rng(0).random((16, 3, 8, 8), dtype=np.float32) * 255
    values[:dark] /= 300

    class Given:
        labels = np.arange(16) % 2
        random = False

        def __len__(self):
            return 16

        def images(self, indices, size):
            return torch.from_numpy(values[np.asarray(indices)])

    task = tasks.Task("own", ("a", "b"), Given(), Given(), Given())
    if read:
        expected = torch.from_numpy(np.rint(values)).to(torch.uint8)
        assert torch.equal(task.train.images(range(16), (8, 8)), expected)
        assert "nearly black" in caplog.text
    else:
        with pytest.raises(InputError, match="others from 0 to 255"):
            task.train.images(range(16), (8, 8))


def test_splits_of_the_users_own():
    still, moving = (
        tasks.Task("own", ("a", "b"), Drawn(anew), Drawn(False), Drawn(False))
        for anew in (False, True)
    )
    expected = torch.from_numpy(np.rint(Drawn(False).pixels_[:4] * 255)).to(torch.uint8)
    assert torch.equal(still.train.images(range(4), (8, 8)), expected)  # never divided twice
    assert not still.train.random
    assert moving.train.random
    with pytest.raises(InputError, match="anew at every look"):
        moving.digest  # noqa: B018
    with pytest.raises(InputError, match="cannot be decoded once"):
        tasks.decoded(moving.train, (8, 8))


def test_augmentation_is_drawn_anew_and_by_the_seed():
    from torchvision.transforms import v2

    task = ap.task("digits", augment=v2.RandomRotation(40))
    first, second = (task.train.images(range(8), (16, 16)) for _ in range(2))
    assert not torch.equal(first, second)
    again = [
        task.train.images(range(8), (16, 16), generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(*again)
    plain = ap.task("digits")
    assert torch.equal(task.test.images([0], (8, 8)), plain.test.images([0], (8, 8)))
    assert task.digest not in (plain.digest, ap.task("digits", augment=v2.Identity()).digest)
    assert plain.augmented(v2.RandomRotation(40)).digest == task.digest


def test_everything_that_takes_a_task_takes_what_makes_one(tmp_path):
    from torch.utils.data import DataLoader, TensorDataset

    pixels = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    data = TensorDataset(pixels, torch.arange(40) % 2)
    for source in (data, DataLoader(data, 8, shuffle=True), [(x, int(y)) for x, y in data]):
        assert sizes(ap.task(source)) == [24, 8, 8]
    assert sizes(ap.task((pixels.permute(0, 2, 3, 1).numpy(), np.arange(40) % 2))) == [24, 8, 8]
    two = [{"image": pixels[0], "depth": pixels[1], "label": 0}] * 3
    assert "'image'" in tasks.Task.from_dataset(_distinct(two)).provenance
    unclear = [{"left": pixels[0], "right": pixels[1], "label": 0}] * 3
    with pytest.raises(InputError, match="several pictures"):
        ap.task(unclear)
    for nothing in (None, 5, object(), {}):
        with pytest.raises(InputError):
            ap.task(nothing)
    net = ap.load("aptheory_vit_mini")
    pictures = [Image.fromarray(make.picture(n, (20, 30))) for n in range(4)]
    assert ap.extract(net, pictures, layers=[1])[1].shape[0] == 4
    assert "classes" in repr(ap.task(data))


def _distinct(samples):
    return [{**s, "image": s["image"] + n, "label": n % 2} for n, s in enumerate(samples * 6)]


@pytest.mark.parametrize(
    ("low", "high", "black", "white"),
    [(0.1, 0.9, 0, 1), (0.03, 1.47, 0.03, 1.47), (0, 40.5, 0, 40.5), (0.5, 200, 0, 255),
     (-3, 60, -3, 60), (10, 3000, 10, 3000)],
)  # fmt: skip
def test_floats_are_shares_bytes_or_brought_to_bytes_by_their_range(low, high, black, white):
    scale = Scale.of(low, high, whole=False)
    assert (scale.low, scale.high) == (black, white)
    assert scale(np.array([black, (black + white) / 2, white])).tolist() == [0, 128, 255]
