"""Values of a picture file that are wider than 8 bits, or floats: Pillow keeps 8 of some, so such files are unpacked twice.

picture = opened_file(file)
values, alpha_HW = wide_values(picture, tile, file, name)      # None where 8 bits are all there is
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ensemble.errors import DataError
from ensemble.types import DoubleArray

if TYPE_CHECKING:
    from PIL.Image import Image

# As torchvision's ImageFolder, and the format that each stands for. A file is opened by its content, but in no other
# format than these: some of Pillow's start programs or fetch files (EPS runs Ghostscript).
FORMATS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".ppm": "PPM", ".bmp": "BMP", ".pgm": "PPM", ".tif": "TIFF",
    ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
BITS_PER_SAMPLE = 258
# Pillow keeps the upper byte of 16-bit colours. Unpacked in the other byte order the same file gives the lower bytes.
_OTHER_ORDER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def has_numbers(picture: Image) -> bool:
    """Whether its values are whole numbers of more than 8 bits, or floats."""
    return picture.mode.startswith("I") or picture.mode == "F"


def grey_numbers(picture: Image, name: str) -> tuple[npt.NDArray[Any], DoubleArray | None]:
    """Whole numbers or floats of a grey picture, and their opacity."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{name}: found NaN or infinite values; expected finite ones")
    clear = picture.info.get("transparency")
    return values, (values != clear).astype(np.float64) if isinstance(clear, int) else None


def opened_file(file: BinaryIO) -> Any:
    """The file as Pillow opens it, by its content and in none but the known formats."""
    from PIL import Image

    file.seek(0)
    return Image.open(file, formats=sorted(set(FORMATS.values())))


def _raw_mode(tile: Any) -> str:
    """Pillow's name for how values lie in a file; empty where the decoder does not say."""
    arguments = tile.args if tile is not None else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def wide_values(
    opened: Any, tile: Any, file: BinaryIO, name: str
) -> tuple[npt.NDArray[Any] | None, DoubleArray | None]:
    """Values of more than 8 bits, and their opacity; None where 8 bits are all there is."""
    if has_numbers(opened):
        return grey_numbers(opened, name)
    raw = _raw_mode(tile)
    if opened.format == "PPM" and isinstance(tile.args, tuple) and tile.args[1] > 255:
        return _wide_ppm(tile, opened.size, file, name), None
    if raw == "LA;16B":  # grey with alpha: four bytes a pixel, which can be taken as they are
        bytes_HW4 = _unpacked(file, "RGBA").astype(np.uint16)
        pairs_HW2 = bytes_HW4[..., ::2] * 256 + bytes_HW4[..., 1::2]
        return pairs_HW2[..., 0], pairs_HW2[..., 1] / 65535
    if raw in _OTHER_ORDER:
        wide = np.asarray(opened).astype(np.uint16) * 256 + _unpacked(file, _OTHER_ORDER[raw])
        clear = opened.info.get("transparency")
        if raw.startswith("RGBA"):
            return wide[..., :3], wide[..., 3] / 65535
        return wide[..., :3], (wide != clear).any(-1).astype(np.float64) if isinstance(clear, tuple) else None
    if _wider_than_bytes(opened):
        raise DataError(
            f"{name}: found more than 8 bits per value of mode {opened.mode} in a {opened.format} file of a kind that is read "
            "with 8; save it as PNG"
        )
    return None, None


def _wider_than_bytes(opened: Any) -> bool:
    """True for files of which Pillow keeps 8 of more bits per value (or mistakes them for others)."""
    if opened.format == "TIFF":
        bits = opened.tag_v2.get(BITS_PER_SAMPLE, 1)
        return bool(max(bits if isinstance(bits, tuple) else (bits,)) > 8)
    return False


def _wide_ppm(tile: Any, size: tuple[int, int], file: BinaryIO, name: str) -> npt.NDArray[Any]:
    """Colours of a PPM with more than 8 bits, which says by itself which value is white: brought to 16 bits."""
    if tile.codec_name != "ppm":
        raise DataError(f"{name}: found more than 8 bits per colour written as text; save it as PNG or as binary PPM")
    width, height = size
    file.seek(tile.offset)
    values = np.frombuffer(file.read(width * height * 6), ">u2").reshape(height, width, 3)
    wide: npt.NDArray[Any] = (values / tile.args[1] * 65535).round().clip(0, 65535).astype(np.uint16)
    return wide


def _unpacked(file: BinaryIO, raw: str) -> npt.NDArray[Any]:
    """The same file once more, its values unpacked in another way."""
    again = opened_file(file)
    tile = again.tile[0]
    arguments = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
    again.tile = [part._replace(args=arguments) for part in again.tile]
    return np.asarray(again)
