"""Every method beside the single network, LeNet-5 on MNIST: what an ensemble brings, and what it costs.

    python -m benchmarks.what_ensembles_bring [--repeats 3] [--members 6] [--jobs 1] [--runs FOLDER] [key=value ...]

Each system is trained with several seeds (which also divide training and validation rows anew). Two tables: equal
epochs per member, and equal epochs in all, where the single network trains as long as the whole ensemble. Errors are
those of each method's own vote, means with Student's t intervals over the repeats; p is the exact McNemar test against
the single network of the same repeat, one per repeat. Training seconds are the networks' own, on one thread each.
Runs are kept in FOLDER, and a second start trains only what is missing. Writes docs/results/what_ensembles_bring.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.statistics import mcnemar_exact, mean_interval
from ensemble.report.wording import p_value, percent, percent_interval, seconds
from ensemble.results.voters import method_weights, voting_members
from ensemble.storage import RunFolder

CONFIG = "configs/ensembles/lenet5.yaml"
BOOSTING = "error_rows: out_of_bag"


@dataclass(frozen=True)
class System:
    """A row of the table. members: None for as many as asked for on the command line."""

    name: str
    title: str
    method: str
    members: int | None = None
    long: bool = False  # trains as many epochs as the whole ensemble
    more: tuple[str, ...] = ()


SYSTEMS = (
    System("single", "single network", "{name: deep_ensemble}", 1),
    System("single_long", "single network, as long as six", "{name: deep_ensemble}", 1, long=True),
    System("deep_ensemble", "deep ensemble", "{name: deep_ensemble}"),
    System("bagging", "bagging", "{name: bagging}"),
    System("adaboost_resample", "AdaBoost, rows drawn once per round", f"{{name: adaboost, {BOOSTING}, use_weights: resample}}"),
    System("adaboost_epoch", "AdaBoost, rows drawn every epoch", f"{{name: adaboost, {BOOSTING}, use_weights: resample_every_epoch}}"),
    System("adaboost_loss", "AdaBoost, weighted loss", f"{{name: adaboost, {BOOSTING}, use_weights: loss}}"),
    System("filter_boosting", "boosting by filtering, chains of three", "{name: filter_boosting}"),
    System("gradient_boosting", "gradient boosting", "{name: gradient_boosting}"),
    System("snapshot", "snapshot", "{name: snapshot}"),
    # The controls that the paper on boosted LeNet-4 lacks.
    System("lenet4_single", "LeNet-4, single", "{name: deep_ensemble}", 1, more=("model={name: lenet4}",)),
    System("lenet4_single_3", "LeNet-4, single, as many images as three", "{name: deep_ensemble}", 1, more=("model={name: lenet4}", "x3")),
    System("lenet4_vote_3", "LeNet-4, plain vote of three", "{name: deep_ensemble}", 3, more=("model={name: lenet4}",)),
    System("lenet4_boosted", "LeNet-4, boosted by filtering (three)", "{name: filter_boosting}", 3, more=("model={name: lenet4}",)),
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One system, one seed: its error, who was wrong where, and what it took."""

    error: float
    wrong_N: npt.NDArray[np.bool_]
    seconds: float
    member_epochs: int


