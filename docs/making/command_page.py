"""Every command with its arguments, options and exit codes, from click and from the errors there are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click

from docs.making.text import markdown, markdown_blocks
from ensemble import errors
from ensemble.commands.main import GROUPS, main

# What the codes mean that belong to no error of `ensemble.errors`.
_OTHER_CODES = {
    errors.EXIT_OK: "Done.",
    errors.EXIT_DEGRADED: "Done, but some members failed and the ensemble is smaller than asked, or W&B was not told everything.",
    errors.EXIT_INTERNAL: "A mistake of the program; `ensemble --debug COMMAND` shows the whole trace.",
    errors.EXIT_INTERRUPTED: "Interrupted (Ctrl-C, SIGTERM, SIGHUP) after a checkpoint; the same command goes on.",
}


def page() -> str:
    """Every command under a heading of the second rank, in the order of `ensemble --help`."""
    context = click.Context(main, info_name="ensemble")
    order = [example.split()[0] for _, commands in GROUPS for example, _ in commands]
    names = dict.fromkeys([*order, *main.commands])
    made = ["## ensemble\n", *_about(main, context)]
    for name in names:
        made += _command(main.commands[name], context, name, 2)
    return "\n".join(made)


def exit_codes() -> str:
    """A table of the codes with which commands end."""
    meanings = {
        error.exit_code: f"{markdown(inspect.getdoc(error) or '')} (`{error.__name__}`)"
        for error in all_errors() if error.exit_code not in _OTHER_CODES
    }  # fmt: skip
    rows = [f"| {code} | {meaning} |" for code, meaning in sorted({**meanings, **_OTHER_CODES}.items())]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def all_errors(base: type[errors.EnsembleError] = errors.EnsembleError) -> Iterator[type[errors.EnsembleError]]:
    """The documented errors, each after what it is a kind of."""
    for error in base.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error
            yield from all_errors(error)


def all_commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with what is typed for it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from all_commands(inner, f"{path} {name}")


def _command(command: click.Command, parent: click.Context, name: str, rank: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield f"{'#' * rank} {context.command_path}\n"
    yield from _about(command, context)
    if isinstance(command, click.Group):
        for inner, below in command.commands.items():
            yield from _command(below, context, inner, rank + 1)


def _about(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield f"{markdown_blocks(inspect.cleandoc(command.help or ''))}\n"
    for parameter in command.get_params(context):
        yield from _parameter(parameter, context)


def _parameter(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    if isinstance(parameter, click.Argument):
        several = (
            " (one or more)"
            if parameter.nargs == -1 and parameter.required
            else " (any number)"
            if parameter.nargs == -1
            else ""
        )
        optional = "" if parameter.required or parameter.nargs == -1 else " (may be left out)"
        yield f"`{parameter.make_metavar(context)}`\n: argument{several}{optional}\n"
        return
    assert isinstance(parameter, click.Option)
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    yield f"{names}{_takes(parameter, context)}\n: {markdown(parameter.help or '')}{_more(parameter)}\n"


def _takes(option: click.Option, context: click.Context) -> str:
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return f" {' | '.join(f'`{choice}`' for choice in option.type.choices)}"
    return f" `{option.make_metavar(context)}`"


def _more(option: click.Option) -> str:
    facts = [] if not option.multiple else ["may stand several times"]
    facts += ["needed"] if option.required else []
    default: Any = option.default
    if option.show_default is True and isinstance(default, str | int | float) and not isinstance(default, bool):
        facts.append(f"default `{default}`")
    return f" ({'; '.join(facts)})" if facts else ""
