"""`ensemble wandb`: Weights & Biases is told of a stored run, whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from ensemble.config.loading import parse_stored
from ensemble.errors import ConfigError, StorageError
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder
from ensemble.storage.damage import require_sound
from ensemble.storage.names import CONFIG, EVALUATION, EVENTS
from ensemble.tracking.wandb_tracker import Makers, images_of, replay


def replay_run(path: Path, mode: Literal["online", "offline"] | None = None, makers: Makers | None = None) -> bool:
    """Tell Weights & Biases about a stored run again; True when all of it was sent or written.

    mode: instead of the configured one. makers: as for `WandbTracker`. Raises ConfigError when the run disabled W&B and no mode is given,
    StorageError when there is no such run or a file of it is damaged: nothing is told then.
    """
    folder = RunFolder.read(path)
    require_sound(folder)
    if folder.has(EVALUATION):
        stored_evaluation(folder)  # what does not fit is named before anything is told
    history = folder.events()
    if not history:
        raise StorageError(
            f"{path}: nothing has happened in this run yet (no {EVENTS}); start its `ensemble train` first"
        )
    experiment = parse_stored(folder.config(), str(path / CONFIG))
    config = experiment.tracking.wandb
    if mode is not None:
        config = config.model_copy(update={"mode": mode})
    if config.mode == "disabled":
        raise ConfigError(f"{path}: tracking.wandb.mode of this run is disabled; give --mode online or --mode offline")
    plain = experiment.model_dump(mode="json")
    images = images_of(path)
    return replay(history, config, experiment.name, plain, path, test_images=images, notify=_say, makers=makers)


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201