def train(system: System, seed: int, members: int, epochs: int, root: Path, overrides: list[str]) -> Path:
    """Train (or take up) one run in a process of its own; returns its folder."""
    times = members if system.long else 3 if "x3" in system.more else 1
    count = system.members or members
    words = [
        f"name={system.name}_{seed}", f"seed={seed}", f"output_dir={root}", f"method={system.method}",
        f"num_members={count}", f"training.epochs={epochs * times}", "tracking.wandb.mode=disabled",
        "compute.executor=inline", f"compute.stack_size={min(count, 4)}",
        *(word for word in system.more if "=" in word), *overrides,
    ]  # fmt: skip
    command = [sys.executable, "-m", "ensemble", "train", CONFIG, *words, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):  # 4: fewer members than asked for; the table then counts what there is
        raise SystemExit(f"{system.name}, seed {seed}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return root / f"{system.name}_{seed}"


def read(path: Path) -> Run:
    """The headline vote of a finished run."""
    folder = RunFolder.read(path)
    members = [folder.load_member(index) for index in voting_members(folder)]
    aggregator = folder.config()["aggregator"]
    weights = method_weights(folder, members) if aggregator in ("weighted", "additive") else None
    probs_MNK = np.stack([member.votes.test_NK for member in members])
    wrong_N = decide(aggregator, probs_MNK, weights).classes_N != folder.load_labels().test_labels_N
    epochs = sum(len(member.history) for member in members)
    return Run(float(wrong_N.mean()), wrong_N, sum(member.train_seconds for member in members), epochs)


def line(system: System, runs: list[Run], references: list[Run]) -> str:
    """One row of a table."""
    errors = [run.error for run in runs]
    tests = []
    for run, reference in zip(runs, references, strict=True):
        if run is reference:
            tests.append("-")
            continue
        fixed = int((reference.wrong_N & ~run.wrong_N).sum())
        broken = int((run.wrong_N & ~reference.wrong_N).sum())
        tests.append(f"{p_value(mcnemar_exact(fixed, broken))} ({fixed}:{broken})")
    return "| " + " | ".join([
        system.title, percent(statistics.mean(errors)), percent_interval(*mean_interval(errors)),
        ", ".join(percent(error) for error in errors), str(runs[0].member_epochs),
        seconds(statistics.median(run.seconds for run in runs)), "; ".join(tests),
    ]) + " |"  # fmt: skip


def table(found: dict[str, list[Run]], reference: str, names: list[str]) -> list[str]:
    """The rows of some systems against one of them."""
    by_name = {system.name: system for system in SYSTEMS}
    head = [
        "system",
        "error %",
        "95 % int.",
        "each repeat",
        "member-epochs",
        "seconds",
        "p (only the single wrong : only the vote wrong)",
    ]
    rows = [line(by_name[name], found[name], found[reference]) for name in names if name in found]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *rows]


def document(found: dict[str, list[Run]], arguments: argparse.Namespace, command: str) -> str:
    """The page with all tables."""
    methods = [system.name for system in SYSTEMS if not system.name.startswith(("single", "lenet4"))]
    return "\n".join([
        "# What the ensembles bring", "",
        f"LeNet-5 on MNIST, {arguments.members} members of {arguments.epochs} epochs, {arguments.repeats} repeats; 54,000 training images, deformed; every",
        "figure is the test error of the method's own vote, and nothing was chosen on the test set. Made by", "", f"    {command}", "",
        "## Equal epochs per member: against one network", "", *table(found, "single", ["single", *methods]), "",
        "## Equal epochs in all: against one network that trains as long", "", *table(found, "single_long", ["single_long", *methods]), "",
        "## Boosted LeNet-4 with the controls", "", "Against the single network that saw as many images as the three together.", "",
        *table(found, "lenet4_single_3", [system.name for system in SYSTEMS if system.name.startswith("lenet4")]), "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="key=value for the configuration")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", nargs="*", choices=[system.name for system in SYSTEMS])
    parser.add_argument("--runs", type=Path, default=Path("runs/what_ensembles_bring"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/what_ensembles_bring.md"))
    arguments = parser.parse_args()
    systems = [system for system in SYSTEMS if arguments.only is None or system.name in arguments.only]
    jobs = [(system, seed) for seed in range(arguments.repeats) for system in systems]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        paths = list(pool.map(
            lambda job: train(*job, arguments.members, arguments.epochs, arguments.runs, arguments.overrides), jobs
        ))  # fmt: skip
    found: dict[str, list[Run]] = {}
    for (system, _), path in zip(jobs, paths, strict=True):
        found.setdefault(system.name, []).append(read(path))
    flags = f"--repeats {arguments.repeats} --members {arguments.members} --epochs {arguments.epochs}"
    text = document(found, arguments, f"python -m benchmarks.what_ensembles_bring {flags}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
