"""From configuration to judgement on real digits: the same bits whatever executes, resumes or is added."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.config import Experiment, parse_experiment
from ensemble.errors import ConfigError, QuorumError, StorageError
from ensemble.events import Event, MemberFailed, Notice, RunFinished
from ensemble.executors import InlineExecutor
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always, tried_again
from ensemble.results.judging import judge
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.tracking.event_log import read_events
from ensemble.training.job import Ways
from ensemble.types import Checkpoint, Failure, Task
from tests import preloaded

CONFIG: dict[str, Any] = {
    "name": "run", "seed": 3, "num_members": 4, "method": {"name": "bagging"}, "baseline": False, "model": {"name": "mlp", "widths": (16,)},
    "data": {"name": "digits"}, "training": {"epochs": 2, "lr": 3e-3, "batch_size": 64},
    "compute": {"stack_size": 2, "executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


def experiment(root: Path, **changes: Any) -> Experiment:
    return parse_experiment({**CONFIG, "output_dir": str(root), **changes})


def run(config: Experiment, make: Callable[..., Any] | None = None) -> RunOutcome:
    return run_ensemble(config, make or (lambda *_: InlineExecutor()), lambda _: [])


def digests(root: Path, name: str = "run") -> dict[str, str]:
    """SHA-256 of every weight and vote file."""
    files = json.loads((root / name / "manifest.json").read_text())["files"]
    return {key: facts["sha256"] for key, facts in files.items() if key.endswith((".safetensors", "votes.npz"))}


class Crashing(InlineExecutor):
    """One of its tasks, which is of one network, always ends by a crash."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self._crashes = task

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for task in tasks:
            if task.id == self._crashes:
                yield Outcome(task, (), (Failure(task.members[0].index, "crash", "its process died"),))
            else:
                yield from super().run([task], train, arrays, emit, wanted)


class Limited(InlineExecutor):
    """Executes so many tasks, then is interrupted; notes what it was given."""

    def __init__(self, limit: int = 10**6) -> None:
        self.limit, self.given = limit, 0

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for task in filter(wanted, tasks):
            if self.given == self.limit:
                raise KeyboardInterrupt
            self.given += 1
            yield from super().run([task], train, arrays, emit)


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    outcome = run(experiment(tmp_path))
    folder = RunFolder.read(outcome.path)
    for name in ("config.yaml", "plan.json", "environment.json", "events.jsonl", "evaluation.json", "leaderboard.csv"):
        assert folder.read_bytes(name), name
    assert folder.finished() == {0, 1, 2, 3}
    assert outcome.trained == 4
    assert not outcome.failures
    assert outcome.evaluation.headline.test_error < 0.3
    evaluation = outcome.evaluation
    labels = folder.load_labels()
    probs = np.mean([folder.load_member(m).votes.test_NK.astype(np.float64) for m in range(4)], axis=0)
    assert evaluation.headline.test_error == (probs.argmax(1) != labels.test_labels_N).mean()
    assert evaluation.out_of_bag is not None
    assert evaluation.out_of_bag.rows + evaluation.out_of_bag.never_out == len(labels.train_rows)
    last = list(read_events(outcome.path / "events.jsonl"))[-1][1]
    assert isinstance(last, RunFinished)
    assert last.headline["error/test"] == evaluation.headline.test_error
    stored = list(outcome.path.rglob("*"))
    assert not [path for path in stored if path.suffix in (".pt", ".pkl", ".pickle", ".pth")]


