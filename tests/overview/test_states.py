"""What a row says of a run: finished, running, interrupted, failed, damaged, or none; of real runs and of their logs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.events import EpochFinished, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted
from ensemble.overview.history import history_of
from ensemble.overview.rows import RECENT_S, read_row, read_rows, state_of
from ensemble.overview.sources import find_sources
from ensemble.storage.lock_state import is_written_to
from tests.damage.commands import call, said


def rows_of(place="runs", cost=False):
    return {row.name: row for row in read_rows(find_sources(place), cost)}


def test_a_finished_run_says_what_its_judgement_says(home: Path):
    row = rows_of(cost=True)["one"]
    record = json.loads(Path("runs/one/evaluation.json").read_text())
    vote = next(line for line in record["leaderboard"] if line["headline"])
    best = next(line for line in record["leaderboard"] if line["kind"] == "best_member")
    assert (row.state, row.state_by) == ("finished", "lock")
    assert (row.error, row.nll, row.best) == (vote["test_error"], vote["nll"], best["test_error"])
    assert (row.members_finished, row.members, row.members_failed) == (4, 4, 0)
    assert (row.epochs_done, row.epochs) == (12, 12)
    assert (row.method, row.network, row.data) == ("bagging", "mlp", "digits")
    assert row.size == sum(path.stat().st_size for path in Path("runs/one").rglob("*") if path.is_file())
    assert row.date == json.loads(Path("runs/one/events.jsonl").read_text().splitlines()[-1])["time"]
    assert row.spent is not None
    assert sum(each.seconds for each in row.spent) == pytest.approx(vote["train_seconds"]), "two stacks of two"
    assert sum(each.lost for each in row.spent) == 0


def test_a_run_in_another_process_runs_until_it_is_killed_and_goes_on(home: Path, elsewhere):
    words = ("training.epochs=500", "num_members=2")
    process = elsewhere("long", *words, epochs=3)
    row = rows_of()["long"]
    assert (row.state, row.state_by) == ("running", "lock")
    assert row.members_finished == 0
    assert 0 < row.epochs_done < row.epochs == 1000
    assert row.error is None
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    killed = rows_of(cost=True)["long"]
    assert (killed.state, killed.state_by) == ("interrupted", "lock")
    assert 0 < killed.epochs_done < 1000
    log = [json.loads(line) for line in Path("runs/long/events.jsonl").read_text().splitlines()]
    told = sum(event["seconds"] for event in log if event["event"] == "EpochFinished")
    assert sum(each.seconds for each in killed.spent) == pytest.approx(told)

    again = elsewhere("long", *words, epochs=3)
    assert rows_of()["long"].state == "running"
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 75
    stopped = rows_of(cost=True)["long"]
    assert stopped.state == "interrupted"
    log = [json.loads(line) for line in Path("runs/long/events.jsonl").read_text().splitlines()]
    clock = log[-1]["time"] - log[0]["time"]
    assert sum(each.seconds for each in killed.spent) < sum(each.seconds for each in stopped.spent) < clock


def test_a_run_below_its_quorum_has_failed(home: Path):
    words = ("name=wild", "training.optimizer=sgd", "training.lr=1e30", "-q")
    assert call("train", "one.yaml", *words).exit_code == 5
    row = rows_of()["wild"]
    assert (row.state, row.members_finished, row.members_failed) == ("failed", 0, 4)
    stopped = ("name=stopped", "failures.policy=stop", "training.optimizer=sgd", "training.lr=1e30", "-q")
    assert call("train", "one.yaml", *stopped).exit_code == 5
    assert rows_of()["stopped"].state == "failed"


def test_the_baseline_is_paid_too(home: Path):
    assert call("train", "one.yaml", "name=with", "baseline=true", "num_members=2", "-q").exit_code == 0
    row = rows_of(cost=True)["with"]
    facts = json.loads(Path("runs/with/baseline/member.json").read_text())
    assert [(each.member, each.device) for each in row.spent] == [(0, "cpu"), (1, "cpu"), (2, "cpu")]
    assert row.spent[2].seconds == facts["train_seconds"]


DAMAGES = {
    "no manifest left": lambda run: (run / "manifest.json").write_text(""),
    "a manifest of somebody else": lambda run: (run / "manifest.json").write_text('{"name": "web app"}'),
    "a manifest that is a folder": lambda run: ((run / "manifest.json").unlink(), (run / "manifest.json").mkdir()),
    "configuration changed": lambda run: (run / "config.yaml").write_text("name: x\n"),
    "configuration gone": lambda run: (run / "config.yaml").unlink(),
    "judgement cut": lambda run: (run / "evaluation.json").write_bytes((run / "evaluation.json").read_bytes()[:500]),
    "plan gone": lambda run: (run / "plan.json").unlink(),
    "votes gone": lambda run: (run / "members/0001/votes.npz").unlink(),
    "weights cut": lambda run: (run / "members/0000/weights.safetensors").write_bytes(b"x"),
    "events changed": lambda run: (run / "events.jsonl").write_text("nothing\n"),
    "unreadable": lambda run: (run / "manifest.json").write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_a_row_that_says_so(home: Path, damage):
    shutil.copytree("runs/one", "runs/hurt")
    DAMAGES[damage](Path("runs/hurt"))
    rows = rows_of()
    assert rows["one"].state == "finished"
    expected = "no run" if damage == "a manifest that is a folder" else "damaged"
    assert rows["hurt"].state == expected
    assert rows["hurt"].problem


STRANGE = {
    "config.yaml": [
        "[]", "a: [[[[", "x", "name: 1\n", "{aggregator: soft, num_members: 2, failures: {min_members: 1}, method: {name: 3}}",
        "{aggregator: soft, num_members: 2, failures: {min_members: 1}, method: {name: mine}, model: 7, data: 8}",
        "{aggregator: soft, num_members: 2, failures: {min_members: 1}, method: {name: mine}, members: 7, model: [1], data: {name: [x]}, compute: {gpus_per_task: many}}",
        "- " * 9000, "[" * 9000 + "]" * 9000, "a: &a [*a]",
    ],
    "plan.json": ["[]", "{}", "NaN", "[" * 90000],
    "evaluation.json": ["[]", "{}", '{"leaderboard": []}', '{"leaderboard": [1]}', '{"leaderboard": [{"kind": "vote", "headline": true, "test_error": NaN, "nll": 1, "train_seconds": 1}]}', "[" * 90000, "9" * 9000],
    "events.jsonl": ["x\n", '{"time": Infinity, "event": "Notice", "message": "x"}\n', '{"time": 1e300, "event": "Notice", "message": "x"}\n', '{"time": -1, "event": "Notice", "message": "x"}\n', '{"time": 1}\n', "[" * 90000 + "\n", "\n\n"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name, contents in STRANGE.items() for content in contents]
)
def test_contents_that_mean_nothing_never_end_the_list(home: Path, name, content):
    """Entered into the manifest, as somebody who edits a run by hand would."""
    shutil.copytree("runs/one", "runs/edited")
    Path("runs/edited", name).write_text(content)
    manifest = json.loads(Path("runs/edited/manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content.encode()).hexdigest(), "bytes": len(content.encode())}
    Path("runs/edited/manifest.json").write_text(json.dumps(manifest))
    for words in (("--cost", "--price", "cpu=1"), ("--json", "--cost"), ("--csv", "--sort", "error")):
        result = call("runs", *words)
        assert result.exit_code == 0, said(result)
        assert "edited" in result.stdout
    rows = rows_of(cost=True)
    assert rows["one"].state == "finished"
    assert rows["edited"].state == "damaged" or name == "config.yaml"


def test_what_lies_beside_runs(home: Path, tmp_path: Path):
    """Folders that are none, those of sweeps, files, links, and names that no program would give."""
    names = [
        "esc\x1b[31m",
        "two\nlines",
        os.fsdecode(b"caf\xe9"),
        "\u732b \u72d7",
        "-dash",
        "a b 'c' \"d\" $e",
        "\u202eevil",
        "x" * 200,
    ]
    for name in names:
        shutil.copytree("runs/one", Path("runs") / name)
    Path("runs/empty").mkdir()
    shutil.copytree("runs/one", "runs/sweep/lr=0.1_seed0")
    shutil.copytree("runs/one", "runs/sweep/lr=0.2_seed0")
    Path("runs/note.txt").write_text("no folder")
    Path("runs/.hidden").mkdir()
    Path("runs/loop").symlink_to("loop")
    Path("runs/dead").symlink_to("nowhere")
    shutil.copytree("runs/one", tmp_path / "far")
    Path("runs/link").symlink_to(tmp_path / "far")
    rows = rows_of()
    assert set(rows) == {*names, "one", "empty", "sweep/lr=0.1_seed0", "sweep/lr=0.2_seed0", "link"}
    assert {row.state for name, row in rows.items() if name != "empty"} == {"finished"}
    assert rows["empty"].state == "no run"
    for words in ((), ("--json",), ("--csv",)):
        result = call("runs", *words)
        assert result.exit_code == 0
        assert not set(result.stdout) & {"\x1b", "\u202e", "\udce9"}
    assert "esc\\x1b[31m" in call("runs").stdout
    assert {run["name"] for run in json.loads(call("runs", "--json").stdout)["runs"]} == set(rows)


def test_one_run_as_the_place(home: Path):
    assert set(rows_of("runs/one")) == {"one"}


def test_a_run_of_an_earlier_version_without_a_log_is_finished(home: Path):
    shutil.copytree("runs/one", "runs/old")
    manifest = json.loads(Path("runs/old/manifest.json").read_text())
    del manifest["files"]["events.jsonl"], manifest["names_sha256"], manifest["entries_sha256"]
    Path("runs/old/manifest.json").write_text(json.dumps(manifest))
    Path("runs/old/events.jsonl").unlink()
    row = rows_of(cost=True)["old"]
    assert (row.state, row.date, row.epochs, row.spent) == ("finished", None, None, ())


def test_the_lock_is_not_in_the_way_of_a_start(home: Path):
    """Whoever asks holds it for a moment; a start in that moment waits instead of giving up."""
    code = "import sys; from pathlib import Path; from ensemble.storage.lock_state import is_written_to\nprint('up', flush=True)\nwhile True: is_written_to(Path('runs/one'))"
    asking = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "up\n"
        for _ in range(30):
            from ensemble.storage.listed_folder import locked

            with locked(Path("runs/one/run.lock")):
                assert is_written_to(Path("runs/one")) is True
    finally:
        asking.kill()
        asking.communicate()
    assert is_written_to(Path("runs/one")) is False


def test_a_lock_of_another_host_proves_nothing_when_it_is_free(home: Path):
    Path("runs/one/run.lock").write_text("process 7 on elsewhere")
    assert is_written_to(Path("runs/one")) is None
    Path("runs/one/run.lock").unlink()
    assert is_written_to(Path("runs/one")) is False


START = RunStarted("r", "bagging", 3, 0, "inline", 1)
TASK = TaskStarted("t", (0, 1, 2), "mlp", 2, "host", 1, "cpu", 1)
EPOCH = EpochFinished(0, 1, 2, 0.5, 0.4, 0.1, 1e-3, 1.0)
DONE = MemberFinished(0, "mlp", 10, 1.0, 2, 0.1)
END = RunFinished(3, 0, 1.0, {})


def dropped(member, decision="drop"):
    return MemberFailed(member, "crash", "x", 1, 1.0, decision)


@pytest.mark.parametrize(
    ("events", "held", "finished", "judged", "age", "expected"),
    [
        ([START, TASK, EPOCH], True, 0, False, 9e9, "running"),
        ([START, TASK, EPOCH], False, 0, False, 0, "interrupted"),
        ([START, TASK, EPOCH], None, 0, False, RECENT_S - 5, "running"),
        ([START, TASK, EPOCH], None, 0, False, RECENT_S + 5, "interrupted"),
        ([START, TASK, EPOCH, END], None, 3, True, 0, "finished"),
        ([START, TASK, EPOCH, END], True, 3, True, 0, "running"),
        ([START, END, START, TASK], False, 3, True, 0, "interrupted"),
        ([START, TASK, *map(dropped, (0, 1, 2))], False, 0, False, 0, "failed"),
        ([START, TASK, DONE, *map(dropped, (1, 2))], False, 1, False, 0, "failed"),
        ([START, TASK, dropped(1), dropped(2)], False, 0, False, 0, "interrupted"),  # member 0 was under way
        ([START, TASK, dropped(0, "stop")], False, 0, False, 0, "failed"),
        ([START, TASK, dropped(0, "stop"), START], False, 0, False, 0, "interrupted"),
        ([START, TASK, DONE, dropped(2), END], False, 2, True, 0, "finished"),
        ([], False, 3, True, 0, "finished"),
        ([], False, 0, False, 0, "interrupted"),
        ([], True, 0, False, 0, "running"),
    ],
)  # fmt: skip
def test_states_by_log_and_lock(events, held, finished, judged, age, expected):
    history = history_of((1000.0, event) for event in events)
    assert state_of(history, held, finished, 2, judged, now=1000.0 + age)[0] == expected


def test_read_row_takes_any_source_that_find_sources_gives(home: Path):
    for source in find_sources("runs"):
        assert read_row(source).name == source.name


def test_two_hundred_runs_are_listed_without_torch(home: Path):
    for number in range(200):
        shutil.copytree("runs/one", f"runs/copy_{number:03d}")
    code = (
        "import sys; from ensemble.commands.main import main\n"
        "try: main(['runs', '--json', '--cost'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'accelerate', 'wandb', 'torchvision', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 201
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 12, f"{spent:.1f} s of CPU, of which two are usual"
