"""What a listener is, and how several of them hear the same events without one of them ever harming training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from ensemble.events import Event

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Hears every event of a run in the driver, in order per member, until it is closed."""

    def handle(self, event: Event, time: float) -> None:
        """Take notice of one event that happened at `time` (unix seconds)."""

    def close(self, ok: bool) -> None:
        """Let go of everything; `ok` says whether the run came to its end. A second call does nothing."""


class Composite:
    """Hands every event to all trackers; one that raises is reported once and left out from then on.

    Only Exceptions are kept from training: KeyboardInterrupt and SystemExit pass.
    """

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = list(trackers)

    def handle(self, event: Event, time: float) -> None:
        """Pass the event on to every tracker that still works."""
        self._each(lambda tracker: tracker.handle(event, time))

    def close(self, ok: bool) -> None:
        """Close every tracker that still works."""
        self._each(lambda tracker: tracker.close(ok))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._trackers):
            try:
                act(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                log.warning(
                    "%s failed and is left out from here on; training goes on: %s: %s",
                    type(tracker).__name__,
                    type(error).__name__,
                    error,
                    exc_info=log.isEnabledFor(logging.DEBUG),
                )
