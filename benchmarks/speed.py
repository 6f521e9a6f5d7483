"""Our claims of speed, one function each, both sides interleaved in one go; `make benchmarks` runs them all.

    ENSEMBLE_DATA=FOLDER python -m benchmarks.speed [CLAIM ...] [--repeats 3] [--out docs/results/speed.json]

Every side is a process of its own with its threads pinned, and the sides of a claim take turns. A ratio is taken within
each repeat; printed are its median and range. What the timing contains is in each function's text. Needs MNIST.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mnist import ROWS, load_mnist

ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, Any]


# Sides: each runs in a process of its own and returns seconds


def epoch_of_stack(
    count: int, epochs: int = 3, model: str | dict[str, Any] = "lenet5", batch_size: int = 64, num_rows: int = ROWS
) -> float:
    """Seconds per epoch of `count` members as one stack: median over the epochs after the first."""
    from ensemble.config import parse_experiment
    from ensemble.events import EpochFinished
    from ensemble.training import Trainer
    from ensemble.types import MemberSpec, Task

    experiment = parse_experiment({
        "name": "speed", "num_members": count, "method": {"name": "deep_ensemble"}, "model": _model(model),
        "data": {"name": "mnist"}, "training": {"epochs": epochs, "batch_size": batch_size},
        "compute": {"device": "cpu", "threads_per_task": int(os.environ["OMP_NUM_THREADS"]), "checkpoint_every_s": 0},
    })  # fmt: skip
    arrays, rows = load_mnist()
    recipe, rows = experiment.groups[0].name, rows[:num_rows]
    task = Task("speed", recipe, tuple(MemberSpec(i, recipe, rows) for i in range(count)))
    spent: dict[int, float] = {}
    for item in Trainer.create(experiment, "cpu", 10)(task, arrays):
        if isinstance(item, EpochFinished):
            spent[item.epoch] = spent.get(item.epoch, 0.0) + item.seconds
    return statistics.median(seconds for epoch, seconds in spent.items() if epoch > 1)


def _model(model: str | dict[str, Any]) -> dict[str, Any]:
    """A model section; lists come back from JSON where the schema has tuples."""
    if isinstance(model, str):
        return {"name": model}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in model.items()}


MOVES = {"rotation_degrees": 10.0, "scale": 0.1, "shift": 0.1}


def data_path_ours(moves: dict[str, float] | None = None) -> float:
    """One epoch of batches of 64, deformed, normalised and ready for the network: the loop's own gathering."""
    import torch

    from ensemble.config.recipe import AugmentationConfig
    from ensemble.config.schema import ComputeConfig
    from ensemble.native.kernels import load
    from ensemble.training.batches import Batches
    from ensemble.training.placement import Placement
    from ensemble.training.resident import Resident
    from ensemble.types import MemberSpec

    arrays, rows = load_mnist()
    placement = Placement.create(ComputeConfig(device="cpu"))
    data = Resident.load(arrays, torch.device("cpu"))
    batches = Batches(
        data, (MemberSpec(0, "r", rows),), 0, 64, AugmentationConfig(**(moves or {})), placement, None, load()
    )
    started = time.perf_counter()
    for _ in batches.epoch(0):
        pass
    return time.perf_counter() - started


def data_path_torchvision(deformed: bool = False) -> float:
    """The same epoch through torchvision's MNIST, RandomAffine where asked, ToTensor, Normalize and a DataLoader."""
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import MNIST
    from torchvision.transforms import Compose, InterpolationMode, Normalize, RandomAffine, ToTensor

    turn, shift, scale = MOVES["rotation_degrees"], MOVES["shift"], MOVES["scale"]
    move = RandomAffine(turn, (shift, shift), (1 - scale, 1 + scale), interpolation=InterpolationMode.BILINEAR)
    transform = Compose([*([move] if deformed else []), ToTensor(), Normalize((0.1307,), (0.3081,))])
    train = Subset(MNIST(os.environ["ENSEMBLE_DATA"], train=True, transform=transform), range(ROWS))
    started = time.perf_counter()
    for _ in DataLoader(train, batch_size=64, shuffle=True):
        pass
    return time.perf_counter() - started


