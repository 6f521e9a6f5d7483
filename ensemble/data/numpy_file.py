"""Opening .npy and .npz files of other people, with every trouble in words that are about the file.

    loaded = load_numpy(file)          # an array, or an archive of arrays

numpy takes whatever is neither for a pickle, which is never opened here, and says how to open it nevertheless.
"""

from __future__ import annotations

from typing import IO, Any

import numpy as np
import numpy.typing as npt

_ARRAY, _ARCHIVES = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def load_numpy(file: IO[bytes]) -> npt.NDArray[Any] | np.lib.npyio.NpzFile:
    """What np.load gives. Raises ValueError in words where the file is neither an array nor an archive of them."""
    start = file.read(16)
    file.seek(0)
    if not start.startswith((_ARRAY, *_ARCHIVES)):
        raise ValueError(f"it is {_content(start)}")
    loaded: npt.NDArray[Any] | np.lib.npyio.NpzFile = np.load(file, allow_pickle=False)
    return loaded


def reason_of(error: Exception) -> str:
    """Why a file of arrays cannot be read, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "it holds Python objects, which are never opened" if "allow_pickle" in text else text


def _content(start: bytes) -> str:
    if not start:
        return "an empty file"
    if start.startswith(_PICKLES):
        return "a pickle, which is never opened"
    text = start.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    printable = all(sign.isprintable() or sign in "\r\n\t\ufffd" for sign in text) and text.count("\ufffd") < 2
    return "text" if printable else "no file of numpy"
