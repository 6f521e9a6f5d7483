"""What ensembles are for, measured: every method under shift, on images of no class, with abstention, and against equal compute.

    python -m benchmarks.shift [--repeats 5] [--members 5] [--epochs 4] [--jobs 1] [--runs FOLDER] [key=value ...]

LeNet-5 on MNIST. Each system is trained with several seeds, which also divide training and validation rows anew. All of them vote on

corrupted     the 15 corruptions of MNIST-C's recipe, own draw, on every second test image
rotated       the same images turned by 30, 60, ..., 180 degrees
letters       capital letters (without B, I, O, S, Z) in the fonts that come with matplotlib: near, none of the classes
photographs   grey patches of the two photographs that come with scikit-learn: far, none of the classes

Figures are means over the repeats with Student's t intervals; differences are tested by the pigeonhole bootstrap, which takes both
repeats and images again. Runs are kept in FOLDER, and a second start trains only what is missing. Writes docs/results/shift.md, and
leaves what stands there from "## Reading" on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import ensemble
from ensemble.evaluation.equivalent_size import equivalent_size, size_likelihoods
from ensemble.evaluation.metrics import negative_log_likelihood
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.repeats import two_way_difference
from ensemble.evaluation.set_records import ShiftedSet
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import PairedDifference, mean_interval
from ensemble.evaluation.temperature import apply_temperature, fit_temperatures
from ensemble.report.wording import p_value, percent, points
from ensemble.results.further_sets import StoredSets
from ensemble.results.voters import load_voters
from ensemble.run.environment import describe_environment
from ensemble.storage import RunFolder

OUT = Path("docs/results/shift.md")
READING = "## Reading"
# LeNet-5 with about the square root of five times as many channels and units: five times its parameters.
WIDE = (
    "{name: layers, layers: [{kind: conv, channels: 13, kernel_size: 5, padding: 2, activation: relu}, {kind: max_pool}, {kind: conv, channels: 36, "
    "kernel_size: 5, activation: relu}, {kind: max_pool}, {kind: linear, width: 268, activation: relu}, "
    "{kind: linear, width: 188, activation: relu}, {kind: linear, width: classes}]}"
)
COMMON = """\
method: {name: deep_ensemble}
num_members: 1
baseline: false
data: {name: mnist, calibration_fraction: 0.1}
model: {name: lenet5}
training:
  batch_size: 64
  lr: 1e-3
  optimizer: adam
  schedule: cosine
  augmentation: {rotation_degrees: 10, scale: 0.1, shift: 0.08}
evaluation:
  sets:
    - {name: corrupted, kind: shifted, corruptions: mnist_c, max_images: 5000}
    - {name: rotated, kind: shifted, corruptions: [{rotate: [30, 60, ..., 180]}], max_images: 5000}
    - {name: letters, kind: unknown, data: {name: arrays, path: LETTERS}}
    - {name: photographs, kind: unknown, data: {name: arrays, path: PHOTOGRAPHS}}
