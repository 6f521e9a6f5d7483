"""Measure this machine's graphics card for the planner: which stack size is fastest, what fits, which convolutions to take.

    python -m benchmarks.tune_gpu [--precisions float32,bf16] [--kinds lenet,narrow,...] [--out FILE.json] [--dry-run]

Fills the card's entry in ensemble/training/gpu_cards.json, from which runs are then planned; other cards' entries stay.
Every part is a process under a time limit of its own, and the file is written after each case, so whatever ends it, what was
measured by then counts. Convolutions come first, since the networks are then timed with the fastest ones. Images are random.
--dry-run does a little of it on the CPU, to see that it works, and writes only where --out says.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.bench import Bench
from benchmarks.stack_speeds import MODELS as MODELS_OF_CPUS
from ensemble.config import parse_experiment
from ensemble.config.network import Network
from ensemble.training.gpu_cards import Card, convolutions, local_card, stored_ways
from ensemble.training.layers import StackedConv2d, channels_last
from ensemble.training.step_timing import free_gpu_memory, seconds_on_gpu

TABLE = Path(__file__).resolve().parents[1] / "ensemble" / "training" / "gpu_cards.json"
BATCH = 128
STEPS = 50  # of an epoch
LIMIT_S = 90.0  # of a part
_SHAPE, _CLASSES = (1, 28, 28), 10
MODELS: dict[str, dict[str, Any]] = {
    **MODELS_OF_CPUS,
    "resnet18": {"name": "resnet18", "stem": "small"},
    "resnet50": {"name": "resnet50", "stem": "small"},
}
SIZES = {
    "lenet": (64, 1, 8, 16, 32, 128, 256), "narrow": (64, 1, 8, 16, 32, 128, 256), "mlp": (64, 1, 8, 16, 32, 128, 256),
    "medium": (16, 1, 4, 8, 32), "wide": (4, 1, 2, 8), "resnet18": (2, 1, 4, 8), "resnet50": (1, 2, 4),
}  # fmt: skip
APART_UP_TO = 16  # members of which each convolution is worth a try by itself


def measure_convolutions(bench: Bench, kind: str, precision: str) -> Iterator[dict[str, Any]]:
    """Per layer and stack size: seconds forward and backward of every way, infinity left out, and the fastest."""
    model = _config(kind)
    for count in (2,) if bench.small else SIZES[kind]:
        seen: set[str] = set()
        for number, (name, layer) in enumerate(convolutions(model, _SHAPE, _CLASSES)):
            if layer not in seen:
                seen.add(layer)
                ms = dict(_ways(bench, model, name, count, precision, first=number == 0))
                if ms:
                    case = {"precision": precision, "members": count, "batch_size": _batch(bench), "layer": layer}
                    yield {**case, "fastest": min(ms, key=lambda way: ms[way]), "ms": ms}


def _ways(
    bench: Bench, model: Network, name: str, count: int, precision: str, first: bool
) -> Iterator[tuple[str, float]]:
    plain, size = _layer(model, name)
    stacked = StackedConv2d([plain for _ in range(count)]).to(bench.device)
    x = torch.randn(_batch(bench), count * plain.in_channels, *size, device=bench.device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    x = channels_last(x.to(dtype)).requires_grad_(not first)

    def step() -> None:
        with torch.autocast(bench.device, dtype, enabled=dtype != torch.float32):
            y = stacked(x)
        y.backward(torch.ones_like(y))
        x.grad = None
        stacked.zero_grad()

    for way in stacked.possible_ways():
        if way == "apart" and count > APART_UP_TO:
            continue
        stacked.way = way
        with contextlib.suppress(Exception):  # out of memory, no kernel for this shape: it is not the fastest then
            yield way, 1000 * (seconds_on_gpu(step) if bench.on_gpu else _by_clock(step))
        if bench.on_gpu:
            free_gpu_memory()


def measure_network(bench: Bench, kind: str, precision: str, card: Card) -> Iterator[dict[str, Any]]:
    """Per stack size: member-images of training per second, and peak bytes of one member."""
    model, rows = _config(kind), _batch(bench) * bench.size(STEPS, 4)
    arrays = bench.random_arrays(rows, _SHAPE)
    for count in sorted((1, 2) if bench.small else SIZES[kind]):
        ways = stored_ways(card, model, precision, count, _batch(bench), _SHAPE, _CLASSES)
        training = {"batch_size": _batch(bench)}
        found = bench.train(
            count, MODELS[kind], training, arrays, ways.convolutions if ways else None, precision=precision
        )
        peak = torch.cuda.max_memory_reserved() if bench.on_gpu else 0
        yield {
            "members": count, "batch_size": _batch(bench), "images_per_s": count * rows / found.epoch_s,
            "peak_bytes": peak / count, "notes": found.notes,
        }  # fmt: skip


def run_part(name: str, small: bool) -> None:
    """In a process of its own: measure and print a line of JSON per case."""
    what, kind, precision = name.split(":")
    bench = Bench("cpu" if small else "cuda", small)
    card = local_card() or Card("none", 0.0)
    cases = (
        measure_convolutions(bench, kind, precision)
        if what == "convolutions"
        else measure_network(bench, kind, precision, card)
    )
    for case in cases:
        print(json.dumps(case), flush=True)


def cases_of(name: str, small: bool, limit_s: float) -> Iterator[dict[str, Any]]:
    """Start a part and yield its cases as they come, until it ends or its time is over."""
    words = [sys.executable, "-m", "benchmarks.tune_gpu", "--part", name, *(["--dry-run"] if small else [])]
    deadline = time.monotonic() + limit_s
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, cwd=TABLE.parents[2]) as process,
        selectors.DefaultSelector() as ready,
    ):
        assert process.stdout is not None
        ready.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while ready.select(max(0.0, deadline - time.monotonic())):
            read = os.read(process.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + read).split(b"\n")
            yield from map(json.loads, lines)
            if not read:
                break
        else:
            print(f"   stopped after {limit_s:.0f} s", flush=True)
        process.kill()


def store(entry: dict[str, Any], part: str, case: dict[str, Any]) -> None:
    """Put a case in its place in a card's entry, instead of an older one."""
    what, _, precision = part.split(":")
    if what == "convolutions":
        keys = ("precision", "members", "batch_size", "layer")
        others = [one for one in entry["convolutions"] if any(one[key] != case[key] for key in keys)]
        entry["convolutions"] = [*others, case]
        return
    kind = _config(part.split(":")[1]).measured_as
    network = entry["networks"].setdefault(f"{kind} {precision}", {"images_per_s": {}, "peak_bytes": {}})
    network["batch_size"] = case["batch_size"]
    for key in ("images_per_s", "peak_bytes"):
        network[key][str(case["members"])] = case[key]


