"""How every command ends: errors in words with the exit code of their family, and output that could not be written."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from ensemble import signals
from ensemble.commands.words import say
from ensemble.errors import (
    EXIT_DEGRADED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EnsembleError,
    StorageError,
)
from ensemble.outside.names import visible

# What people type who know other programs, and no edit distance would find.
_OTHER_WORDS = {
    "list": "runs", "ls": "runs", "fit": "train", "run": "train", "eval": "evaluate", "test": "evaluate", "new": "init",
}  # fmt: skip


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from ensemble.config.explain import closest  # not for those who type what there is

            near = _OTHER_WORDS.get(args[0]) or closest(args[0], self.list_commands(ctx))
            if near in self.list_commands(ctx):
                said = f"{error.message} Did you mean `{ctx.command_path} {near}`?"
                raise click.UsageError(
                    said, ctx
                ) from error  # without click's own suggestions, which would say it twice
            raise

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _visible_usage_errors(), _errors_in_words(debug=False):  # --help and --version print there
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        with _errors_in_words(bool(context.params.get("debug"))), _visible_usage_errors():
            return super().invoke(context)


@contextlib.contextmanager
def _errors_in_words(debug: bool) -> Iterator[None]:
    """Inside, whatever is raised becomes a message and an exit code. debug: with its trace."""
    try:
        yield
    except EnsembleError as error:
        _stop(str(error), error.exit_code, error, debug)
    except KeyboardInterrupt as error:
        _interrupted(error, debug)
    except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if signals.requested():  # native code makes a SystemError of the KeyboardInterrupt, an import half a module
            _interrupted(error, debug)
        from ensemble.launch.surroundings import in_words  # only what goes wrong needs it, and help comes at once

        if (found := in_words(error)) is not None:
            _stop(*found, error, debug)
        hint = "this is a mistake of the program, not yours; the whole trace comes with ensemble --debug ..."
        _stop(f"{type(error).__name__}: {error}\n{hint}", EXIT_INTERNAL, error, debug)


def _interrupted(error: BaseException, debug: bool) -> NoReturn:
    again = shlex.join(["ensemble", *sys.argv[1:]])
    trains = any(word in sys.argv[1:3] for word in ("train", "sweep", "reproduce"))
    kept = "finished members are kept. Go on with" if trains else "no file is left half-written. Again with"
    _stop(f"interrupted; {kept}: {again}", EXIT_INTERRUPTED, error, debug)


@contextlib.contextmanager
def _visible_usage_errors() -> Iterator[None]:
    """click repeats what was typed in its messages."""
    try:
        yield
    except click.ClickException as error:
        error.message = visible(error.message)  # type: ignore[misc]  # final by its annotation alone
        raise


def _stop(message: str, code: int, error: BaseException, debug: bool) -> NoReturn:
    with contextlib.suppress(OSError):  # where even that cannot be written, the exit code says it
        if debug:
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
            from ensemble.launch.surroundings import in_words

            message, code = in_words(error) or (str(error), StorageError.exit_code)
            with contextlib.suppress(OSError):
                say(f"error: {message}", err=True)
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code
