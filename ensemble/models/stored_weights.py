"""Files of weights: read as tensors by their names, never as code.

tensors = read_weights(Path("backbone.safetensors"), sha256)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.config.weights_file import files_of
from ensemble.errors import ConfigError, first_line
from ensemble.outside.names import shown
from ensemble.outside.paths import open_regular

if TYPE_CHECKING:
    from torch import Tensor

_INSIDE = ("state_dict", "model_state_dict", "model", "state_dict_ema")  # where training scripts put the weights
_WRAPPED = ("module.", "_orig_mod.")  # what data-parallel training and torch.compile put before each name


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of what torch.save made of a state_dict, on the CPU.

    sha256: what the file must still be. Raises ConfigError where it cannot be read, is another file by now, or is no file
    of weights.
    """
    digest = hashlib.sha256()
    values: dict[Any, Any] = {}
    for file in files_of(path):
        content = _content(file)
        digest.update(content)
        values.update(_safetensors(file, content) if file.suffix == ".safetensors" else _saved(file, content))
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ConfigError(
            f"model.weights: {path}: is another file than it was when the configuration was read; start again, or put the former file back"
        )
    tensors = unwrapped({str(name): value for name, value in values.items() if _is_tensor(value)})
    for name, tensor in tensors.items():
        if odd := _odd(tensor):
            raise ConfigError(f"model.weights: {path}: {shown(name)} is {odd}; expected a plain tensor of numbers")
    if not tensors:
        raise ConfigError(f"model.weights: {path}: holds no tensors; expected the state_dict of a network")
    return tensors


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise ConfigError(
            f"model.weights: {path}: cannot be read: {error.strerror}; give a file that this user may read"
        ) from error


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put before every name."""
    found = dict(tensors)
    while found and (prefix := next((p for p in _WRAPPED if all(name.startswith(p) for name in found)), None)):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _odd(tensor: Tensor) -> str | None:
    """What keeps a tensor from being a weight, in words."""
    if tensor.is_meta:
        return "on the device meta, without values"
    if tensor.is_quantized or str(tensor.layout) != "torch.strided":
        return f"{'quantised' if tensor.is_quantized else tensor.layout}"
    return "of complex numbers" if tensor.is_complex() else None


def _safetensors(path: Path, content: bytes) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Any] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ConfigError(
            f"model.weights: {path}: is no whole safetensors file: {error}; fetch or write it again"
        ) from error
    return tensors


def _saved(path: Path, content: bytes) -> Mapping[str, Any]:
    """What torch.save wrote, with tensors and plain values only: anything else would be executed to be read."""
    import torch

    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, by what the file is
        raise ConfigError(
            f"model.weights: {path}: cannot be read as weights ({type(error).__name__}: {shown(first_line(error), 300)}); expected what torch.save(network.state_dict(), ...) writes, without Python objects"
        ) from error
    if isinstance(found, Mapping):  # of a whole training: the weights are one of the things in it
        inside = (found[key] for key in _INSIDE if isinstance(found.get(key), Mapping))
        found = next((one for one in inside if any(map(_is_tensor, one.values()))), found)
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"model.weights: {path}: holds {type(found).__name__}; expected the state_dict of a network, tensors by their names"
        )
    return found