def bare_loop(epochs: int) -> float:
    """Seconds per epoch of a LeNet-5 in the plainest hand-written loop on tensors already in memory."""
    import torch

    from benchmarks.alone import bare_step

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    step, rows = bare_step({"name": "lenet5"})
    spent = []
    for _ in range(epochs):
        started = time.perf_counter()
        for batch in torch.randperm(rows).split(64):
            step(batch)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def matmul_rate() -> float:
    """Float32 multiply-adds per second of the best of several large matrix products."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    size, best = 1536, 0.0
    a, b = torch.randn(size, size), torch.randn(size, size)
    for _ in range(12):
        started = time.perf_counter()
        a @ b
        best = max(best, size**3 / (time.perf_counter() - started))
    return best


def evaluation(members: int, rows: int) -> float:
    """Judging stored votes: leaderboard, intervals, selection, stacking, calibration, curves."""
    from ensemble.evaluation.evaluate import evaluate
    from ensemble.evaluation.records import MemberFacts
    from ensemble.evaluation.splits import SplitVotes

    stream = np.random.default_rng(0)

    def votes(name: Any, count: int) -> SplitVotes:
        labels = stream.integers(0, 10, count)
        scores = stream.normal(size=(members, count, 10)).astype(np.float32)
        scores[:, np.arange(count), labels] += 4.4  # about 1 % error per member
        exp = np.exp(scores)
        return SplitVotes(name, exp / exp.sum(-1, keepdims=True), labels)

    validation, test = votes("validation", 6000), votes("test", rows)
    facts = [MemberFacts(m, "r", 1, 1.0, 1) for m in range(members)]
    started = time.perf_counter()
    evaluate(validation, test, facts, "soft", None, members, "x", [str(k) for k in range(10)], choose=False)
    return time.perf_counter() - started


def many_tiny_members(executor: str, count: int) -> float:
    """The whole command for `count` members of one step each: what a member costs beyond its training."""
    with tempfile.TemporaryDirectory() as folder:
        return _command(
            "train", "configs/quickstart.yaml", f"num_members={count}", "method={name: deep_ensemble}", "model={name: mlp, widths: [8]}",
            "data.max_train_rows=64", "training.epochs=1", "training.batch_size=64", f"compute.executor={executor}",
            "compute.stack_size=50", f"output_dir={folder}", "tracking.wandb.mode=disabled", "-q",
        )  # fmt: skip


def same_work(executor: str) -> float:
    """Training seconds from the first task's start to the last member's end, one slot, about a minute of work."""
    from ensemble.events import MemberFinished, TaskStarted
    from ensemble.tracking.event_log import read_events

    with tempfile.TemporaryDirectory() as folder:
        _command(
            "train", "configs/bagging_lenet5_mnist.yaml", "num_members=8", "training.epochs=5", f"compute.executor={executor}",
            "baseline=false", "compute.slots=1", f"output_dir={folder}", "tracking.wandb.mode=disabled", "-q",
        )  # fmt: skip
        events = list(read_events(Path(folder) / "bagging_lenet5_mnist" / "events.jsonl"))
    begun = min(moment for moment, event in events if isinstance(event, TaskStarted))
    return max(moment for moment, event in events if isinstance(event, MemberFinished)) - begun


def worker_memory(rows: int) -> float:
    """MiB of a Ray worker's memory that it shares with nobody, in its third epoch on so many MNIST images; worse of two."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "ensemble", "train", "configs/bagging_lenet5_mnist.yaml", "num_members=2",
            f"data.max_train_rows={rows}", "training.epochs=1000", "compute.executor=ray", "compute.slots=2",
            "baseline=false", "compute.stack_size=1", f"output_dir={folder}", "tracking.wandb.mode=disabled", "-q",
        ]  # fmt: skip
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            events = Path(folder) / "bagging_lenet5_mnist" / "events.jsonl"
            while run.poll() is None and not (events.is_file() and events.read_text().count('"epoch": 3,') >= 2):
                time.sleep(0.2)
            found = [_private_mib(process) for process in Path("/proc").glob("[0-9]*") if _is_task(process, run.pid)]
        finally:
            run.terminate()
            run.wait(60)
    if len(found) != 2:
        raise SystemExit(f"expected two workers with a task, found {len(found)}")
    return max(found)


