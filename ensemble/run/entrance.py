"""Training from Python: what `ensemble train` is for shells.

run = ensemble.train("configs/bagging_lenet5_mnist.yaml", {"data.root": "data"})
run = ensemble.train(model="lenet5", data=(X_train, y_train, X_test, y_test), method="bagging", num_members=8,
                     training={"epochs": 20}, name="mine", on_event=print)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from pydantic import ValidationError

from ensemble import signals
from ensemble.config import Experiment, load_config, parse_experiment, weights_file
from ensemble.config.base import Section
from ensemble.config.keys import dotted, named_in_full
from ensemble.config.loading import put
from ensemble.config.yaml_source import KeyPath
from ensemble.data import Dataset
from ensemble.data.dataset import dataset_of_arrays
from ensemble.data.map_style import given_arrays
from ensemble.errors import ConfigError, StoppedError
from ensemble.events import Event
from ensemble.models.python import PythonConfig
from ensemble.outside import json_lines, own_code
from ensemble.report.repeated import write_repeats
from ensemble.run.compose import run_experiment
from ensemble.run.repeats import run_repeats
from ensemble.run.run import RunOutcome
from ensemble.run.stored import Run
from ensemble.run.stored_repeats import Repeats
from ensemble.tracking.base import Tracker

GIVEN = "(arrays given to ensemble.train)"


@overload
def train(
    config: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    repeats: int,
    data: Any = None,
    trackers: Sequence[Tracker] = (),
    on_event: Callable[[Event], object] | None = None,
    progress: bool = False,
    model_args: Mapping[str, Any] | None = None,
    keep_weights: bool = False,
    **keys: Any,
) -> Repeats: ...
@overload
def train(
    config: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    trackers: Sequence[Tracker] = (),
    on_event: Callable[[Event], object] | None = None,
    progress: bool = False,
    model_args: Mapping[str, Any] | None = None,
    keep_weights: bool = False,
    **keys: Any,
) -> Run: ...
def train(
    config: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    trackers: Sequence[Tracker] = (),
    on_event: Callable[[Event], object] | None = None,
    progress: bool = False,
    model_args: Mapping[str, Any] | None = None,
    keep_weights: bool = False,
    **keys: Any,
) -> Run | Repeats:
    """Train what is missing of a run, judge it, and return it. The same call again retrains nothing that is finished.

    config: a YAML file as `ensemble train` takes it, or nothing. overrides: values by dotted key, such as
    {"training.epochs": 5}. keys: the sections and keys of a configuration (model, method, training, num_members, name
    ...), laid over the file; a model or method may be given by its name alone, and a model as a class or function of a
    Python file, which is called with num_classes, in_channels and model_args and gives an nn.Module, or as an nn.Module that is
    built: every member draws weights of its own for it, by the reset_parameters of its layers, or with keep_weights starts from
    those that it has. data: a section, the name of a data set,
    or arrays: (train_images, train_labels) or (train_images, train_labels, test_images, test_labels), with images
    [N, H, W], [N, H, W, C] or [N, C, H, W]; without a test part a share is held back (data.test_fraction); or PyTorch data sets of
    (image, class number): one, a pair (training, test), or {"train": ..., "validation": ..., "test": ...} (see `ensemble.data.map_style`).
    trackers: further listeners (see `ensemble.tracking.base.Tracker`). on_event: called with every event, in this thread.
    progress: show the console of `ensemble train`; nothing is printed without it.

    With repeats=5 (or in the file or overrides) there are five runs, one after the other, with seeds that follow one another, and
    what is returned is the judgement over all of them, `Repeats`; its files are those of `ensemble train CONFIG repeats=5`.

    Without a file, the run is named "run" unless `name` says otherwise, and W&B is off unless `tracking` is given. Raises
    the errors of `ensemble.errors`; StoppedError where `stop` was called, KeyboardInterrupt for Ctrl-C: what was trained is
    kept, and the same call goes on.
    """
    arrays = given_arrays(data, "data")
    if own_code.executing():
        raise ConfigError(
            'ensemble.train was called by the file of a network or of data while that was executed to build or read them; put the training under `if __name__ == "__main__":`, or the network or data into a file of its own'
        )
    model = keys.get("model")
    built: Any = model if _is_network(model) else None
    if keep_weights and built is None:
        raise ConfigError(
            "keep_weights: has no effect without model=..., a network that is built; leave it out (a section has model.weights)"
        )
    if built is not None and model_args is not None:
        raise ConfigError(
            "model_args: has no effect on a network that is built; give its class, or a function that makes it"
        )
    if built is not None:
        keys["model"] = _with_keys(PythonConfig.of_network(built, keep_weights), overrides or {})
    elif callable(model) and not isinstance(model, Section):
        keys["model"] = _with_keys(PythonConfig.of(model, _plain(model_args or {}, "")), overrides or {})
    elif model_args is not None:
        raise ConfigError(
            "model_args: has no effect without model=..., a class or function; put its keys into the model's section"
        )
    if data is not None:
        keys["data"] = data if arrays is None else {"name": "arrays", "path": GIVEN}
    if isinstance(keys.get("model"), PythonConfig):  # which has those of the model
        overrides = {key: value for key, value in (overrides or {}).items() if not _of_model(dotted(key))}
    experiment = _experiment(config, keys, overrides or {})
    listeners = [*trackers, *([_Caller(on_event)] if on_event is not None else [])]
    dataset = None if arrays is None else dataset_of_arrays(arrays, experiment.data, "arrays", GIVEN)
    if experiment.repeats == 1:
        return Run(_run(experiment, dataset, listeners, progress).path, trust_code=True)  # it has just been executed
    if trackers:
        raise ConfigError(
            f"trackers: a tracker hears of one run and is closed at its end, and repeats={experiment.repeats} are so many runs; give on_event, or trackers under tracking"
        )
    return _repeated(experiment, dataset, listeners, progress)


def _repeated(experiment: Experiment, dataset: Dataset | None, listeners: Sequence[Tracker], progress: bool) -> Repeats:
    found = run_repeats(
        experiment,
        lambda run: _run(run, dataset, listeners, progress),
        json_lines.tell if progress else lambda _line: None,
    )
    write_repeats(found.judged, found.folder)
    return Repeats(found.folder, trust_code=True)


def _is_network(model: Any) -> bool:
    """True for an nn.Module; there is none where torch is not loaded yet."""
    return "torch" in sys.modules and isinstance(model, sys.modules["torch"].nn.Module)


def _with_keys(model: PythonConfig, overrides: Mapping[str, Any]) -> PythonConfig:
    """The section with what overrides say of it, such as model.freeze. Raises ConfigError."""
    given = {path: value for key, value in overrides.items() if _of_model(path := dotted(key))}
    if not given:
        return model
    values = model.model_dump()
    for path, value in given.items():
        put(values, {}, path[1:], _plain(value, ""), ".".join(map(str, path)), "Python")
    if ("model", "weights") in given:
        values = dict(weights_file.complete({**values, "weights_sha256": None}, Path.cwd()))
    try:
        return PythonConfig.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise ConfigError(f"{'.'.join(map(str, ('model', *found['loc'])))}: {found['msg']}") from error


def _of_model(path: KeyPath) -> bool:
    return len(path) > 1 and path[0] == "model"


def stop() -> None:
    """Ask the training under way in this process, of another thread, to stop: it keeps what it has done, within seconds."""
    _State.stopped = True
    signals.ask()


class _State:
    stopped = False


class _Caller:
    """A function as a tracker."""

    def __init__(self, call: Callable[[Event], object]) -> None:
        self._call = call

    def handle(self, event: Event, time: float) -> None:  # noqa: ARG002 - as every tracker is told
        self._call(event)

    def close(self, ok: bool) -> None:
        """There is nothing to let go of."""


def _run(experiment: Experiment, dataset: Dataset | None, listeners: Sequence[Tracker], progress: bool) -> RunOutcome:
    import torch

    threads = torch.get_num_threads()
    _State.stopped = False
    try:
        return run_experiment(experiment, "progress" if progress else "silent", listeners, dataset)
    except KeyboardInterrupt:
        if not _State.stopped:
            raise
        raise StoppedError(
            f"{experiment.name}: stopped as asked; the same call of ensemble.train goes on from here"
        ) from None
    finally:
        torch.set_num_threads(threads)  # the inline executor sets that of its tasks
        if _State.stopped:
            _State.stopped = False
            signals.clear()


def _experiment(
    config: str | os.PathLike[str] | None, keys: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Experiment:
    if not isinstance(overrides, Mapping):
        raise ConfigError(
            f"ensemble.train: the overrides are a {type(overrides).__name__}; expected a dict of keys and values, such as {{'training.lr': 0.01}}"
        )
    values: dict[KeyPath, Any] = dict(_leaves(keys))
    values.update({dotted(key): _plain(value, key) for key, value in overrides.items()})
    if config is not None:
        return load_config(Path(config), more=values).experiment
    made: dict[str, Any] = {"name": "run", "tracking": {"wandb": {"mode": "disabled"}}}
    for path, value in values.items():
        put(made, {}, path, value, ".".join(map(str, path)), "Python")
    return parse_experiment(made, "ensemble.train")


def _leaves(keys: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """Keys and their values; a section is laid over what is there key by key, one with a name takes its place."""
    for key, value in keys.items():
        plain = _plain(value, key)
        if isinstance(plain, dict) and "name" not in plain:
            yield from (((key, inner), of_it) for inner, of_it in plain.items())
        else:
            yield (key,), plain


def _plain(value: Any, key: str) -> Any:
    """A value as the schema takes it: tuples for lists, plain numbers, texts for paths, sections for names of parts."""
    value = named_in_full(value, dotted(key)) if key else value
    if isinstance(value, Mapping):
        return {name: _plain(inner, "") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(inner, "") for inner in value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
