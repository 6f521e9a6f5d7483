"""Train over several hosts, break one thing at a time, and see what it costs.

    sudo .venv/bin/python -m benchmarks.hosts [--only CASE ...] [--out FILE.json]

Hosts are namespaces of this machine (`benchmarks.namespaces`), with addresses, processes and disks of their own; Ray, torchrun and what they
train are real. The same configuration is trained inline first: whatever happens, weights and votes must have the same
SHA-256. A case holds where the last exit code is 0, the bits are equal, no member that was stored is trained again, and
the log is never silent for more than 30 s. About fifteen minutes on two cores; needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import hosts_launched, hosts_ray
from benchmarks.hosts_measured import (
    EPOCHS,
    HANG_TIMEOUT_S,
    HEADER,
    MEMBERS,
    STACK,
    Measured,
    Work,
    digests,
    undisturbed,
)
from benchmarks.namespaces import REPOSITORY, Network, NoHostsError

LAUNCHED = "torchrun-"


def commit() -> str:
    """The commit that is measured, with a mark where files differ from it."""
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def run_cases(
    names: list[str], logs: Path | None = None, epochs: int = EPOCHS, reference: Path | None = None
) -> dict[str, Any]:
    """The figures of these cases; each is printed as soon as it is there. Raises NoHostsError where there can be no hosts."""
    ray_cases = [name for name in names if not name.startswith(LAUNCHED)]
    launched_cases = [name.removeprefix(LAUNCHED) for name in names if name.startswith(LAUNCHED)]
    found: list[Measured] = []
    began = time.monotonic()
    with Network() as network:
        compares = any(not name.endswith("-key") for name in names)
        work = Work(epochs, digests(reference) if reference else {})
        if compares and not work.expected:
            work = undisturbed(network.folder, epochs)
        print(HEADER, flush=True)
        for part in (
            hosts_ray.measure_ray(ray_cases, network, work),
            hosts_launched.measure_launched(launched_cases, network, work),
        ):
            for measured in part:
                found.append(measured)
                print(measured.row(), flush=True)
                if logs:
                    logs.mkdir(parents=True, exist_ok=True)
                    (logs / f"{len(found):02d}.txt").write_text(f"{measured.case}\n{measured.log}\n")
    return {
        "commit": commit(), "cores": os.cpu_count(), "python": sys.version.split()[0], "members": MEMBERS,
        "stack_size": STACK, "epochs": epochs, "hang_timeout_s": HANG_TIMEOUT_S, "seconds": time.monotonic() - began,
        "cases": [measured.to_json() for measured in found],
    }  # fmt: skip


def main() -> None:
    known = [*hosts_ray.CASES, *(f"{LAUNCHED}{name}" for name in hosts_launched.CASES)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=known, metavar="CASE", help=", ".join(known))
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--logs", type=Path, help="keep what each case printed in this folder")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="fewer for a machine that is busy otherwise")
    parser.add_argument("--reference", type=Path, help="the folder of an undisturbed run, instead of training it first")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the hosts end as well
    try:
        figures = run_cases(arguments.only or known, arguments.logs, arguments.epochs, arguments.reference)
    except NoHostsError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"\ncommit {figures['commit']}, {figures['cores']} cores, {figures['seconds']:.0f} s in all")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    if not all(case["holds"] for case in figures["cases"]):
        raise SystemExit("not everything holds")


if __name__ == "__main__":
    main()
