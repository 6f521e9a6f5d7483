"""Picture files of any size, depth and colour as arrays of bytes. Pillow does the decoding.

    decoded = decode(Path("seven.jpg"))              # upright, values as in the file
    picture = plain(decoded, rule)                   # mode L or RGB, by the data set's PixelRule
    image_CHW = fitted(picture, channels=1, size=(28, 28), rule=rule)

Reading is the same for training on folders and for predicting, so a network sees at prediction what it saw before.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from warnings import catch_warnings, filterwarnings

import numpy as np
import numpy.typing as npt

from ensemble.data.pixel_rule import Extremes, PixelRule, check_floats
from ensemble.data.regular_files import open_regular, shown
from ensemble.data.wide_pictures import FORMATS, grey_numbers, has_numbers, opened_file, wide_values
from ensemble.errors import DataError
from ensemble.types import ByteArray, DoubleArray

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(FORMATS)
ORIENTATION = 0x0112
AS_IS = PixelRule()
_UNSCALED = list(range(256))


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture as its file has it, upright.

    picture: as Pillow reads it, with 8 bits per value where it can. values: [H, W] or [H, W, 3], where the file has
    wider whole numbers or floats. alpha_HW: opacity in [0, 1] of `values`; None where all of it is opaque. frames:
    pictures in the file, of which this is the first.
    """

    name: str
    picture: Image
    values: npt.NDArray[Any] | None
    alpha_HW: DoubleArray | None
    frames: int

    @property
    def transparent(self) -> bool:
        """True when some of it may be transparent."""
        return self.alpha_HW is not None if self.values is not None else _has_alpha(self.picture)

    @property
    def extremes(self) -> Extremes | None:
        """Of the values wider than 8 bits; None of bytes."""
        return None if self.values is None else Extremes.of(self.values)


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Inside, Pillow's warnings (odd metadata, large pictures) are not printed. For the main thread, around any others."""
    with catch_warnings():
        filterwarnings("ignore", module=r"PIL\..*")
        yield


def open_picture(source: Path | bytes, name: str = "", rule: PixelRule | None = AS_IS) -> Image:
    """The picture as Pillow image of mode L or RGB; see `decode` and `plain`."""
    return plain(decode(source, name), rule)


def decode(source: Path | bytes, name: str = "") -> Decoded:
    """Read a file, or the bytes of one (then `name` stands for it in messages), and turn it as its EXIF says.

    Raises DataError when it cannot be read as a picture of the formats that SUFFIXES stand for.
    """
    from PIL import UnidentifiedImageError
    from PIL.Image import MAX_IMAGE_PIXELS, DecompressionBombError

    name = name or ("picture" if isinstance(source, bytes) else shown(source))
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, "a picture") as file:
            return _decode(file, name)
    except DataError:
        raise
    except FileNotFoundError as error:
        hint = "; write folders with / instead of \\" * ("\\" in name)
        raise DataError(f"{name}: no such file; expected a picture or a folder of pictures{hint}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: found {_content(source)}; expected {', '.join(sorted(SUFFIXES))}") from error
    except DecompressionBombError as error:
        raise DataError(f"{name}: found more than {2 * (MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything: struct.error, TypeError, MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: cannot be read as a picture: {reason}; save it again, or leave it out") from error


def opened(picture: Image, name: str = "picture") -> Decoded:
    """What Pillow has opened, or somebody made with it, as `decode` gives it. Of colours with 16 bits Pillow itself keeps the upper 8.

    Raises DataError when it cannot be read, or has values that are no numbers.
    """
    try:
        picture.load()
        values, alpha_HW = grey_numbers(picture, name) if has_numbers(picture) else (None, None)
        return _upright(picture, values, alpha_HW, 1, name)
    except DataError:
        raise
    except Exception as error:  # a file behind it may be gone or damaged, see `decode`
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: cannot be read as a picture: {reason}; open it again, or leave it out") from error


