"""What becomes of a picture before a network sees it: upright, 8 bits, no transparency.

Orientation that EXIF states is applied; transparency is laid on white; of several frames the first
is read. Pictures deeper than 8 bits, and those of floats, are brought to 8 by the range of values
of their whole set, so that a set of 12 bits in files of 16 does not turn black.
"""

import contextlib
import functools
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError

GROUND = (255, 255, 255)  # what transparent pictures are laid on
LARGE = 1 << 24  # pixels; larger pictures are decoded one at a time, to bound the memory
MAX_BYTES = 1 << 28  # of one encoded picture
ALWAYS = 12 * LARGE  # bytes of memory on the way to RGB that any file may take
RATIO = 400  # of those bytes to a larger picture's own; photographs come to 80
DARK = 64  # floats that stay below are no bytes: reflectance and light reach a little above 1
STRIP = 256  # rows of a picture that are made RGB at a time where that takes copies
FORMATS = frozenset(
    ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")
) | {"HEIF", "JXL"}  # by Pillow's names: others, as EPS, it would hand to an interpreter
DECODERS = {"JPEG2000": 20, "WEBP": 16, "AVIF": 12, "HEIF": 12, "JXL": 12}
MOST_FRAMES = 100  # that are counted
ORIENTATION = 0x0112
_one_large = threading.RLock()


@dataclass(frozen=True)
class Scale:
    """How a set's own values become 8 bits: from ``low`` to ``high``, both included.

    Whole numbers of more than 8 bits lose their lowest bits; other ranges are stretched.
    """

    low: float
    high: float
    whole: bool = True

    @classmethod
    def of(cls, low: float, high: float, whole: bool) -> "Scale":
        """The scale of a set whose values run from ``low`` to ``high``."""
        if not whole:
            if low >= 0 and high <= 1:
                return cls(0.0, 1.0, False)
            if low >= 0 and DARK <= high <= 255:  # bytes, written as floats
                return cls(0.0, 255.0, False)
            return cls(low, high, False)
        # Far from zero the offset says nothing (a depth in millimetres, a signed CT number).
        start = low if low < 0 or high - low < high / 16 else 0
        bits = int(high - start).bit_length()
        bits = 16 if bits == 15 else bits  # most of 16 bits, though not the highest
        if start == 0 and bits >= 5:
            bits = max(8, bits)  # 8 bits of dark pictures are 8 bits
        return cls(start, start + 2**bits - 1)

    @property
    def text(self) -> str:
        """The scale in words."""
        return f"values {self.low:g} to {self.high:g} brought to 0 to 255"

    @property
    def plain(self) -> bool:
        """Whether it is 16 bits of which the high byte is kept."""
        return self.whole and (self.low, self.high) == (0, 65535)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        span = self.high - self.low
        if self.whole:
            shifted = np.clip(values.astype(np.int64) - int(self.low), 0, int(span))
            if span >= 255:
                return (shifted >> (int(span).bit_length() - 8)).astype(np.uint8)
            return np.rint(shifted * 255 / max(1, span)).astype(np.uint8)
        stretched = (values.astype(np.float64) - self.low) / (span or 1)
        return np.rint(stretched.clip(0, 1) * 255).astype(np.uint8)


@functools.cache
def _init() -> None:
    from PIL import Image

    Image.init()


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """The image with its header read; large ones are open one at a time."""
    from PIL import Image

    _init()
    known = [form for form in Image.OPEN if form in FORMATS]  # a plugin's join when it is imported
    with Image.open(io.BytesIO(data), formats=known) as image:
        width, height = image.size
        if width * height * _bytes_a_pixel(image, data) > max(ALWAYS, RATIO * len(data)):
            raise ValueError(
                f"{width}×{height} pixels in {len(data) / 1e6:.1f} MB, which would grow too large"
            )
        limit = Image.MAX_IMAGE_PIXELS  # Pillow's own limit, which a user can raise
        if limit and width * height > limit:
            raise ValueError(
                f"{width}×{height} pixels, more than the {limit / 1e6:.0f} million of "
                "PIL.Image.MAX_IMAGE_PIXELS"
            )
        with _one_large if width * height > LARGE else contextlib.nullcontext():
            yield image