def _is_task(process: Path, driver: int) -> bool:
    """True for a Ray worker at a training task of this driver's own Ray."""
    try:
        if not (process / "cmdline").read_bytes().startswith(b"ray::bagging_lenet5_mnist member"):
            return False
        parents = [int(process.name)]
        while parents[-1] > 1:
            parents.append(int((Path("/proc") / str(parents[-1]) / "stat").read_text().rsplit(")", 1)[1].split()[1]))
    except (OSError, ValueError):
        return False
    return driver in parents


def _private_mib(process: Path) -> float:
    lines = (process / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _command(*words: str, expected: int = 0) -> float:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ensemble", *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != expected:
        raise SystemExit(f"{words}: exit code {done.returncode}, expected {expected}\n{done.stderr}")
    return time.perf_counter() - started


def planned_cell(model: str | dict[str, Any], batch_size: int) -> float:
    """The least seconds of 8 members with any forced stack size over those with the planned one."""
    from benchmarks.stack_speeds import measure
    from ensemble.config import parse_experiment
    from ensemble.run.planning import make_plan

    values = {"name": "speed", "num_members": 8, "method": {"name": "deep_ensemble"}, "model": _model(model)}
    experiment = parse_experiment({**values, "training": {"batch_size": batch_size}})
    (planned,) = make_plan(experiment, "cpu", slots=1).stack_sizes.values()
    parts = {size: [size] * (8 // size) + ([8 % size] if 8 % size else []) for size in {1, 2, 4, 8, planned}}
    sizes = sorted({part for each in parts.values() for part in each})
    speed = measure(values["model"], sizes, batch_size, "cpu", seconds=8.0)
    seconds = {size: sum(part / speed[part] for part in each) for size, each in parts.items()}
    return min(seconds.values()) / seconds[planned]


SIDES: dict[str, Callable[..., float]] = {
    "epoch_of_stack": epoch_of_stack, "data_path_ours": data_path_ours, "data_path_torchvision": data_path_torchvision,
    "bare_loop": bare_loop, "matmul_rate": matmul_rate, "evaluation": evaluation,
    "many_tiny_members": many_tiny_members, "same_work": same_work, "worker_memory": worker_memory,
    "planned_cell": planned_cell,
}  # fmt: skip


# Claims: which sides, and what is divided by what


def side(name: str, *arguments: object, threads: int = 1, core: int | None = None) -> float:
    """Run a side to its end."""
    return _finished(start(name, *arguments, threads=threads, core=core))


def start(name: str, *arguments: object, threads: int = 1, core: int | None = None) -> subprocess.Popen[str]:
    """Start a side. core: the only core it may use."""
    command = [sys.executable, "-m", "benchmarks.speed", "--side", json.dumps([name, *arguments])]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def _finished(process: subprocess.Popen[str]) -> float:
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{process.args}: exit code {process.returncode}")
    return float(output.strip().splitlines()[-1])


def data_path() -> Figures:
    """An epoch of 54,000 normalised images in batches of 64, in memory, one thread; torchvision + DataLoader over ours."""
    ours, theirs = side("data_path_ours"), side("data_path_torchvision")
    return {"ours_s": ours, "torchvision_s": theirs, "ratio": theirs / ours}


def data_path_deformed() -> Figures:
    """The same with every image turned, scaled and shifted at random, bilinearly; torchvision's RandomAffine over ours."""
    ours, theirs = side("data_path_ours", MOVES), side("data_path_torchvision", True)
    return {"ours_s": ours, "torchvision_s": theirs, "ratio": theirs / ours}


def stack() -> Figures:
    """8 LeNet-5 one by one over 8 as one stack, our loop, one thread; seconds of training per epoch of 27,000 rows."""
    alone, eight = (side("epoch_of_stack", count, 2, "lenet5", 64, ROWS // 2) for count in (1, 8))
    return {"alone_s": 8 * alone, "stack_s": eight, "ratio": 8 * alone / eight}


def slots() -> Figures:
    """Two stacks of 4 LeNet-5: one after another on one thread over side by side on two cores; 27,000 rows."""
    single = side("epoch_of_stack", 4, 3, "lenet5", 64, ROWS // 2)
    two = [start("epoch_of_stack", 4, 3, "lenet5", 64, ROWS // 2) for _ in range(2)]
    together = max(_finished(process) for process in two)
    return {"one_slot_s": 2 * single, "two_slots_s": together, "ratio": 2 * single / together}


def slots_against_threads() -> Figures:
    """Two stacks of 4 LeNet-5: one after another in a process of two threads over side by side in two of one thread."""
    wide = side("epoch_of_stack", 4, 3, "lenet5", 64, ROWS // 2, threads=2)
    two = [start("epoch_of_stack", 4, 3, "lenet5", 64, ROWS // 2) for _ in range(2)]
    together = max(_finished(process) for process in two)
    return {"one_process_s": 2 * wide, "two_slots_s": together, "ratio": 2 * wide / together}


def floor() -> Figures:
    """LeNet-5 in a stack of 8: least multiply-adds of an epoch over what one thread's matrix products would have done.

    Three times the forward pass, less the gradient of the first layer's input, which nobody needs.
    """
    return _share_of_floor("lenet5", first=6 * 28 * 28 * 25, count=8, rows=ROWS // 2)


def floor_32() -> Figures:
    """The same share in a stack of 32, on 10,240 rows."""
    return _share_of_floor("lenet5", first=6 * 28 * 28 * 25, count=32, rows=10_240)


def floor_tiny() -> Figures:
    """The same share for the network of 7,753 parameters (batch norm, 9 to 16 maps) in a stack of 4, on 10,240 rows."""
    import yaml

    model = yaml.safe_load((ROOT / "configs/seeds/tiny_phase4.yaml").read_text())["model"]
    return _share_of_floor(model, first=9 * 26 * 26 * 9, count=4, rows=10_240)


def _share_of_floor(model: str | dict[str, Any], first: int, count: int, rows: int) -> Figures:
    """first: multiply-adds of the first layer for one image."""
    from ensemble.config import parse_experiment
    from ensemble.models.work import multiply_adds

    values = {"name": "speed", "num_members": 1, "method": {"name": "deep_ensemble"}, "model": _model(model)}
    forward = multiply_adds(parse_experiment(values).groups[0].model, (1, 28, 28), 10)
    rate, epoch = side("matmul_rate"), side("epoch_of_stack", count, 2, model, 64, rows)
    least = count * rows * (3 * forward - first) / rate
    return {"multiply_adds_per_s": rate, "floor_s": least, "epoch_s": epoch, "ratio": least / epoch}


def single_network() -> Figures:
    """A single LeNet-5: a bare hand-written loop over our loop, seconds of training per epoch, one thread."""
    bare, ours = side("bare_loop", 3), side("epoch_of_stack", 1)
    return {"bare_s": bare, "ours_s": ours, "ratio": bare / ours}


def planner() -> Figures:
    """8 members on one 1-thread slot: the best forced stack size (1, 2, 4, 8) over the planned one; the worst of six cells.

    Median seconds of whole training steps; the sizes take turns within one process.
    """
    narrow = [{"kind": "conv", "channels": 10, "activation": "relu"}, {"kind": "max_pool"}] * 2
    layers = {"name": "layers", "layers": [*narrow, {"kind": "conv", "channels": "classes", "kernel_size": 5}]}
    cells = [("lenet5", 16), ("lenet5", 64), ("lenet5", 256), ("mlp", 64), (layers, 64), ("cnn", 64)]
    figures: Figures = {
        f"{model if isinstance(model, str) else 'narrow'}_{batch_size}": side("planned_cell", model, batch_size)
        for model, batch_size in cells
    }
    return {**figures, "ratio": min(figures.values())}


def judging() -> Figures:
    """100 members, 10,000 test rows, 10 classes: everything but the chosen votes; seconds."""
    seconds = side("evaluation", 100, 10_000)
    return {"seconds": seconds, "ratio": 2.0 / seconds}


def tiny_members() -> Figures:
    """1,000 members of one step each, whole command, inline: seconds per member; stacks of 50."""
    seconds = side("many_tiny_members", "inline", 1000)
    return {"seconds": seconds, "ratio": 60.0 / seconds}


def ray() -> Figures:
    """8 bagged LeNet-5, 5 epochs, one slot: inline over Ray, from the first task's start to the last member's end."""
    inline, there = side("same_work", "inline"), side("same_work", "ray")
    return {"inline_s": inline, "ray_s": there, "ratio": inline / there}


def memory() -> Figures:
    """MNIST's training images over what a Ray worker holds more for itself with 60,000 of them than with 2,000; MiB.

    The images lie once per node in Ray's shared memory; a copy of its own would bring a worker's ratio to 1 or below.
    """
    few, all_rows = side("worker_memory", 2000), side("worker_memory", 60_000)
    images = 58_000 * 784 / 2**20
    return {"with_2000_mib": few, "with_60000_mib": all_rows, "ratio": images / max(all_rows - few, 1.0)}


def start_up() -> Figures:
    """`ensemble --help`: seconds, best of five."""
    seconds = min(_command("--help") for _ in range(5))
    return {"seconds": seconds, "ratio": 0.3 / seconds}


def mistake() -> Figures:
    """A misspelt key on the command line, until the message: seconds, best of five."""
    words = ("train", "configs/quickstart.yaml", "training.epohcs=3")
    seconds = min(_command(*words, expected=2) for _ in range(5))
    return {"seconds": seconds, "ratio": 0.5 / seconds}


def report() -> Figures:
    """`ensemble report` of a run with 20 members and 10,000 test images, whole command."""
    with tempfile.TemporaryDirectory() as folder:
        _command(
            "train", "configs/bagging_lenet5_mnist.yaml", "num_members=20", "model={name: mlp}", "data.max_train_rows=6000",
            "baseline=false", "training.epochs=2", "compute.executor=inline", f"output_dir={folder}", "tracking.wandb.mode=disabled", "-q",
        )  # fmt: skip
        seconds = _command("report", f"{folder}/bagging_lenet5_mnist")
    return {"seconds": seconds, "ratio": 5.0 / seconds}


# Function, least ratio (None: only stated), title.
CLAIMS: dict[str, tuple[Callable[[], Figures], float | None, str]] = {
    "data_path": (data_path, 30.0, "data path, torchvision + DataLoader over ours"),
    "data_path_deformed": (
        data_path_deformed,
        None,
        "data path with random affine moves, torchvision + DataLoader over ours",
    ),
    "stack": (stack, 1.4, "8 LeNet-5 one by one over one stack of 8"),
    "slots": (slots, 1.8, "one 1-thread slot over two"),
    "slots_against_threads": (slots_against_threads, 1.3, "one 2-thread process over two 1-thread slots"),
    "floor": (floor, 0.5, "LeNet-5 stack of 8, share of the float32 floor"),
    "floor_32": (floor_32, 0.5, "LeNet-5 stack of 32, share of the float32 floor"),
    "floor_tiny": (floor_tiny, None, "network of 7,753 parameters, share of the float32 floor"),
    "single_network": (single_network, 0.95, "bare loop over ours, one LeNet-5"),
    "planner": (planner, 0.95, "best forced stack size over the planned one"),
    "judging": (judging, 1.0, "2 s over judging 100 members x 10,000 rows"),
    "tiny_members": (tiny_members, 1.0, "60 s over 1,000 one-step members"),
    "ray": (ray, 0.95, "inline over Ray, same slot and work"),
    "memory": (memory, 1.0, "images over a worker's own extra memory for them"),
    "start_up": (start_up, 1.0, "0.3 s over ensemble --help"),
    "mistake": (mistake, 1.0, "0.5 s over a mistake in the configuration"),
    "report": (report, 1.0, "5 s over ensemble report, 20 members"),
}


def markdown(record: dict[str, Any], other: Path, gpu: Path) -> str:
    """The tables of all claims. other and gpu: what `benchmarks.against_ensemble_pytorch` and `benchmarks.gpu` wrote, if they did."""
    from benchmarks.gpu import table

    environment, counts = record["environment"], sorted({len(claim) for claim in record["claims"].values()})
    repeats = "-".join(str(count) for count in {counts[0]: None, counts[-1]: None})
    lines = [
        "# Speed", "",
        f"`make benchmarks`: {repeats} repeats, sides interleaved, medians with ranges. {environment}", "",
        "| claim | ratio | range | goal | reached | seconds (medians) |", "|---|---:|---:|---:|---|---|",
    ]  # fmt: skip
    for name, claim in record["claims"].items():
        _, goal, title = CLAIMS[name]
        ratios = [figures["ratio"] for figures in claim]
        keys = [key for key in claim[0] if key != "ratio"]
        parts = ", ".join(f"{key} {statistics.median(figures[key] for figures in claim):.4g}" for key in keys)
        middle = statistics.median(ratios)
        reached = "-" if goal is None else "yes" if middle >= goal else "no"
        wanted = "-" if goal is None else f"{goal:g}"
        lines.append(
            f"| {title} | {middle:.2f} | {min(ratios):.2f}-{max(ratios):.2f} | {wanted} | {reached} | {parts} |"
        )
    if other.is_file():
        peer = json.loads(other.read_text())
        low, high = peer["ratio_range"]
        parts = ", ".join(f"{name} {statistics.median(seconds):.4g}" for name, seconds in peer["seconds"].items())
        errors = ", ".join(f"{name} {statistics.mean(found):.2%}" for name, found in peer["test_errors"].items())
        lines.append(
            f"| 8 bagged LeNet-5, {peer['epochs']} epochs, whole process: Ensemble-PyTorch 0.2.0 over ours | {peer['ratio_median']:.2f} "
            f"| {low:.2f}-{high:.2f} | 6 | {'yes' if peer['ratio_median'] >= 6 else 'no'} | {parts}; test errors {errors} |"
        )
    lines += [
        "",
        *(f"- **{CLAIMS[name][2]}**: {' '.join((CLAIMS[name][0].__doc__ or '').split())}" for name in record["claims"]),
        "",
        table(json.loads(gpu.read_text()) if gpu.is_file() else None),
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the claims asked for; prints the table, writes JSON and Markdown beside it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("claims", nargs="*", help=", ".join(CLAIMS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/speed.json"))
    parser.add_argument("--side")
    options = parser.parse_args()
    if options.side:
        name, *arguments = json.loads(options.side)
        print(SIDES[name](*arguments))
        return
    if "ENSEMBLE_DATA" not in os.environ:
        sys.exit("set ENSEMBLE_DATA to a folder with MNIST/raw")
    if unknown := [name for name in options.claims if name not in CLAIMS]:
        sys.exit(f"no such claim: {', '.join(unknown)}; expected {', '.join(CLAIMS)}")
    from ensemble.run.environment import describe_environment

    facts = describe_environment()
    short = ", ".join(f"{key} {facts[key]}" for key in ("processor", "cores", "python"))
    short += f", torch {facts['packages']['torch']}, Ray {facts['packages']['ray']}"
    found: dict[str, list[Figures]] = {name: [] for name in options.claims or CLAIMS}
    # Claims that are not asked for keep their figures.
    kept = json.loads(options.out.read_text())["claims"] if options.claims and options.out.is_file() else {}
    ordered = {name: found.get(name, kept.get(name)) for name in CLAIMS if name in found or name in kept}
    record = {"environment": short, "claims": ordered}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for repeat in range(options.repeats):
        for name in found:
            found[name].append(CLAIMS[name][0]())
            print(f"repeat {repeat + 1}: {name}: {found[name][-1]}", flush=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")  # after every repeat: none is lost
    text = markdown(record, *(options.out.with_name(name) for name in ("against_ensemble_pytorch.json", "gpu.json")))
    options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
