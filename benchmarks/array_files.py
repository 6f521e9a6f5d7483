"""Array files: how much memory a driver takes and how long its starts last, with data.storage mapped and memory.

python -m benchmarks.array_files [--images 60000] [--side 96] [--starts 3] [--train] [--types uint8 uint16]

Random images of 3 x SIDE x SIDE, as `numpy.savez` and as `numpy.savez_compressed` (fastest level) write them, are made in a temporary folder that is
removed. Each start is a process of its own, that reads the data set, its digest, mean and deviation as a run does, or with --train a
whole `ensemble train` of one small network on few images. Peaks are the largest of samples of /proc/PID/status every 20 ms:
RssAnon is what the process has taken itself, VmHWM also counts pages of mapped files, which the system drops when it needs room.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

READ = """
import sys
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset, normalization, split_of
config = DataConfig(name="arrays", path=sys.argv[1], storage=sys.argv[2])
data = load_dataset(config)
normalization(data, split_of(data, config, 0))
print(images_digest(data))
"""
NOTHING = "import ensemble.data.dataset, ensemble.data.array_file"
ROWS = 256  # written at a time
CLASSES = 10


def main() -> None:
    """Prints one line per start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--types", nargs="+", default=["uint8"])
    parser.add_argument("--train", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ENSEMBLE_CACHE"] = f"{scratch}/cache"
        print(f"imports alone: {measured([sys.executable, '-c', NOTHING])[1]}")
        for dtype in given.types:
            for compressed in (False, True):
                path = Path(scratch) / "set.npz"
                write(path, given.images, given.side, np.dtype(dtype), compressed)
                kind = f"{dtype}, {'compressed' if compressed else 'stored'} ({path.stat().st_size / 1e6:,.0f} MB)"
                starts(kind, path, given.starts, given.train)
                path.unlink()


def write(path: Path, count: int, side: int, dtype: np.dtype[np.generic], compressed: bool) -> None:
    """The file, without having all of it in memory."""
    random, top = np.random.default_rng(0), 256 if dtype == np.uint8 else 4096
    way, level = (zipfile.ZIP_DEFLATED, 1) if compressed else (zipfile.ZIP_STORED, None)
    with zipfile.ZipFile(path, "w", way, compresslevel=level) as archive:
        with archive.open("train_images.npy", "w", force_zip64=True) as member:
            header = {"descr": dtype.str, "fortran_order": False, "shape": (count, 3, side, side)}
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, count, ROWS):
                shape = (min(ROWS, count - start), 3, side, side)
                smooth = np.repeat(random.integers(0, top // 16, shape[:3], dtype), side, axis=2).reshape(shape)
                member.write((smooth * 16 + random.integers(0, 16, shape, dtype)).tobytes())
        with archive.open("train_labels.npy", "w") as member:
            np.lib.format.write_array(member, np.arange(count) % CLASSES)


def starts(kind: str, path: Path, count: int, train: bool) -> None:
    """Starts that prepare, start again, and keep everything in memory."""
    digests = set()
    for storage, what in [("mapped", "prepares"), *[("mapped", "again")] * count, *[("memory", "")] * count]:
        command = [sys.executable, "-c", READ, str(path), storage]
        if train:
            command = [
                sys.executable, "-m", "ensemble", "train", "quickstart", f"data={{name: arrays, path: {path}, storage: {storage}}}",
                "data.max_train_rows=2000", "num_members=1", "training.epochs=1", "model={name: mlp, widths: [32]}", f"output_dir={path.parent}/runs",
                f"name=run{time.monotonic_ns()}", "-q",
            ]  # fmt: skip
        said, figures = measured(command)
        digests.add(said if not train else "")
        print(f"{kind}: {storage} {what}: {figures}", flush=True)
    assert len(digests) == 1, "all starts have the same images"


def measured(command: list[str]) -> tuple[str, str]:
    """What a process prints, and its time and peaks in words."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    anonymous = whole = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines if line.endswith(" kB")}
        anonymous, whole = max(anonymous, sizes.get("RssAnon", 0)), max(whole, sizes.get("VmHWM", 0))
        time.sleep(0.02)
    said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{command[-1]}: exit code {process.returncode}")
    return (
        said.strip(),
        f"{time.monotonic() - began:.1f} s, {anonymous:,.0f} MB of its own, {whole:,.0f} MB with mapped files",
    )


if __name__ == "__main__":
    main()
