"""Whether W&B is told online, offline or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Mode = Literal["online", "offline", "disabled"]
LOWERED: dict[str, Mode] = {"offline": "offline", "dryrun": "offline", "disabled": "disabled"}


def effective_mode(mode: Mode, environment: Mapping[str, str]) -> Mode:
    """The mode to use: as configured, unless $WANDB_MODE asks for less than that."""
    asked = LOWERED.get(environment.get("WANDB_MODE", "").strip().lower(), mode)
    ranks: tuple[Mode, ...] = ("online", "offline", "disabled")
    return max(mode, asked, key=ranks.index)