def main() -> None:
    """Run the parts and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune_gpu", description=__doc__)
    parser.add_argument("--precisions", default="float32,bf16")
    parser.add_argument("--kinds", default=",".join(MODELS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_part(options.part, options.dry_run)
        return
    if unknown := set(options.kinds.split(",")) - set(MODELS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}; expected some of {', '.join(MODELS)}")
    if unknown := set(options.precisions.split(",")) - {"float32", "tf32", "bf16"}:
        parser.error(f"unknown precisions: {', '.join(sorted(unknown))}; expected some of float32, tf32, bf16")
    card = Card("dry run", 0.0) if options.dry_run else local_card()
    if card is None:
        raise SystemExit("torch sees no GPU here; --dry-run shows on the CPU that everything works")
    file = options.out or (None if options.dry_run else TABLE)
    limit_s = options.limit_s * (10 if options.dry_run else 1)
    table = json.loads(file.read_text()) if file is not None and file.is_file() else {}
    entry = table.setdefault(card.name, {"networks": {}, "convolutions": []})
    entry.update(
        memory_gib=card.memory_gib, torch=torch.__version__, date=str(datetime.datetime.now(datetime.UTC).date())
    )
    kinds = [kind for kind in MODELS if kind in options.kinds.split(",")]
    for precision in options.precisions.split(","):
        for what in ("convolutions", "network"):
            for kind in kinds if what == "network" else [kind for kind in kinds if kind != "mlp"]:
                part = f"{what}:{kind}:{precision}"
                print(f"== {part}", flush=True)
                for case in cases_of(part, options.dry_run, limit_s):
                    print(f"   {case}", flush=True)
                    store(entry, part, case)
                    if file is not None:
                        _write(file, table)


def _write(file: Path, table: dict[str, Any]) -> None:
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    scratch.replace(file)


def _config(kind: str) -> Network:
    values = {"name": "tune", "num_members": 1, "method": {"name": "deep_ensemble"}, "model": MODELS[kind]}
    return parse_experiment(values).groups[0].model


def _batch(bench: Bench) -> int:
    return bench.size(BATCH, 16)


def _layer(model: Network, name: str) -> tuple[nn.Conv2d, tuple[int, int]]:
    """A convolution of a network, and height and width of its input."""
    from ensemble.models import build_model

    network, seen = build_model(model, _SHAPE, _CLASSES).eval(), []
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    layer.register_forward_hook(lambda _layer, given, _y: seen.append(tuple(given[0].shape[2:])))
    with torch.no_grad():
        network(torch.zeros(1, *_SHAPE))
    layer._forward_hooks.clear()
    return layer, seen[0]


def _by_clock(step: Any) -> float:
    spent = []
    for _ in range(3):
        started = time.perf_counter()
        step()
        spent.append(time.perf_counter() - started)
    return min(spent)


if __name__ == "__main__":
    main()
