"""What happened, as frozen records. Training emits them, listeners read them, the event log on disk is the truth.

`to_json` and `from_json` are inverse; unknown kinds and fields in a log are errors, not guesses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ensemble.errors import StorageError


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A driver opened the run. `finished` counts members already on disk."""

    name: str
    method: str
    members: int
    finished: int
    executor: str
    slots: int


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A slot began to train a stack; `epochs` is how many each of its members will be trained for."""

    task: str
    members: tuple[int, ...]
    recipe: str
    epochs: int
    host: str
    pid: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class EpochFinished:
    """One member ended one epoch. Epochs count from 1; losses in nats; `seconds` is the member's share of its stack.

    images: training images that it saw. cpu_cores, memory_bytes: cores that the process which trains it has kept busy since
    its last epoch, and the memory it has now; gpu_memory_bytes, gpu_percent: of its GPU. None where that is not known, as in
    logs of earlier versions.
    """

    member: int
    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    validation_error: float
    lr: float
    seconds: float
    train_error: float | None = None
    test_loss: float | None = None
    test_error: float | None = None
    images: int | None = None
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_percent: float | None = None


@dataclass(frozen=True, slots=True)
class MemberFinished:
    """A member's votes and weights are on disk."""

    member: int
    recipe: str
    num_parameters: int
    train_seconds: float
    kept_epoch: int
    validation_error: float


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """A member did not finish; `decision` is what the failure policy made of it: drop, retry or stop."""

    member: int
    kind: str
    reason: str
    tries: int
    seconds_lost: float
    decision: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know that is no failure. warning: also where only errors are shown."""

    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run was judged. `headline` holds the figures a dashboard sorts by (fractions and p-values)."""

    members: int
    failed: int
    seconds: float
    headline: dict[str, float]


Event = RunStarted | TaskStarted | EpochFinished | MemberFinished | MemberFailed | Notice | RunFinished

EVENTS: dict[str, Callable[..., Event]] = {
    cls.__name__: cls
    for cls in (RunStarted, TaskStarted, EpochFinished, MemberFinished, MemberFailed, Notice, RunFinished)
}


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, its class name under "event"."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def from_json(record: dict[str, Any]) -> Event:
    """The event of a record made by `to_json`. Raises StorageError for a record that is none."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    values.pop("time", None)
    kind = values.pop("event", None)
    if not isinstance(kind, str) or kind not in EVENTS:
        raise StorageError(f"event log: unknown event {kind!r}; known: {', '.join(EVENTS)}")
    try:
        event = EVENTS[kind](**values)
        _form(kind).model_validate(values)
    except (TypeError, ValidationError) as error:
        why = (
            "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3])
            if isinstance(error, ValidationError)
            else error
        )
        raise StorageError(f"event log: {kind} does not fit this version: {why}") from error
    return event


@cache
def _form(kind: str) -> type[BaseModel]:
    """The types of an event's fields, to compare a record with."""
    event: Any = EVENTS[kind]
    hints = get_type_hints(event)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(event)
    }
    return create_model(kind, __config__=ConfigDict(strict=True), **fields)
