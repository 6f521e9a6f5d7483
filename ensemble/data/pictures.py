"""Picture files of any size and colour as arrays of bytes. Pillow does the reading.

    picture = open_picture(Path("seven.jpg"))          # upright, grey or RGB
    image_CHW = fitted(picture, channels=1, size=(28, 28))

Reading is the same for training on folders and for predicting, so a network sees at prediction what it saw before.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.errors import DataError
from ensemble.types import ByteArray

if TYPE_CHECKING:
    from PIL.Image import Image

# As torchvision's ImageFolder.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


def open_picture(source: Path | bytes, name: str = "") -> Image:
    """The picture as Pillow image of mode L or RGB: turned as its EXIF says, transparency laid on a plain ground.

    source: a file, or the bytes of one (then `name` stands for it in messages). Raises DataError when it cannot be
    read as a picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = name or str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            return _plain(picture, name)
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file; expected a picture or a folder of pictures") from error
    except UnidentifiedImageError as error:
        what = "an empty file" if _is_empty(source) else "no picture that Pillow knows"
        raise DataError(f"{name}: found {what}; expected {', '.join(sorted(SUFFIXES))}") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be read as a picture: {error}; save it again, or leave it out") from error


def fitted(picture: Image, channels: int, size: tuple[int, int]) -> ByteArray:
    """The picture as uint8 [C, H, W]: scaled until it covers `size` (height, width), its middle cut out.

    channels: 1 for grey, 3 for RGB.
    """
    from PIL import Image, ImageOps

    height, width = size
    converted = picture.convert("L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        converted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, np.uint8)
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def picture_files(folder: Path) -> list[Path]:
    """Every picture at any depth of a folder, in the order of their paths; hidden files and folders are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _plain(picture: Image, name: str) -> Image:
    """Mode L or RGB. Transparent parts become white around dark drawings and black around light ones."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16-bit grey, whole range
        values = np.asarray(picture).astype(np.float64)
        top = 65535 if values.size and values.max() > 255 else 255
        return Image.fromarray((values * 255 / top).round().clip(0, 255).astype(np.uint8))
    if picture.mode == "F":
        raise DataError(f"{name}: found floating-point pixels; expected whole numbers; save it as PNG")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    if "A" in picture.mode or "transparency" in picture.info:
        full = picture.convert("RGBA")
        alpha = np.asarray(full.getchannel("A"), np.float64) / 255
        grey = np.asarray(full.convert("L"), np.float64)
        light = bool((grey * alpha).sum() > 127.5 * alpha.sum())
        ground = Image.new("RGBA", full.size, (0, 0, 0, 255) if light else (255, 255, 255, 255))
        return Image.alpha_composite(ground, full).convert("RGB")
    return picture.convert("RGB")


def _is_empty(source: Path | bytes) -> bool:
    return not source if isinstance(source, bytes) else source.stat().st_size == 0
