"""`ensemble init`: a first configuration for a folder of pictures, arrays or a named set. `main` adds it to the others."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble.commands.words import GivenPath, say

if TYPE_CHECKING:
    from ensemble.data.surveyed import Survey

_SMALLEST_MAP = 8  # pixels: blocks that halve the side are added until it is no larger

_ABOUT_SIZE = """\
  # image_size: one number for squares or [height, width]; larger shows more detail and costs with the number of pixels
  # resize: pad # or squash; without it of pictures of other proportions the middle is cut out (crop)
"""


@click.command()
@click.argument("source")
@click.option("--out", type=GivenPath(), help="The new file; without it the name of SOURCE with .yaml, here.")
def init(source: str, out: Path | None) -> None:
    """Write a commented configuration for SOURCE to start from.

    SOURCE is a folder with one folder of pictures per class, or with tar shards (train*.tar, val*.tar, test*.tar), an .npz
    file with train_images and train_labels, or one of `ensemble datasets`.
    """
    from ensemble.config.json_schema import FILE
    from ensemble.data.survey import survey
    from ensemble.errors import ConfigError

    found = survey(source)
    target = Path(f"{_plain(found.name)}.yaml") if out is None else out
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(configuration(found, target))
    except FileExistsError as error:
        raise ConfigError(f"{target}: is there already; give another name by --out, or remove it") from error
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror or error}; give another place by --out"
        ) from error
    _write_schema(target.parent / FILE)
    for note in found.notes:
        say(f"note: {note}", err=True)
    say(f"wrote {target}; next: ensemble train {target}", err=True)
    say(target)


def _write_schema(path: Path) -> None:
    """The schema that the configuration's first line names, for editors; nothing else needs it."""
    from ensemble.config.json_schema import TITLE, json_schema

    with contextlib.suppress(OSError, ValueError):
        if not path.exists() or json.loads(path.read_text()).get("title") == TITLE:
            path.write_text(json.dumps(json_schema(), indent=1) + "\n")


def _plain(name: str) -> str:
    """A name that runs and files can have: letters without their accents, and no other signs."""
    letters = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", letters).strip("._-")[:60] or "mine"


def configuration(found: Survey, target: Path) -> str:
    """The text of the file."""
    from ensemble.config.json_schema import FILE

    batch_size = max(16, min(128, 1 << max(0, (found.train_images // 40).bit_length() - 1)))
    tests = f"{found.test_images:,} to test" if found.test_images else "a fifth of them is held back to test"
    shape = f"{found.num_classes} classes; images {'x'.join(map(str, found.image_shape))}"
    data = "\n".join(f"  {key}: {json.dumps(value)}" for key, value in found.data.items())
    size = _ABOUT_SIZE if "image_size" in found.data else ""
    return f"""\
# yaml-language-server: $schema={FILE}
# ensemble train {target}
# A place to start from, not a tuned recipe. `ensemble config {target}` shows every key, its value and where it came from;
# any key can be changed for one run, as in: ensemble train {target} num_members=8 training.epochs=40
name: {json.dumps(_plain(found.name))}
num_members: 5
method: {{name: bagging}} # each member on its own draw of the rows; deep_ensemble: each on all of them; others: README
# baseline: false # without the one network more, on all rows, that bagging trains to compare the vote with
# {found.train_images:,} images to train, {tests}; {shape}.
data:
{data}
{size}  # calibration_fraction: 0.1 # rows for thresholds and prediction sets alone: ensemble predict --reject, --sets
model: {_model(found)} # `ensemble models` lists the others
training:
  epochs: 20
  batch_size: {batch_size}
  lr: 2e-3
  optimizer: adamw
  weight_decay: 0.01
  schedule: one_cycle
  # Changed images, drawn anew for every epoch. What keeps the class of an image only you can know:
  # augmentation: {{shift: 0.08, rotation_degrees: 10{", horizontal_flip: true" if found.flippable else ""}}}
# What the vote is worth on other images than these, here the test images made worse in 70 ways; more: README
# evaluation: {{sets: [{{name: corrupted, kind: shifted, corruptions: cifar10_c}}]}}
tracking:
  wandb: {{mode: disabled}} # offline: files to send later; online: as it runs
"""


def _model(found: Survey) -> str:
    if found.image_shape == (1, 28, 28):
        return "{name: lenet5}"
    widths, side = [32], min(found.image_shape[1:]) // 2
    while side > _SMALLEST_MAP:
        widths.append(min(128, widths[-1] * 2))
        side //= 2
    return f"{{name: cnn, widths: {widths}, batch_norm: true}}"


COMMANDS = (init,)