def _decode(file: BinaryIO, name: str) -> Decoded:
    found = opened_file(file)
    tile = found.tile[0] if found.tile else None  # how the values lie in the file; gone once they are read
    frames = 1 if found.format == "MPO" else int(getattr(found, "n_frames", 1))
    found.load()
    return _upright(found, *wide_values(found, tile, file, name), frames, name)


def _upright(
    picture: Image, values: npt.NDArray[Any] | None, alpha_HW: DoubleArray | None, frames: int, name: str
) -> Decoded:
    method = _turn(picture)
    if method is None:
        return Decoded(name, picture, values, alpha_HW, frames)
    return Decoded(name, picture.transpose(method), _turned(values, method), _turned(alpha_HW, method), frames)


def _turn(opened: Any) -> Any:
    """How Pillow turns the picture upright, or None. Of the metadata only the orientation is looked at."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    orientation = opened.getexif().get(ORIENTATION)
    return turns.get(orientation) if isinstance(orientation, int) else None


def _turned(values: npt.NDArray[Any] | None, method: Any) -> Any:
    """The same for an array [H, W] or [H, W, 3]."""
    from PIL.Image import Transpose

    if values is None:
        return None
    if method in (Transpose.TRANSPOSE, Transpose.TRANSVERSE):
        values = values.swapaxes(0, 1)
        return values if method == Transpose.TRANSPOSE else values[::-1, ::-1]
    if method == Transpose.FLIP_LEFT_RIGHT:
        return values[:, ::-1]
    if method == Transpose.FLIP_TOP_BOTTOM:
        return values[::-1]
    quarters = {Transpose.ROTATE_90: 1, Transpose.ROTATE_180: 2, Transpose.ROTATE_270: 3}
    return np.rot90(values, quarters[method])


def plain(decoded: Decoded, rule: PixelRule | None) -> Image:
    """Mode L or RGB with 8 bits: values brought to bytes by the rule, transparent parts laid on its ground.

    rule: None for the run of an earlier version, which had none: range and ground by the picture's own brightness.
    Raises DataError for floats outside [0, 1] where the rule has no range for them.
    """
    from PIL import Image

    if rule is None:
        return _by_brightness(decoded)
    if decoded.values is None:
        return _plain_bytes(decoded.picture, rule)
    if (found := decoded.extremes) is not None and found.floats:
        check_floats(found, rule.value_range, decoded.name)
    levels = rule.to_bytes(decoded.values)
    if decoded.alpha_HW is not None:
        ground = 255 if _ground(rule, levels, decoded.alpha_HW) == "white" else 0
        alpha = decoded.alpha_HW if levels.ndim == 2 else decoded.alpha_HW[..., None]
        levels = (levels * alpha + ground * (1 - alpha)).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels))


def _plain_bytes(picture: Image, rule: PixelRule) -> Image:
    from PIL import Image

    scale = _scale(rule)
    scaled = scale != _UNSCALED
    if not _has_alpha(picture):
        grey = picture.mode in ("1", "L")
        opaque = _in_mode(picture, "L" if grey else "RGB")
        return opaque.point(scale * (1 if grey else 3)) if scaled else opaque
    full = picture.convert("RGBA")
    if scaled:
        colours = full.convert("RGB").point(scale * 3)
        colours.putalpha(full.getchannel("A"))
        full = colours
    alpha = np.asarray(full.getchannel("A"), np.float64) / 255
    ground = _ground(rule, np.asarray(full.convert("L")), alpha)
    return Image.alpha_composite(Image.new("RGBA", full.size, ground), full).convert("RGB")


@lru_cache(16)
def _scale(rule: PixelRule) -> list[int]:
    """What each of the 256 levels becomes."""
    return [int(level) for level in rule.to_bytes(np.arange(256, dtype=np.uint8))]


def _in_mode(picture: Image, mode: str) -> Image:
    """The picture itself where it is of that mode: Pillow would copy it."""
    return picture if picture.mode == mode else picture.convert(mode)


def _ground(rule: PixelRule, levels: ByteArray, alpha_HW: DoubleArray) -> str:
    """The colour behind the picture: the rule's, or for characters the one that they stand out from."""
    if rule.ground != "contrast":
        return rule.ground
    grey = levels if levels.ndim == 2 else levels.mean(-1)
    return "black" if (grey * alpha_HW).sum() > 127.5 * alpha_HW.sum() else "white"