compute: {executor: inline}
tracking: {wandb: {mode: disabled}}
"""


@dataclass(frozen=True)
class System:
    """A row. members: None for as many as asked for. long: trains as many epochs as all members together."""

    name: str
    title: str
    method: str = "{name: deep_ensemble}"
    members: int | None = None
    long: bool = False
    more: tuple[str, ...] = ()


SYSTEMS = (
    System("single", "one network", members=1),
    System("longer", "one network, as many epochs as all members", members=1, long=True),
    System("wider", "one network, as many parameters as all members", members=1, more=(f"model={WIDE}",)),
    System("deep_ensemble", "deep ensemble"),
    System("bagging", "bagging", "{name: bagging}"),
    System("snapshot", "snapshot ensemble", "{name: snapshot}"),
    System("filter_boosting", "boosting by filtering, three networks", "{name: filter_boosting}", members=3),
    System("gradient_boosting", "gradient boosting", "{name: gradient_boosting, shrinkage: 0.5}"),
)
YARDSTICKS = ("deep_ensemble", "longer")


@dataclass(frozen=True, eq=False)
class Run:
    """One system with one seed. lost: by set what is lost on each image, the mean over its parts. likelihood: of the
    calibrated vote on test, in nats."""

    evaluation: Evaluation
    lost: dict[str, npt.NDArray[np.float64]]
    voters: tuple[SplitVotes, SplitVotes]
    likelihood: float
    epochs: int


def main() -> None:
    """Train what is missing, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/shift"))
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of every run")
    given = parser.parse_args()
    config = prepare(given.runs)
    wanted = [(system, seed) for seed in range(given.repeats) for system in SYSTEMS]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda one: train(*one, config, given), wanted))
    found = {
        system.name: [read(given.runs / f"{system.name}_{seed}") for seed in range(given.repeats)] for system in SYSTEMS
    }
    kept = OUT.read_text().partition(READING) if OUT.exists() else ("", "", "")
    OUT.write_text(f"{report(found, given)}\n{READING}{kept[2] or chr(10)}")
    print(OUT)


def prepare(root: Path) -> Path:
    """The images of no class and the configuration that all runs share, below the runs' folder."""
    root.mkdir(parents=True, exist_ok=True)
    text = COMMON
    for name, make in (("letters", letters), ("photographs", photographs)):
        path = (root / f"{name}.npz").absolute()
        images = make()
        labels = np.arange(len(images)) % 2  # two made-up classes: nothing reads them
        np.savez(path, train_images=images[2:], train_labels=labels[2:], test_images=images[:2], test_labels=labels[:2])
        text = text.replace(name.upper(), str(path))
    config = root / "shift.yaml"
    config.write_text(text)
    return config


