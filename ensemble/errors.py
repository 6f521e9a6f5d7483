"""Errors a user can mend, each with the exit code of its family.

A message says what is wrong, where, what was found, what was expected and what to do next. Broken invariants of our
own are assertions, not these.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_DEGRADED = 4
EXIT_BELOW_QUORUM = 5
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 75


class EnsembleError(Exception):
    """Base of every error a user can mend."""

    exit_code = EXIT_INTERNAL


class ConfigError(EnsembleError):
    """A configuration or command line that cannot mean anything."""

    exit_code = 2


class DataError(EnsembleError):
    """A data set that is missing, damaged or not what it says."""

    exit_code = 3


class QuorumError(EnsembleError):
    """Fewer members finished than the run may be judged on."""

    exit_code = EXIT_BELOW_QUORUM


class StorageError(EnsembleError):
    """A run folder that cannot be read, written or trusted."""

    exit_code = 6


class ComputeError(EnsembleError):
    """A cluster or device that cannot do what was asked."""

    exit_code = 7


class StoppedError(EnsembleError):
    """A run that was asked to stop by another thread, and has kept what it has done."""

    exit_code = EXIT_INTERRUPTED


class PeekingError(EnsembleError):
    """Test votes were handed to a function that chooses something."""

    exit_code = EXIT_INTERNAL


def first_line(error: BaseException) -> str:
    """What an error says first; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