def test_judging_again_gives_the_same_numbers_without_training_code(tmp_path: Path) -> None:
    outcome = run(experiment(tmp_path))
    moved = outcome.path.rename(tmp_path / "moved")
    assert judge(RunFolder.read(moved)).to_json() == json.loads((moved / "evaluation.json").read_text())
    code = (
        "import sys; from pathlib import Path; from ensemble.results.judging import judge; from ensemble.storage import RunFolder\n"
        f"judge(RunFolder.read(Path({str(moved)!r})))\n"
        "assert not {'torch', 'ray', 'accelerate', 'wandb'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_interrupted_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    run(experiment(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        run(experiment(tmp_path / "b"), lambda *_: Limited(1))
    assert RunFolder.read(tmp_path / "b/run").finished() == {0, 1}
    rest = Limited()
    outcome = run(experiment(tmp_path / "b"), lambda *_: rest)
    assert (rest.given, outcome.trained) == (1, 2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    again = Limited()
    assert run(experiment(tmp_path / "b"), lambda *_: again).trained == 0
    assert again.given == 0


def test_another_configuration_on_the_folder_is_refused(tmp_path: Path) -> None:
    run(experiment(tmp_path))
    with pytest.raises(ConfigError, match=r"training\.lr: 0\.003 in the folder, 0\.004 now"):
        run(experiment(tmp_path, training={**CONFIG["training"], "lr": 4e-3}))
    assert run(experiment(tmp_path, aggregator="hard")).evaluation.aggregator == "hard"


def test_more_members_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    run(experiment(tmp_path / "four"))
    run(experiment(tmp_path / "six", num_members=6))
    four, six = digests(tmp_path / "four"), digests(tmp_path / "six")
    assert four.items() <= six.items()
    assert len(six) == 12


def test_mixed_groups(tmp_path: Path) -> None:
    changes = {
        "num_members": None, "model": None, "method": {"name": "deep_ensemble"},
        "members": (
            {"count": 2, "model": {"name": "mlp", "widths": (8,)}},
            {"count": 1, "model": {"name": "lenet5"}, "training": {"epochs": 1}},
        ),
    }  # fmt: skip
    outcome = run(experiment(tmp_path, **changes))
    folder = RunFolder.read(outcome.path)
    assert [folder.load_member(m).recipe for m in range(3)] == ["mlp", "mlp", "lenet5"]
    assert [len(folder.load_member(m).history) for m in range(3)] == [2, 2, 1]
    assert outcome.evaluation.out_of_bag is None


class Failing(InlineExecutor):
    """Fails member 1 the first `times` times it is asked to train it."""

    def __init__(self, kind: Any, times: int) -> None:
        self.kind, self.times = kind, times

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for outcome in super().run(tasks, train, arrays, emit, wanted):
            spoiled = [r for r in outcome.results if r.index == 1 and self.times > 0]
            if not spoiled:
                yield outcome
                continue
            self.times -= 1
            failure = Failure(1, self.kind, "the worker died", "the whole trace", seconds_lost=1.0)
            left = tuple(r for r in outcome.results if r.index != 1)
            yield dataclasses.replace(outcome, results=left, failures=(failure,))


def failing(root: Path, kind: str, times: int, **policy: Any) -> RunOutcome:
    return run(experiment(root, failures=policy), lambda *_: Failing(kind, times))


def test_drop_says_that_the_ensemble_is_smaller(tmp_path: Path) -> None:
    outcome = failing(tmp_path, "crash", 99, policy="drop")
    assert [f.index for f in outcome.failures] == [1]
    assert outcome.evaluation.degraded
    assert len(outcome.evaluation.members) == 3
    assert (outcome.path / "failures/0001.txt").read_text() == "the whole trace"
    # A later start trains the missing member, and ends with what an undisturbed run has.
    assert run(experiment(tmp_path)).trained == 1
    run(experiment(tmp_path / "undisturbed"))
    assert digests(tmp_path) == digests(tmp_path / "undisturbed")


def test_retry_tries_again_and_gives_the_same_bits(tmp_path: Path) -> None:
    outcome = failing(tmp_path, "crash", 1, policy="retry", crash_retries=1)
    assert not outcome.failures
    run(experiment(tmp_path / "undisturbed"))
    assert digests(tmp_path) == digests(tmp_path / "undisturbed")


def test_a_task_is_tried_again_before_the_others_where_the_executor_looks_for_it(tmp_path: Path) -> None:
    """From its last checkpoint; an executor that does not look gets it in the next turn, as above."""
    order: list[str] = []

    class Looking(Failing):
        def run(
            self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
        ) -> Iterator[Outcome]:
            waiting = deque(tasks)
            while waiting:
                task = waiting.popleft()
                order.append(task.id)
                yield from super().run([task], train, arrays, emit, wanted)
                tried_again(tasks, waiting)

    outcome = run(experiment(tmp_path, failures={"policy": "retry"}), lambda *_: Looking("crash", 2))
    assert not outcome.failures
    assert order[:3] == [order[0]] * 3
    assert order[0] not in order[3:]
    run(experiment(tmp_path / "undisturbed"))
    assert digests(tmp_path) == digests(tmp_path / "undisturbed")


def test_retry_does_not_repeat_what_would_fail_again(tmp_path: Path) -> None:
    outcome = failing(tmp_path, "error", 1, policy="retry", crash_retries=5)
    assert [f.index for f in outcome.failures] == [1]


def test_stop_stops_and_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(QuorumError, match="member 1 failed"):
        failing(tmp_path, "crash", 99, policy="stop")
    assert RunFolder.read(tmp_path / "run").finished() == {0}


def test_too_few_members_are_not_judged(tmp_path: Path) -> None:
    with pytest.raises(QuorumError, match="3 of 4 members finished, 4 are needed"):
        failing(tmp_path, "crash", 99, min_members=4)


def test_each_kind_of_trouble_has_its_own_budget(tmp_path: Path) -> None:
    """Two crashes use up a budget of one; as many lost nodes do not touch it."""
    crashed = failing(tmp_path / "crash", "crash", 2, crash_retries=1)
    assert [(f.index, f.tries, f.seconds_lost) for f in crashed.failures] == [(1, 2, 2.0)]
    assert not failing(tmp_path / "lost", "lost_node", 2, crash_retries=0).failures
    assert not failing(tmp_path / "hung", "hung", 3).failures
    assert failing(tmp_path / "more", "hung", 4).failures


class SmallMemory(InlineExecutor):
    """Runs out of memory with more than so many networks at a time."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, []

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for task in filter(wanted, tasks):
            self.sizes.append(len(task.members))
            if len(task.members) > self.most:
                failed = tuple(Failure(m.index, "out_of_memory", "too much") for m in task.members)
                yield Outcome(task, (), failed)
            else:
                yield from super().run([task], train, arrays, emit)


def test_out_of_memory_halves_the_stack_and_the_plan_remembers(tmp_path: Path) -> None:
    compute = {**CONFIG["compute"], "stack_size": 4}
    executor = SmallMemory(1)
    outcome = run(experiment(tmp_path, compute=compute), lambda *_: executor)
    assert executor.sizes == [4, 2, 1, 1, 1, 1]  # the second stack of 2 is not tried
    assert not outcome.failures
    assert RunFolder.read(outcome.path).plan()["stack_sizes"] == {"mlp": 1}
    run(experiment(tmp_path / "small", compute={**compute, "stack_size": 1}))
    assert digests(tmp_path) == digests(tmp_path / "small")


def test_of_many_stacks_that_do_not_fit_one_is_tried(tmp_path: Path) -> None:
    """Eight stacks of 4: the first one fails, the others are packed anew before they start."""
    config = experiment(tmp_path, num_members=32, compute={**CONFIG["compute"], "stack_size": 4})
    executor = SmallMemory(2)
    outcome = run(config, lambda *_: executor)
    assert executor.sizes == [4] + 16 * [2]
    events = [event for _, event in read_events(outcome.path / "events.jsonl")]
    failed = [event for event in events if isinstance(event, MemberFailed)]
    assert [event.member for event in failed] == [0, 1, 2, 3]
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert notices == ["mlp-0000x4: out of memory with 4 networks; now 2 at a time"]


def test_stacks_that_run_out_of_memory_side_by_side_never_raise_the_planned_size(tmp_path: Path) -> None:
    """A stack of 5 and then one of 8 fail, both already under way: what is planned is half of the smaller one."""

    class SideBySide(SmallMemory):
        def run(
            self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
        ) -> Iterator[Outcome]:
            by_size = sorted(tasks, key=lambda task: len(task.members))
            yield from super().run(by_size, train, arrays, emit, always if len(by_size) == 2 else wanted)

    executor = SideBySide(3)
    config = experiment(tmp_path, num_members=13, compute={**CONFIG["compute"], "stack_size": 8})
    outcome = run(config, lambda *_: executor)
    assert executor.sizes[:2] == [5, 8]
    assert max(executor.sizes[2:]) == 3
    assert RunFolder.read(outcome.path).plan()["stack_sizes"] == {"mlp": 3}


def test_kernels_found_by_trying_stand_in_the_plan_and_later_starts_go_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ways that nobody would find: the plan has them, the screen is told, and a start that goes on does not look again."""
    found = Ways(False, {"0": "matmul"})
    monkeypatch.setattr("ensemble.training.ways.find_ways", lambda *_: found)
    changes = {"model": {"name": "cnn", "widths": (4,)}, "compute": {**CONFIG["compute"], "kernels": "measured"}}
    with pytest.raises(KeyboardInterrupt):
        run(experiment(tmp_path, **changes), lambda *_: Limited(1))
    assert RunFolder.read(tmp_path / "run").plan()["ways"] == {
        "cnn": {"batch_last": False, "convolutions": {"0": "matmul"}}
    }
    monkeypatch.setattr("ensemble.training.ways.find_ways", lambda *_: Ways(False, {"0": "contiguous"}))
    outcome = run(experiment(tmp_path, **changes))
    told = [event.message for _, event in read_events(outcome.path / "events.jsonl") if isinstance(event, Notice)]
    assert told == ["cnn: PyTorch's kernels are quickest here, with 0 matmul"]
    monkeypatch.setattr("ensemble.training.ways.find_ways", lambda *_: found)
    run(experiment(tmp_path / "whole", **changes))
    assert digests(tmp_path) == digests(tmp_path / "whole")


def test_one_network_that_does_not_fit_is_dropped_not_repeated(tmp_path: Path) -> None:
    executor = SmallMemory(0)
    with pytest.raises(
        QuorumError, match=r"0 of 4 members finished, .*; the missing ones failed: out_of_memory: too much"
    ):
        run(experiment(tmp_path), lambda *_: executor)
    assert executor.sizes == [2, 1, 1, 1, 1]


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = run(experiment(tmp_path)).path / "members/0002/votes.npz"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=r"0002/votes\.npz: damaged"):
        judge(RunFolder.read(tmp_path / "run"))


def test_a_tracker_that_raises_changes_nothing(tmp_path: Path) -> None:
    class Broken:
        def handle(self, event: Event, time: float) -> None:
            raise RuntimeError("dead service")

        def close(self, ok: bool) -> None:
            raise RuntimeError("still dead")

    run(experiment(tmp_path / "quiet"))
    run_ensemble(experiment(tmp_path / "loud"), lambda *_: InlineExecutor(), lambda _: [Broken()])
    assert digests(tmp_path / "quiet") == digests(tmp_path / "loud")


CONFIG_TEXT = """
name: run
num_members: 4
method: {name: bagging}
model: {name: lenet5}
training: {epochs: 3}
compute: {stack_size: 2, device: cpu}
tracking: {wandb: {mode: disabled}}
"""


def command(root: Path, *extra: str) -> list[str]:
    (root / "c.yaml").write_text(CONFIG_TEXT)
    return [sys.executable, "-m", "ensemble", "train", str(root / "c.yaml"), f"output_dir={root}", *extra]


def test_every_executor_gives_the_same_bits(tmp_path: Path) -> None:
    for executor, extra in (("inline", []), ("processes", []), ("ray", []), ("ray", ["compute.slots=1"])):
        root = tmp_path / f"{executor}{len(extra)}"
        root.mkdir()
        done = preloaded.run(
            command(root, f"compute.executor={executor}", *extra, "--json", "--quiet"),
            capture_output=True, text=True, timeout=240, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["asked_members"] == 4
    for other in ("processes0", "ray0", "ray1"):
        assert digests(tmp_path / "inline0") == digests(tmp_path / other)
    assert len(digests(tmp_path / "ray0")) == 10, "weights and votes of four members and of the network on all rows"


@pytest.mark.parametrize("executor", ["inline", "processes", "ray"])
def test_sigterm_ends_in_time_and_the_same_command_goes_on(tmp_path: Path, executor: str) -> None:
    arguments = command(tmp_path, f"compute.executor={executor}", "training.epochs=400")
    with preloaded.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch" in line and "train loss" in line:
                break
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        errors = process.stderr.read()
    assert process.returncode == 75, errors
    assert time.monotonic() - sent < 15
    assert "interrupted" in errors
    assert "Go on with: ensemble train" in errors
    assert "Traceback" not in errors


class CutAfter(InlineExecutor):
    """Is interrupted when so many checkpoints have been kept."""

    def __init__(self, checkpoints: int) -> None:
        self.left = checkpoints

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        def counting(item: Event | Checkpoint) -> None:
            emit(item)
            self.left -= isinstance(item, Checkpoint)
            if self.left == 0:
                raise KeyboardInterrupt

        yield from super().run(tasks, train, arrays, counting, wanted)


def test_a_killed_driver_goes_on_in_the_middle_of_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same bits as an undisturbed run, no step of before the kept state again, and nothing left over at the end."""
    monkeypatch.setattr("ensemble.training.stack_run._CAPTURES_APART", 0)
    run(experiment(tmp_path / "whole"))
    config = experiment(tmp_path / "cut", compute={**CONFIG["compute"], "checkpoint_every_s": 1e-9})
    with pytest.raises(KeyboardInterrupt):
        run(config, lambda *_: CutAfter(30))
    folder = RunFolder.read(tmp_path / "cut" / "run")
    kept = sorted(name for name in folder.files() if name.startswith("checkpoints/"))
    assert [name.split(".")[-2] for name in kept] == ["000028", "000029"]  # two generations
    damaged = tmp_path / "cut" / "run" / kept[-1]
    damaged.write_bytes(damaged.read_bytes()[:-5] + b"wrong")  # the older one serves
    given: list[Task] = []

    class Noting(InlineExecutor):
        def run(
            self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
        ) -> Iterator[Outcome]:
            given.extend(tasks)
            return super().run(tasks, train, arrays, emit, wanted)

    run(config, lambda *_: Noting())
    assert given[0].checkpoint is not None
    assert given[1].checkpoint is None
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert not [name for name in RunFolder.read(tmp_path / "cut" / "run").files() if name.startswith("checkpoints/")]
    assert not list((tmp_path / "cut" / "run" / "checkpoints").iterdir())