def letters() -> npt.NDArray[np.uint8]:
    """Capital letters, light on black, in every font that comes with matplotlib and has letters, [N, 28, 28, 1]."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    images = []
    for path in sorted((Path(matplotlib.get_data_path()) / "fonts/ttf").glob("*.ttf")):
        if not path.name.startswith(("DejaVu", "STIXGeneral", "cmr", "cmb", "cmss", "cmtt")):
            continue
        font = ImageFont.truetype(str(path), 22)
        for letter in "ACDEFGHJKLMNPQRTUVWXY":
            sheet = Image.new("L", (28, 28))
            ImageDraw.Draw(sheet).text((14, 14), letter, 255, font, "mm")
            images.append(np.asarray(sheet))
    return np.stack(images)[..., None]


def photographs() -> npt.NDArray[np.uint8]:
    """Patches of 28 x 28 of two photographs in grey, at full and at half size, [N, 28, 28, 1]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    images = []
    for photograph in load_sample_images().images:
        for scale in (1, 2):
            grey = Image.fromarray(photograph).convert("L")
            small = np.asarray(grey.resize((grey.width // scale, grey.height // scale), Image.Resampling.BOX))
            for top in range(0, small.shape[0] - 27, 28):
                images += [small[top : top + 28, left : left + 28] for left in range(0, small.shape[1] - 27, 28)]
    return np.stack(images)[..., None]


def train(system: System, seed: int, config: Path, given: argparse.Namespace) -> None:
    """Train (or take up) one run in a process of its own."""
    count = system.members or given.members
    words = [
        f"name={system.name}_{seed}", f"seed={seed}", f"output_dir={given.runs}", f"method={system.method}", f"num_members={count}",
        f"training.epochs={given.epochs * (given.members if system.long else 1)}", *system.more, *given.overrides,
    ]  # fmt: skip
    command = [sys.executable, "-m", "ensemble", "train", str(config), *words, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):  # 4: fewer members than asked for; the table then counts what there is
        raise SystemExit(f"{system.name}, seed {seed}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    print(f"{system.name}, seed {seed}: done", flush=True)


def read(path: Path) -> Run:
    """A finished run: its stored judgement, and what it loses on each image."""
    folder, evaluation = RunFolder.read(path), ensemble.load(path).evaluation
    voters = load_voters(folder).finite()
    validation, test = voters.validation, voters.test
    weights_M = voters.vote_weights(evaluation.aggregator)
    positions = [member.index for member in voters.members]
    how = HowToVote(evaluation.aggregator, weights_M, positions.index(evaluation.verdict.member))
    before, after = how.vote(validation.probs_MNK), how.vote(test.probs_MNK)
    lost = {"test": (after.classes_N != test.labels_N).astype(np.float64)}
    stored = StoredSets(folder, voters)
    for facts in stored.complete():
        if facts.kind == "shifted":
            labels_N = stored.labels(facts)
            parts = [how.vote(part.probs_MNK).classes_N != labels_N for part in stored.parts(facts)]
            lost[facts.name] = np.mean(parts, axis=0)
    combined = SplitVotes("validation", before.probs_NK[None], validation.labels_N)
    calibrated_NK = apply_temperature(after.probs_NK, float(fit_temperatures(combined)[0]))
    return Run(
        evaluation, lost, (validation, test), -negative_log_likelihood(calibrated_NK, test.labels_N),
        sum(len(member.history) for member in voters.members),
    )  # fmt: skip


def report(found: dict[str, list[Run]], given: argparse.Namespace) -> str:
    """The page but for its reading."""
    environment = describe_environment()
    packages = environment.get("packages", {})
    first = found["deep_ensemble"][0].evaluation
    sets = {one.name: one.images for one in (*first.shifted, *first.unknown)}
    lines = [
        "# Shift, unknown images and abstention: what ensembles are for",
        "",
        f"`python -m benchmarks.shift --repeats {given.repeats} --members {given.members} --epochs {given.epochs}`: LeNet-5 on MNIST, every "
        f"system trained {given.repeats} times. {environment.get('processor', '')}, torch {packages.get('torch')}. Corrupted and rotated: "
        f"{sets['corrupted']:,} test images, each corruption drawn by this project's own program after MNIST-C's recipe; letters: "
        f"{sets['letters']:,} images, photographs: {sets['photographs']:,}. Errors in %, means over the repeats with 95 % intervals (Student's t).",
        "",
        "## Errors and log-likelihood",
        "",
        *errors_table(found),
        "",
        "Worth: the deep ensemble equivalent (Ashukha et al. 2020), the size of a deep ensemble of the same seed that has the same test "
        "log-likelihood, temperatures fitted on validation. ECE: smooth calibration error.",
        "",
    ]
    for yardstick in YARDSTICKS:
        title = next(system.title for system in SYSTEMS if system.name == yardstick)
        lines += [f"## Differences in error from: {title}", "", *differences_table(found, yardstick), ""]
    lines += ["Points; 95 % interval and p of the pigeonhole bootstrap over repeats and images.", ""]
    lines += ["## Unknown images and abstention", "", *doubt_table(found), ""]
    lines += [
        "AUROC and FPR95 (share of test images rejected where 95 % of the unknown ones are caught) of the vote's largest probability. "
        "AURC: mean test error over all coverages, in %. Promised 1 %: share of the test images answered at the threshold for which "
        "calibration images guarantee an error of at most 1 %, the error that came of it, and in how many repeats it was not above 1 %.",
        "",
    ]
    return "\n".join(lines)


def errors_table(found: dict[str, list[Run]]) -> list[str]:
    """One line per system: its size and training, how often it errs, and how likely it finds the truth."""
    head = "| | parameters | epochs | test | corrupted | rotated | NLL test | NLL corrupted | ECE test | ECE corrupted | worth |"
    lines = [head, "|---|" + "---:|" * 10]
    for system in SYSTEMS:
        runs = found[system.name]
        shifted = {name: [_shifted(run, name) for run in runs] for name in ("corrupted", "rotated")}
        worth = [_worth(run, yardstick) for run, yardstick in zip(runs, found["deep_ensemble"], strict=True)]
        lines.append("| " + " | ".join([
            system.title, f"{runs[0].evaluation.headline.num_parameters:,}", str(runs[0].epochs),
            _rate([run.evaluation.headline.test_error for run in runs]),
            *(_rate([one.vote_error for one in shifted[name]]) for name in ("corrupted", "rotated")),
            _number([run.evaluation.headline.nll for run in runs]),
            _number([one.vote_nll for one in shifted["corrupted"]]),
            percent(statistics.mean(run.evaluation.calibration.smooth_ece for run in runs)),
            percent(statistics.mean(one.vote_ece for one in shifted["corrupted"])),
            _size(worth),
        ]) + " |")  # fmt: skip
    return lines


def differences_table(found: dict[str, list[Run]], yardstick: str) -> list[str]:
    """Every other system's errors minus those of one."""
    lines = ["| | test | corrupted | rotated |", "|---|---:|---:|---:|"]
    for system in SYSTEMS:
        if system.name == yardstick:
            continue
        cells = []
        for name in ("test", "corrupted", "rotated"):
            a_RN, b_RN = (np.stack([run.lost[name] for run in found[one]]) for one in (system.name, yardstick))
            cells.append(_difference(two_way_difference(a_RN, b_RN, seed=0)))
        lines.append(f"| {system.title} | {' | '.join(cells)} |")
    return lines


def doubt_table(found: dict[str, list[Run]]) -> list[str]:
    """How well each system knows what it does not know."""
    head = "| | AUROC letters | FPR95 letters | AUROC photographs | FPR95 photographs | AURC | promised 1 %: answered | wrong of these | kept |"
    lines = [head, "|---|" + "---:|" * 8]
    for system in SYSTEMS:
        runs = found[system.name]
        cells = []
        for name in ("letters", "photographs"):
            scores = [next(one for one in run.evaluation.unknown if one.name == name).scores[0] for run in runs]
            cells += [_number([score.auroc for score in scores]), _rate([score.fpr95 for score in scores])]
        selective = [run.evaluation.selective for run in runs]
        promises = [one.promises[0] for one in selective if one is not None]
        cells.append(_number([100 * one.aurc for one in selective if one is not None]))
        cells.append(percent(statistics.mean(promise.coverage for promise in promises)))
        risks = [promise.test_risk for promise in promises if not math.isnan(promise.test_risk)]
        cells.append(percent(statistics.mean(risks)) if risks else "-")
        cells.append(f"{sum(risk <= 0.01 for risk in risks)} of {len(promises)}")
        lines.append(f"| {system.title} | {' | '.join(cells)} |")
    return lines


def _shifted(run: Run, name: str) -> ShiftedSet:
    return next(one for one in run.evaluation.shifted if one.name == name)


def _worth(run: Run, yardstick: Run) -> float:
    """How many members of the deep ensemble of the same seed the vote is worth; infinite beyond all of them."""
    validation, test = yardstick.voters
    curve = size_likelihoods(validation, test, range(1, validation.num_members + 1), seed=0)
    return equivalent_size(run.likelihood, curve).size


def _size(worth: Sequence[float]) -> str:
    """The median, which may lie beyond all sizes."""
    middle = statistics.median(worth)
    return f"{middle:.1f}" if math.isfinite(middle) else "more than all"


def _rate(values: Sequence[float]) -> str:
    return _with_interval(values, percent)


def _number(values: Sequence[float]) -> str:
    return _with_interval(values, lambda value: f"{value:.4f}")


def _with_interval(values: Sequence[float], written: Callable[[float], str]) -> str:
    lower, upper = mean_interval(values)
    ends = "" if math.isnan(lower) else f" ({written(lower)} to {written(upper)})"
    return f"{written(statistics.mean(values))}{ends}"


def _difference(found: PairedDifference) -> str:
    return f"{points(found.difference)} ({points(found.lower)} to {points(found.upper)}; {p_value(found.p_value)})"


if __name__ == "__main__":
    main()