def _bytes_a_pixel(image: Any, data: bytes) -> int:
    """Of memory on the way to RGB: the decoder's copies where it has any (measured), Pillow's own
    (RGB takes four), and what is made of it."""
    if image.format in DECODERS:
        return DECODERS[image.format]
    if may_be_transparent(image) or bits_of(image, data) > 8:
        return 12
    if image.format in ("JPEG", "MPO", "TIFF") and orientation_of(image) != 1:
        return 8  # a turned copy; other formats say it behind the pixels, if at all
    return {"RGB": 4, "1": 5, "L": 5, "P": 5}.get(image.mode, 8)


@dataclass(frozen=True)
class Header:
    """What the header of an encoded picture states."""

    form: str
    mode: str
    size: tuple[int, int]  # width, height
    orientation: int
    frames: int | None  # None where they cannot be counted: the file is cut short behind the first
    bits: int
    transparent: bool

    @property
    def deep(self) -> bool:
        """Whether its values need a scale."""
        return self.bits > 8


def read_header(data: bytes, *, frames: bool = False) -> Header:
    """The header, no pixel decoded (``frames`` are counted only if asked for: it takes a pass)."""
    with opened(data) as image:
        header = Header(
            form=str(image.format),
            mode=image.mode,
            size=image.size,
            orientation=orientation_of(image),
            frames=1,
            bits=bits_of(image, data),
            transparent=may_be_transparent(image),
        )
        return replace(header, frames=frames_of(image)) if frames else header


def may_be_transparent(image: Any) -> bool:
    """Whether an image has a band, or a colour, that says how far one sees through it."""
    return "transparency" in image.info or (image.mode != "LAB" and "A" in image.mode.upper())


def orientation_of(image: Any) -> int:
    """EXIF's orientation, 1 (upright) where there is none that can be read."""
    with contextlib.suppress(Exception):  # a damaged EXIF block does not damage the picture
        value = image.getexif().get(ORIENTATION, 1)
        return value if value in range(2, 9) else 1
    return 1


def frames_of(image: Any) -> int | None:
    """How many pictures a file holds, `MOST_FRAMES` for more than are counted; None where it is cut
    short behind the first. The image is left at another frame."""
    try:
        if image.format not in ("TIFF", "GIF"):  # others say it in their header
            return min(int(getattr(image, "n_frames", 1)), MOST_FRAMES)
        for number in range(1, MOST_FRAMES):
            try:
                image.seek(number)
            except EOFError:
                return number
        return MOST_FRAMES
    except Exception:  # Pillow raises nearly anything on the way through damaged frames
        return None


def bits_of(image: Any, data: bytes) -> int:
    """Bits of one value: 8, 16, or 32 (mode F too)."""
    if image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        return 32
    if image.format == "PNG" and data[24:25] == b"\x10":  # colour, of which Pillow gives 8 bits
        return 16
    if image.format == "TIFF" and max(_tuple(image.tag_v2.get(258, 8))) > 8:
        return 16
    return 8


