"""From the bytes of a stored file to plain values of the expected form; whatever does not fit is a StorageError naming the file.

A checksum says that a file is the one that was written, not that its content means anything: it may have been edited,
copied from another run, or written by another version.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ensemble.storage.remedies import unfit

Model = TypeVar("Model", bound=BaseModel)


class Stored(BaseModel):
    """Base of the forms of JSON files: types as they are written, finite numbers; what a newer version added is kept."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, frozen=True, arbitrary_types_allowed=True
    )


def json_value(content: bytes, where: Path) -> Any:
    """The value of a JSON file. Raises StorageError for what is no JSON, including NaN, which is never written."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, nested without end
        raise unfit(where, f"no JSON: {_short(error)}") from error


def json_object(content: bytes, where: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    value = json_value(content, where)
    if not isinstance(value, dict):
        raise unfit(where, f"found {_kind(value)}; expected an object with named values")
    return value


def json_model(content: bytes, where: Path, model: type[Model]) -> Model:
    """The object in a JSON file, of a given form."""
    return checked(json_object(content, where), where, model)


def checked(value: Any, where: Path, model: type[Model]) -> Model:
    """Plain values as a given form. Raises StorageError naming the file and every key that does not fit."""
    try:
        return model.model_validate(value)
    except (ValidationError, RecursionError) as error:
        raise unfit(where, f"{_explained(error)}") from error


def yaml_mapping(content: bytes, where: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; tags and other documents than one are refused."""
    try:
        value = yaml.load(content, _QUICK if len(content) <= _MOST_QUICKLY else yaml.SafeLoader)  # noqa: S506  # both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise unfit(where, f"no plain YAML: {_short(error)}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise unfit(where, f"found {_kind(value)}; expected keys and values")
    return value


def array_of(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, where: Path, kinds: str, shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """One array of an archive. kinds: of its dtype ("f", "i"); shape: lengths of its axes, None for any."""
    array = arrays.get(name)
    if array is None:
        raise unfit(where, f"no array {name}; found {', '.join(arrays) or 'nothing'}")
    fits = len(shape) == array.ndim and all(n in (None, found) for n, found in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in kinds or not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise unfit(where, f"{name} is {array.dtype} {list(array.shape)}; expected {_DTYPES[kinds]} [{wanted}]")
    return array


def require_rows(rows: npt.NDArray[Any], name: str, where: Path, end: int | None) -> None:
    """Raises StorageError unless rows are ascending, distinct and in [0, end)."""
    outside = len(rows) and (rows[0] < 0 or (end is not None and rows[-1] >= end))
    if outside or (np.diff(rows) <= 0).any():
        limit = "" if end is None else f" below {end}"
        raise unfit(where, f"{name} are not distinct rows{limit} in ascending order")


def require_probabilities(probs_NK: npt.NDArray[Any], name: str, where: Path) -> None:
    """Raises StorageError unless every finite row is of probabilities. Rows of a member that diverged are not finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of sums of infinities
        sums_N = probs_NK.sum(axis=1, dtype=np.float64)
        finite_N = np.isfinite(probs_NK).all(axis=1)
        fits_N = (np.abs(sums_N - 1.0) <= SUM_TOLERANCE) & (probs_NK >= 0).all(axis=1)
    bad = np.flatnonzero(finite_N & ~fits_N)
    if len(bad):
        row = ", ".join(f"{value:.4g}" for value in probs_NK[bad[0], :6])
        raise unfit(
            where,
            f"{len(bad):,} rows of {name} are no probabilities, the first is row {bad[0]}: {row} (sum {sums_N[bad[0]]:.4g}); expected numbers of at least 0 that sum to 1",
        )


SUM_TOLERANCE = 1e-3
# libyaml is quicker, but what is nested without end overflows its stack: longer texts go without.
_QUICK, _MOST_QUICKLY = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 20_000
_DTYPES = {"f": "floats", "i": "whole numbers", "u": "bytes"}
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _short(error: Exception) -> str:
    """The first line of what a parser says."""
    return "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]


def _explained(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return _short(error)
    found = error.errors(include_url=False)
    lines = [f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in found[:3]]
    return "; ".join(lines) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
