"""Images that a function of one's own gives, from a file beside the configuration.

data: {name: python, path: "my_data.py:make_data", args: {folder: scans}}

    def make_data(folder): ...  # -> {"train": data set of (image, class number), "test": ..., "validation": ...}, or arrays

It is called once, where a run starts; what it gives is read whole and kept in memory, as any arrays are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from ensemble.config.data import OwnArrays, register_data
from ensemble.data.dataset import Dataset
from ensemble.data.map_style import given_arrays
from ensemble.errors import ConfigError, DataError, EnsembleError
from ensemble.outside import own_code


@register_data
class PythonData(OwnArrays):
    """What a function of a Python file beside the configuration gives, called with args."""

    in_short: ClassVar[str] = "what a function in a file beside the configuration gives: PyTorch data sets or arrays"
    needed: ClassVar[str] = "path, FILE.py:NAME with a file beside the configuration and a function in it"
    stored_code: ClassVar[bool] = True

    name: Literal["python"]
    path: str = Field(description="python: FILE.py:NAME, the file beside the configuration")
    args: dict[str, Any] = Field({}, description="python: arguments of the function")
    code: dict[str, str] = Field(
        {},
        description="python: texts of the file and of those it imports from beside it, by name; filled in when the file is read",
    )

    @classmethod
    def complete(cls, values: Mapping[str, Any], folder: Path, where: str = "data") -> Mapping[str, Any]:
        """With the texts of the files. Raises ConfigError where they cannot be read."""
        return own_code.with_code(values, folder, where, "my_data.py:make_data")

    @classmethod
    def places(cls, _values: Mapping[str, Any]) -> tuple[str, ...]:
        """See DataConfig: the path names a function, whose file travels as text."""
        return ()

    @classmethod
    def files_beside(cls, values: Mapping[str, Any], folder: Path) -> list[Path]:
        """See DataConfig."""
        return own_code.files_of(values.get("path"), folder)

    @property
    def label(self) -> str:
        """See DataConfig."""
        return f"{self.path} (python)"

    def build(self) -> Any:
        """What the function gives, read whole. Raises ConfigError where it fails, DataError for rows that are no images."""
        make = own_code.find(self.code, self.path, "data.path")
        called = f"{self.path}({', '.join(f'{key}={value!r}' for key, value in self.args.items())})"
        try:
            with own_code.beside_each_other(self.code):
                made = make(**self.args)
                arrays = None if isinstance(made, Dataset) else given_arrays(made, called)
        except DataError as error:
            cause = error.__cause__
            place = "" if cause is None else f" ({own_code.told(cause, self.code)})"
            raise DataError(f"{called}: {error}{place}") from error
        except EnsembleError:
            raise
        except Exception as error:  # the code is not ours
            raise ConfigError(f"{called}: failed: {own_code.told(error, self.code)}") from error
        return made if arrays is None else arrays
