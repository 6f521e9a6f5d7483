"""The `ensemble` command, also as `python -m ensemble`: signals are handled before anything else is imported."""

import os

from ensemble import signals
from ensemble.outside.streams import open_missing_streams


def run() -> None:
    """Entry point of the command."""
    with signals.ending_process():
        signals.install()
        open_missing_streams()
        if "ENSEMBLE_LOG_FORMAT" in os.environ:  # see `outside/json_lines.py`
            from ensemble.outside.json_capture import begin

            begin()
        from ensemble.commands.main import run_cli

        run_cli()


if __name__ == "__main__":
    run()