def deep_values(image: Any, data: bytes) -> np.ndarray:
    """The values of a deep picture, (height, width) or (height, width, channels), as stored."""
    if image.mode[0] in "IF":
        image.load()
        values = np.asarray(upright(image))
        if image.mode == "F" and not np.isfinite(values).all():
            raise ValueError("NaN or infinity among its pixels")
        return values
    if image.format != "PNG":
        raise ValueError(f"{image.format} of 16-bit colours; save it as PNG, or with 8 bits")
    import torch
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    values = decode_image(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return turned(values, orientation_of(image))


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array (height, width, ...) set upright from one of EXIF's eight orientations."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    values = values[::-1] if flip_rows else values
    return values[:, ::-1] if flip_columns else values


def upright_rgb(image: Any, data: bytes, scale: Callable[[], Scale] | None = None) -> Any:
    """The picture in mode RGB, from an opened image and its bytes.

    ``scale`` gives the scale of the set, asked for by deep pictures alone; without it a deep
    picture is brought to 8 bits by its own range. Raises whatever Pillow raises, and ValueError.
    """
    if bits_of(image, data) > 8:
        values = deep_values(image, data)
        return _deep_rgb(values, scale() if scale else Scale.of(*range_of(values)))
    image.load()
    image = upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    return on_ground(image)


def on_ground(image: Any) -> Any:
    """The image in mode RGB, its transparent parts laid on white."""
    from PIL import Image

    if not may_be_transparent(image):
        return image.convert("RGB")
    laid = Image.new("RGB", image.size, GROUND)
    width, height = image.size
    for top in range(0, height, STRIP):
        strip = image.crop((0, top, width, min(top + STRIP, height))).convert("RGBA")
        if strip.getextrema()[3][0] < 255:
            ground = Image.new("RGBA", strip.size, (*GROUND, 255))
            strip = Image.alpha_composite(ground, strip)
        laid.paste(strip.convert("RGB"), (0, top))
    return laid


def range_of(values: np.ndarray) -> tuple[float, float, bool]:
    """(least, greatest, whole numbers?) of a deep picture's colours."""
    colours = values[..., : _colours(values)] if values.ndim == 3 else values
    whole = values.dtype.kind in "iu"
    return float(colours.min()), float(colours.max()), whole


def peculiarity(data: bytes, scale: Callable[[], Scale]) -> bytes:
    """What in a file is read by more than its pixels, in words, or b"" for a plain picture.

    A digest counts it in, so that a plain picture keeps the digest that it always had.
    """
    try:
        header = read_header(data)
        words = [f"orientation {header.orientation}"] if header.orientation != 1 else []
        if header.deep and not scale().plain:
            words.append(scale().text)
        elif header.transparent and not header.deep:
            with opened(data) as image:
                if np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
                    words.append("on white")
    except InputError:
        raise
    except Exception:  # a damaged picture has a digest too; reading it says what is wrong
        return b""
    return "; ".join(words).encode()


def with_channels(
    images: UInt8[Tensor, "n channels height width"], channels: int, where: str
) -> UInt8[Tensor, "n wanted height width"]:
    """The images in the number of channels that a network takes.

    Grey is repeated; colours become grey by their luma (ITU-R 601, as in Pillow). Raises
    `InputError` for any other pair of numbers: which bands are meant cannot be guessed.
    """
    import torch

    number = images.shape[1]
    if number == channels:
        return images
    if number == 1:
        return images.expand(-1, channels, -1, -1)
    if number == 3 and channels == 1:
        weights = torch.tensor([19595, 38470, 7471], device=images.device).view(1, 3, 1, 1)
        return ((images.int() * weights).sum(1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)
    raise InputError(
        f"{where} takes {channels} channels, but the pictures have {number}; choose the channels "
        "of the pictures, or load the network with input_shape=(channels, height, width), on the "
        "command line --input-shape."
    )


def channels_note(number: int, channels: int) -> str:
    """What `with_channels` does, in words; "" for nothing."""
    if number == channels:
        return ""
    if number == 1:
        return f"grey repeated over {channels} channels"
    return "colours turned to grey by their luma (ITU-R 601)"


def upright(image: Any) -> Any:
    from PIL import ImageOps

    if orientation_of(image) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _deep_rgb(values: np.ndarray, scale: Scale) -> Any:
    from PIL import Image

    height, width = values.shape[:2]
    made = Image.new("RGB", (width, height))
    for top in range(0, height, STRIP):
        made.paste(_deep_strip(values[top : top + STRIP], scale), (0, top))
    return made


def _deep_strip(values: np.ndarray, scale: Scale) -> Any:
    """A few rows of a deep picture in mode RGB."""
    from PIL import Image

    if values.ndim == 2:
        return Image.fromarray(scale(values)).convert("RGB")
    colours = _colours(values)
    pixels = scale(values[..., :colours])
    if colours == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if values.shape[2] > colours:
        alpha = (values[..., -1:] >> 8).astype(np.uint8)
        return on_ground(Image.fromarray(np.concatenate([pixels, alpha], axis=2)))
    return Image.fromarray(np.ascontiguousarray(pixels))


def _colours(values: np.ndarray) -> int:
    """How many of the channels are colours: the last of two or four is transparency."""
    return values.shape[2] - (values.shape[2] in (2, 4))


def _tuple(value: Any) -> Sequence[int]:
    return value if isinstance(value, tuple) else (value,)
