"""How every command ends: errors in words with the exit code of their family, and output that could not be written."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from ensemble.commands.words import say
from ensemble.errors import (
    EXIT_DEGRADED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    ComputeError,
    EnsembleError,
    StorageError,
)
from ensemble.outside.names import visible


class PoliteGroup(click.Group):
    """Turns the errors a user can mend into one message and the exit code of their family."""

    def __init__(self, *args: Any, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (), **kwargs: Any) -> None:
        """groups: for the help, a title each with its commands: an example to type, and what it does."""
        super().__init__(*args, **kwargs)
        self._groups = groups

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        longest = max((len(example) for _, commands in self._groups for example, _ in commands), default=0)
        for title, commands in self._groups:
            with formatter.section(title):
                # As wide in every group, so that they are one table.
                formatter.write_dl([(example.ljust(longest), text) for example, text in commands], col_max=longest)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _visible_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        try:
            with _visible_usage_errors():
                return super().invoke(context)
        except EnsembleError as error:
            _stop(str(error), error.exit_code, error, context)
        except KeyboardInterrupt as error:
            again = shlex.join(["ensemble", *sys.argv[1:]])
            _stop(f"interrupted; finished members are kept. Go on with: {again}", EXIT_INTERRUPTED, error, context)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            message, code = _of_system(error)
            _stop(message, code, error, context)
        except Exception as error:
            hint = "this is a mistake of the program, not yours; the whole trace comes with ensemble --debug ..."
            _stop(f"{type(error).__name__}: {error}\n{hint}", EXIT_INTERNAL, error, context)


@contextlib.contextmanager
def _visible_usage_errors() -> Iterator[None]:
    """click repeats what was typed in its messages."""
    try:
        yield
    except click.ClickException as error:
        error.message = visible(error.message)  # type: ignore[misc]  # final by its annotation alone
        raise


def _of_system(error: OSError) -> tuple[str, int]:
    """What to say about an error of the operating system that no door has put into words, and its exit code."""
    import socket  # only what goes wrong needs it, and help comes at once

    reason = error.strerror or str(error)
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return (
            f"the network does not answer: {reason}; try again, or check addresses and proxies",
            ComputeError.exit_code,
        )
    if error.filename is None:
        return f"the output cannot be written: {reason}; free space, or send it elsewhere", StorageError.exit_code
    return f"{error.filename}: {reason}; check the path, its permissions and the free space", StorageError.exit_code


def _stop(message: str, code: int, error: BaseException, context: click.Context) -> NoReturn:
    with contextlib.suppress(OSError):  # where even that cannot be written, the exit code says it
        if context.params.get("debug"):
            import traceback

            traceback.print_exception(error)
        say(f"error: {message}", err=True)
    raise SystemExit(code)


@contextlib.contextmanager
def output_finished() -> Iterator[None]:
    """Around a command: its exit code also says whether its output could be written."""
    try:
        yield
    except SystemExit as error:
        raise SystemExit(_code_after_output(error.code)) from None


def open_missing_streams() -> None:
    """Give a closed stdin, stdout or stderr to nobody, or the next file that is opened would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _code_after_output(code: str | int | None) -> str | int | None:
    """The exit code once all output is out: that of storage where it cannot be written.

    A reader that closes the pipe early (head) is no error. What is left then goes nowhere, or Python would try again
    at its very end, and complain.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if code in (0, None, EXIT_DEGRADED):
            message, code = _of_system(error)
            with contextlib.suppress(OSError):
                say(f"error: {message}", err=True)
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code
