"""The command line: python -m benchmarks.gpu [--out FILE.json] [--budget-s 540] [--parts NAME,...] [--dry-run]

Exit codes: 0 every part ran and passed, 1 something failed, was cut short or did not run, 2 a mistake in the command.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.kit import unpack
from benchmarks.gpu.parts import select
from benchmarks.gpu.report import table
from benchmarks.gpu.results import Results
from benchmarks.gpu.runner import run_parts

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the chosen parts and print the goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/gpu.json"), help="JSON; .md and .log lie beside it")
    parser.add_argument("--budget-s", type=float, help="seconds for everything; parts that do not fit are left out")
    parser.add_argument("--parts", help="names with commas between; without it all, in the order of their value")
    parser.add_argument("--list", action="store_true", help="print the parts with their limits and stop")
    parser.add_argument("--kit", type=Path, help="folder that `python -m benchmarks.gpu.prepare` filled")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes; on the CPU unless --device says otherwise")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where a dry run computes")
    parser.add_argument("--full-peer", action="store_true", help="whole_process: all 10 epochs of Ensemble-PyTorch")
    parser.add_argument(
        "--full-record", metavar="FOLDER", help="also train configs/record_mnist.yaml to its end, into FOLDER"
    )
    options = parser.parse_args()
    if options.device == "cpu" and not options.dry_run:
        parser.error("--device=cpu needs --dry-run: only a dry run computes on a CPU")
    device = options.device or ("cpu" if options.dry_run else "cuda")
    names = options.parts.split(",") if options.parts else None
    try:
        parts = select(names, {
            "device": device, "small": options.dry_run, "full_peer": options.full_peer,
            "full_record": options.full_record and str(Path(options.full_record).resolve()),
        })  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        for part in parts:
            print(f"{part.name:18} at most {part.limit_s:5.0f} s   {part.about}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running part is ended and recorded
    started = datetime.datetime.now(datetime.UTC)
    with tempfile.TemporaryDirectory() as scratch:
        environment = _environment(options.kit, Path(scratch))
        results = Results(options.out, {
            "started": started.isoformat(timespec="seconds"), "commit": _commit(options.kit), "device": device,
            "dry_run": options.dry_run, "budget_s": options.budget_s,
        })  # fmt: skip
        spent = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
        run_parts(parts, results, options.budget_s and options.budget_s - spent, environment)
    print(table(results.record))
    print(f"written: {options.out}, {options.out.with_suffix('.md')}, {options.out.with_suffix('.log')}")
    return 0 if results.all_passed else 1


def _environment(kit: Path | None, scratch: Path) -> dict[str, str]:
    """What the parts run with: this checkout, the kit's packages and images, caches of their own."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every part would compile torch anew, for seconds
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    environment["ENSEMBLE_CACHE"] = str(scratch / "cache")  # nothing that was measured elsewhere is taken over
    return {**environment, **unpack(kit, scratch, environment["PYTHONPATH"])} if kit else environment


def _commit(kit: Path | None) -> str | None:
    """The commit of this checkout, "+changes" where files differ; in a copy without git what the kit says."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        noted = kit / "commit" if kit else None
        return noted.read_text().strip() if noted and noted.is_file() else None
    return f"{commit}+changes" if changes else commit


if __name__ == "__main__":
    sys.exit(main())
