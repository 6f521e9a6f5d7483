"""The `ensemble` command, also as `python -m ensemble`: signals are handled before anything else is imported."""

from ensemble import signals


def run() -> None:
    """Entry point of the command."""
    with signals.ending_process():
        signals.install()
        from ensemble.outside import json_lines

        json_lines.begin()
        from ensemble.commands.main import run_cli

        run_cli()


if __name__ == "__main__":
    run()
