"""Print a made part of the documentation."""

from __future__ import annotations

import sys

from docs.making import MADE, made

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in MADE:
        sys.exit(f"expected one of: {', '.join(MADE)}")
    sys.stdout.write(made(sys.argv[1]) + "\n")
