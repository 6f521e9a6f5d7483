"""Picture files as cameras, scanners and drawing programs write them, of pixels that are known."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of PNG's colour types: grey, RGB, grey and alpha, RGB and alpha


def png16(values: npt.NDArray[Any], colour: int) -> bytes:
    """A PNG with 16 bits per value, which Pillow cannot write in colour. values: [H, W, channels of the colour type]."""
    height, width, channels = values.shape
    assert channels == CHANNELS[colour]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(values: npt.NDArray[Any], order: str = "<", planar: bool = False) -> bytes:
    """An uncompressed TIFF with 16 bits per value. values: [H, W, 3] or [H, W, 4], the last one being opacity."""
    height, width, channels = values.shape
    planes = [values[..., k] for k in range(channels)] if planar else [values]
    strips = [plane.astype(f"{order}u2").tobytes() for plane in planes]
    tags = {256: (4, width), 257: (4, height), 259: (3, 1), 262: (3, 2), 277: (3, channels), 278: (4, height)}
    tags |= {284: (3, 2 if planar else 1)} | ({338: (3, 2)} if channels == 4 else {})
    behind = 8 + 2 + 12 * (len(tags) + 3) + 4  # lists that do not fit into their tags
    lists = struct.pack(f"{order}{channels}H", *[16] * channels)
    offsets = behind + len(lists) + 8 * len(strips)
    starts = [offsets + sum(map(len, strips[:k])) for k in range(len(strips))]
    listed = behind + len(lists)
    places = (listed, listed + 4 * len(strips)) if planar else (starts[0], len(strips[0]))
    counts = {258: (3, channels, behind), 273: (4, len(strips), places[0]), 279: (4, len(strips), places[1])}
    counts |= {tag: (kind, 1, value) for tag, (kind, value) in tags.items()}
    content = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(counts))
    for tag, (kind, count, value) in sorted(counts.items()):
        short = kind == 3 and count == 1
        content += struct.pack(f"{order}HHI", tag, kind, count)
        content += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    content += bytes(4) + lists
    content += struct.pack(f"{order}{len(strips)}I", *starts)
    return content + struct.pack(f"{order}{len(strips)}I", *map(len, strips)) + b"".join(strips)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The picture in a file of that format."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def files_of(grey: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    """The same grey picture [H, W] in every form that keeps its pixels: name -> file."""
    picture = Image.fromarray(grey)
    colour = picture.convert("RGB")
    opaque = picture.convert("RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise by 90 degrees
    wide = grey.astype(np.uint16) * 257
    return {
        "grey.png": saved(picture, "PNG"),
        "colour.png": saved(colour, "PNG"),
        "opaque.png": saved(opaque, "PNG"),
        "grey_alpha.png": saved(picture.convert("LA"), "PNG"),
        "palette.png": saved(picture.convert("P"), "PNG"),
        "sixteen.png": saved(Image.fromarray(wide), "PNG"),
        "sixteen_colour.png": png16(np.repeat(wide[..., None], 3, 2), 2),
        "sixteen_alpha.png": png16(np.stack([wide, np.full_like(wide, 65535)], 2), 4),
        "plain.bmp": saved(colour, "BMP"),
        "plain.pgm": saved(picture, "PPM"),
        "plain.ppm": saved(colour, "PPM"),
        "grey.tif": saved(picture, "TIFF"),
        "sixteen.tiff": saved(Image.fromarray(wide), "TIFF"),
        "float.tif": saved(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"),
        "lossless.webp": saved(colour, "WEBP", lossless=True),
        "turned.png": saved(picture.rotate(90, expand=True), "PNG", exif=turned),
        "turned.tif": saved(picture.rotate(90, expand=True), "TIFF", exif=turned),
        "wrong_name.jpg": saved(picture, "PNG"),
    }
