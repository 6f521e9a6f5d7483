"""Run a command on pretended GPUs: `python tests/gpu/run.py [--gpus N] [--mib M] [--reports FOLDER] COMMAND ...`."""

from __future__ import annotations

import argparse
import os
import sys

from pretended_gpu import REPORTS, environment, why_not


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=1, help="how many the machine has (default 1)")
    parser.add_argument("--mib", type=int, default=81_920, help="memory of each in MiB (default 81920)")
    parser.add_argument("--reports", help="a folder into which each process writes what it asked of which GPU")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if not given.command:
        parser.error("expected a command")
    if reason := why_not():
        sys.exit(reason)
    more = {REPORTS: os.path.abspath(given.reports)} if given.reports else {}  # noqa: PTH100  read by C, as it is
    os.execvpe(given.command[0], given.command, environment(given.gpus, given.mib, **more))


if __name__ == "__main__":
    main()
