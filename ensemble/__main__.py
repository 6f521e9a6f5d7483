"""`python -m ensemble` is the `ensemble` command."""

from ensemble.cli import run_cli

if __name__ == "__main__":
    run_cli()