def _by_brightness(decoded: Decoded) -> Image:
    """As versions without a rule read pictures, for runs that they trained."""
    from PIL import Image

    picture = decoded.picture
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.float64)
        top = 65535 if values.size and values.max() > 255 else 255
        return Image.fromarray((values * 255 / top).round().clip(0, 255).astype(np.uint8))
    if picture.mode == "F":
        raise DataError(f"{decoded.name}: found floating-point pixels; expected whole numbers; save it as PNG")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return _plain_bytes(picture, PixelRule(ground="contrast"))


def fitted(
    picture: Image,
    channels: int,
    size: tuple[int, int],
    rule: PixelRule | None = AS_IS,
    inverted: bool = False,
    out: ByteArray | None = None,
) -> ByteArray:
    """The picture as uint8 [C, H, W], brought to `size` (height, width) as the rule's `resize` says; bilinear.

    With a margin it is brought to a size that is larger by that on each side, of which the middle is taken.

    crop: scaled until it covers the size, its middle cut out. pad: scaled until it fits into the size, in the middle, bars of
    the rule's ground beside it; an odd pixel goes to the right or below. Where the ground is contrast, the bars are black
    around a picture that is light on average and white around a dark one. squash: height and width scaled each by itself.
    A picture that already has the size is taken as it is.

    picture: of mode L or RGB, or any that Pillow converts to them. channels: 1 for grey, 3 for RGB. rule: None for a run
    of an earlier version, which cropped. inverted: the caller turns dark and light round afterwards, so bars are the
    opposite of the ground. out: [C, H, W], where the pixels go and what is returned.
    """
    from PIL import Image, ImageOps

    margin = 0 if rule is None else rule.margin
    height, width = (side + 2 * margin for side in size)
    resize = "crop" if rule is None else rule.resize
    converted = _in_mode(picture, "L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        if resize == "squash":
            converted = converted.resize((width, height), Image.Resampling.BILINEAR)
        elif resize == "pad":
            assert rule is not None
            converted = _padded(converted, width, height, _is_white(converted, rule) != inverted)
        else:
            converted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    if margin:
        converted = converted.crop((margin, margin, width - margin, height - margin))
        height, width = size
    image_CHW = np.empty((channels, height, width), np.uint8) if out is None else out
    for channel, band in enumerate(
        converted.getbands()
    ):  # a band at a time: half the time of an array of colours and its transpose
        image_CHW[channel] = np.frombuffer(converted.tobytes("raw", band), np.uint8).reshape(height, width)
    return image_CHW


def _padded(picture: Image, width: int, height: int, white: bool) -> Image:
    """The picture, as large as it goes into the middle of a white or black one of that size."""
    from PIL import Image

    across, down = picture.size
    if across * height >= down * width:
        inside = (width, max(1, round(down * width / across)))
    else:
        inside = (max(1, round(across * height / down)), height)
    whole = Image.new(picture.mode, (width, height), "white" if white else "black")
    corner = ((width - inside[0]) // 2, (height - inside[1]) // 2)
    whole.paste(picture.resize(inside, Image.Resampling.BILINEAR), corner)
    return whole


def _is_white(picture: Image, rule: PixelRule) -> bool:
    """Whether the ground beside an opaque picture is white."""
    return _ground(rule, np.asarray(picture, np.uint8), np.ones(picture.size[::-1])) == "white"


def _has_alpha(picture: Image) -> bool:
    return bool(picture.has_transparency_data)


def _content(source: Path | bytes) -> str:
    empty = not source if isinstance(source, bytes) else source.stat().st_size == 0
    return "an empty file" if empty else "no picture of a format that is read here"
