"""The console where lines are JSON (`ENSEMBLE_LOG_FORMAT=json`): every event of a run with its fields, on stderr."""

from __future__ import annotations

from ensemble.events import EpochFinished, Event, MemberFailed, Notice, to_json
from ensemble.outside import json_lines
from ensemble.tracking.progress import Progress
from ensemble.tracking.sentences import describe, percent, stopped


class JsonConsole:
    """One object for each event: `event` is its kind, `message` the sentence for people, the rest its fields.

    run: the run's name. warnings_only: only what one must know even where progress is not wanted.
    """

    def __init__(self, run: str, warnings_only: bool = False) -> None:
        json_lines.of_run(run)
        self._warnings_only = warnings_only
        self._progress = Progress()
        self._closed = False

    def handle(self, event: Event, time: float) -> None:
        """Write the event."""
        if self._closed:
            return
        self._progress.update(event, time)
        level = _level(event)
        if self._warnings_only and not (isinstance(event, Notice) and event.warning):
            return
        fields = to_json(event)
        kind = fields.pop("event")
        if not isinstance(event, Notice):
            fields["message"] = _sentence(event)
        json_lines.write(level, time, event=kind, **fields)

    def close(self, ok: bool) -> None:
        """Write where a run that did not come to its end was left."""
        if not (self._closed or ok or self._warnings_only):
            json_lines.write("warning", message=stopped(self._progress))
        self._closed = True


def _level(event: Event) -> json_lines.Level:
    if isinstance(event, MemberFailed):
        return "warning" if event.decision == "retry" else "error"
    return "warning" if isinstance(event, Notice) and event.warning else "info"


def _sentence(event: Event) -> str | None:
    if isinstance(event, EpochFinished):
        return (
            f"member {event.member:04d}  epoch {event.epoch}/{event.epochs}  train loss {event.train_loss:.4f}"
            f"  validation error {percent(event.validation_error)}"
        )
    return describe(event)
