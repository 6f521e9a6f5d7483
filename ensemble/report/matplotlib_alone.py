"""matplotlib as the package wants it, whatever the surroundings say: MPLBACKEND, or a matplotlibrc, may be for other programs.

with styled(class_names, {"font.size": 9}):
    from matplotlib.figure import Figure
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ensemble.errors import ComputeError, first_line
from ensemble.outside.foreign_variables import without_variables
from ensemble.outside.names import shown
from ensemble.report.fonts import fonts_for


@contextmanager
def styled(names: Iterable[str], values: Mapping[str, Any]) -> Iterator[None]:
    """Inside, figures are drawn by matplotlib's own defaults and these values, in fonts that have the signs of these names.

    Raises ComputeError where it cannot be imported.
    """
    matplotlib = _imported()
    # A backend among them would be looked for, by importing pyplot, which nothing here needs.
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context({**defaults, **values, "font.sans-serif": fonts_for(map(shown, names))}):
        yield


def _imported() -> Any:
    """The package. It reads the variable and the file when it is first imported, and nowhere else."""
    with without_variables("MPLBACKEND"):
        try:
            return importlib.import_module("matplotlib")
        except Exception as error:  # what a file of settings makes it raise
            places = ("./matplotlibrc", "$MATPLOTLIBRC", "$MPLCONFIGDIR", "~/.config/matplotlib/matplotlibrc")
            given = [f"{name}={os.environ[name]}" for name in ("MATPLOTLIBRC", "MPLCONFIGDIR") if name in os.environ]
            raise ComputeError(
                f"no figures can be drawn, since matplotlib cannot be imported: {type(error).__name__}: {first_line(error)}; it reads a file of settings from the first of {', '.join(places)} ({', '.join(given) or 'neither variable is set'}): mend or remove that file"
            ) from error
