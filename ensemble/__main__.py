"""The `ensemble` command, also as `python -m ensemble`: signals are handled before anything else is imported."""

from ensemble import interruption


def run() -> None:
    """Entry point of the command."""
    with interruption.ending_process():
        interruption.install()
        from ensemble.cli import run_cli

        run_cli()


if __name__ == "__main__":
    run()
