"""`ensemble submit` on a real Ray head that asks for a token: submitting, following, stopping, fetching, and what goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensemble.launch import hand_over
from ensemble.launch.fetching import _from_bucket, _Received
from ensemble.launch.versions import VARIABLE, differences, here
from ensemble.storage.manifest import Entry, manifest_bytes
from tests.held_network import held
from tests.launch.ray_head import BIN, Head, ray_head

pytestmark = pytest.mark.timeout(900)  # jobs begin slowly where the machine is busy
TOKEN = "0123456789abcdef0123456789abcdef"
CONFIG = """\
num_members: 2
method: {name: bagging}
baseline: false
data: {name: digits, max_train_rows: 200}
model: {name: python, path: "nets.py:make"}
training: {epochs: 1}
compute: {device: cpu, stack_size: 2}
tracking: {wandb: {mode: disabled}}
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **token, **more}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head node with one core, which asks for a token."""
    home = tmp_path_factory.mktemp("head")
    with ray_head(home, environment(HOME=str(home)), cpus=1) as found:
        yield found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a configuration, its own network in two files, and a large picture."""
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "nets.py").write_text(
        "from blocks import block\ndef make(num_classes, in_channels):\n    return block(num_classes)\n"
    )
    (tmp_path / "blocks.py").write_text(
        "from torch import nn\ndef block(k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, k))\n"
    )
    (tmp_path / "picture.png").write_bytes(random.Random(0).randbytes(300_000))
    return tmp_path


def submit(work: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ensemble"), "submit", *words]
    return subprocess.run(
        command, cwd=work, env=environment(**more), capture_output=True, text=True, timeout=600, check=False
    )


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that the manifest lists, and of the manifest."""
    listed = [*json.loads((folder / "manifest.json").read_text())["files"], "manifest.json"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in listed}


def test_a_configuration_trains_there_and_its_run_comes_back(head: Head, work: Path) -> None:
    """From a folder without the repository; RAY_ADDRESS, which Ray's own client would follow instead, names another cluster."""
    words = ["small.yaml", "--address", head.address, "--fetch", "results"]
    done = submit(work, *words, RAY_ADDRESS="http://127.0.0.1:1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "soft vote *" in done.stdout
    assert done.stdout.splitlines()[-1] == "results/small"
    told = done.stderr
    assert "uploading 3 files" in told
    assert all(name in told for name in ("small.yaml", "nets.py", "blocks.py"))
    assert "picture.png" not in told
    assert "fetch the run before the cluster ends" in told  # nobody gave output_dir
    there = head.home / "ensemble_runs" / "small"
    assert f"runs go to {there.parent} on" in done.stdout
    assert digests(work / "results" / "small") == digests(there)
    unpacked = [path.name for path in head.session.rglob("working_dir_files/**/*") if path.is_file()]
    assert "nets.py" in unpacked
    assert "picture.png" not in unpacked
    check = subprocess.run([str(BIN / "ensemble"), "check", "results/small"], cwd=work, env=environment(), check=False)
    assert check.returncode == 0
    job = told.partition("job ")[2].partition(":")[0]
    again = submit(work, "--fetch", "results", "--job", job, "--address", head.address)
    assert again.returncode == 0, again.stderr
    assert "is this very run already; nothing was fetched" in again.stderr
    # A run that has gone on there takes the place of the state that was fetched; what was made beside it stays.
    (work / "results" / "small" / "report.html").write_text("mine")
    (there / "events.jsonl").write_bytes((there / "events.jsonl").read_bytes() + b"{}\n")
    manifest = json.loads((there / "manifest.json").read_text())
    entries = {name: Entry(**entry) for name, entry in manifest["files"].items()}
    content = (there / "events.jsonl").read_bytes()
    entries["events.jsonl"] = Entry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    (there / "manifest.json").write_bytes(manifest_bytes(entries))
    newer = submit(work, "--fetch", "results", "--job", job, "--address", head.address)
    assert newer.returncode == 0, newer.stderr
    assert digests(work / "results" / "small") == digests(there)
    assert (work / "results" / "small" / "report.html").read_text() == "mine"
    # But what somebody has changed here is left alone.
    (work / "results" / "small" / "manifest.json").write_text("{}")
    kept = submit(work, "--fetch", "results", "--job", job, "--address", head.address)
    assert kept.returncode == 6
    assert "results/small: is there already" in kept.stderr


def test_repeats_train_in_one_job_and_all_come_back_with_their_table(head: Head, work: Path) -> None:
    done = submit(
        work, "small.yaml", "repeats=2", "seed=5", "name=two", "--address", head.address, "--fetch", "results"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "results/two"
    for name in ("two_seed5", "two_seed6"):
        assert digests(work / "results/two" / name) == digests(head.home / "ensemble_runs/two" / name)
    here, there = (
        json.loads((folder / "two/repeats.json").read_text())
        for folder in (work / "results", head.home / "ensemble_runs")
    )
    assert here["lines"] == there["lines"]
    assert (work / "results/two/repeats.html").is_file()


def test_a_job_can_be_left_and_followed_and_its_exit_code_comes_back(head: Head, work: Path) -> None:
    to = ("--address", head.address)
    left = submit(work, "small.yaml", "--detach", *to, "output_dir=relative")
    assert left.returncode == 0, left.stderr
    job = left.stdout.strip()
    assert f"ensemble submit --follow {job} --address {head.address}" in left.stderr
    assert f"ensemble submit --fetch results --job {job}" in left.stderr
    followed = submit(work, "--follow", job, RAY_API_SERVER_ADDRESS=head.address)
    assert followed.returncode == 2, followed.stdout + followed.stderr
    assert "vanishes with it; expected an absolute path" in followed.stdout
    assert f"address {head.address} ($RAY_API_SERVER_ADDRESS)" in followed.stderr
    none = submit(work, "--fetch", "results", "--job", job, *to)
    assert none.returncode == 6
    assert "there is no run at relative/small" in none.stderr
    assert not (work / "results").exists()


class Line:
    """A line to the head that can be cut: a port that passes everything on."""

    def __init__(self, target: int) -> None:
        self._target, self._open = target, list[socket.socket]()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for one in (self._server, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Client:
    """`ensemble submit`, while it follows a job that trains."""

    def __init__(self, work: Path, *words: str) -> None:
        self._process = subprocess.Popen(
            [str(BIN / "ensemble"), "submit", *words], cwd=work, env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.said = ""
        while re.search(r"epoch +\d+/", self.said) is None:
            line = self._process.stdout.readline()
            assert line, self.said
            self.said += line

    def end(self, number: int | None = None) -> int:
        """Its exit code, after a signal or without."""
        if number is not None:
            self._process.send_signal(number)
        self.said += self._process.communicate(timeout=300)[0]
        return self._process.returncode


def test_a_job_outlives_a_closed_terminal_a_cut_line_and_ctrl_c_of_others_and_is_stopped_orderly(
    head: Head, work: Path
) -> None:
    to = ("--address", head.address)
    keys = {
        "name": "long", "num_members": 2, "method": {"name": "bagging"}, "data": {"name": "digits"}, "model": held(work),
        "training": {"epochs": 1000}, "compute": {"checkpoint_every_s": 0.5}, "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    (work / "long.yaml").write_text(json.dumps(keys))
    client = Client(work, "long.yaml", *to)
    assert client.end(signal.SIGHUP) == 75, client.said
    job = client.said.partition("job ")[2].partition(":")[0]
    assert f"the job {job} goes on" in client.said
    assert f"stop:   ensemble submit --stop {job} --address {head.address}" in client.said

    early = submit(work, "--fetch", "results", "--job", job, *to)
    assert early.returncode == 2
    assert "still runs; first wait for its end: ensemble submit --follow" in early.stderr

    line = Line(int(head.address.rpartition(":")[2]))
    through = f"http://127.0.0.1:{line.port}"
    client = Client(work, "--follow", job, "--address", through)
    line.cut()
    assert client.end() == 7, client.said
    assert f"Go on following: ensemble submit --follow {job} --address {through}" in client.said
    assert "Traceback" not in client.said

    client = Client(work, "--follow", job, *to)
    assert client.end(signal.SIGINT) == 75
    assert f"the job {job} goes on" in client.said

    stopped = submit(work, "--stop", job, *to)
    assert stopped.returncode == 0, stopped.stderr
    assert "STOPPED; the same submission goes on where it was" in stopped.stderr
    assert "has ended already: STOPPED" in submit(work, "--stop", job, *to).stderr
    assert list((head.home / "ensemble_runs" / "long" / "checkpoints").iterdir())  # it has kept what it had


BIG = {f"shared/{i}.bin": random.Random(i).randbytes(700_000) for i in range(6)}


def make_big_run(folder: Path) -> None:
    """A run folder as far as its manifest goes, of 4 MB; one file is empty, and the log is longer than the manifest says."""
    contents = {**BIG, "config.yaml": b"name: big\n", "empty": b"", "events.jsonl": b"{}\n", "zempty": b""}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content + (b"{more}\n" if name == "events.jsonl" else b""))
    entries = {name: Entry(sha256=hashlib.sha256(c).hexdigest(), bytes=len(c)) for name, c in contents.items()}
    (folder / "manifest.json").write_bytes(manifest_bytes(entries))


ASTRAY = """
import sys
from pathlib import Path
from ensemble.launch import fetching
class Cluster:
    def info(self, job):
        class Info:
            metadata = {"ensemble": "a", "ensemble_output_dir": "/runs", "ensemble_runs": sys.argv[1]}
            class status:
                is_terminal = staticmethod(lambda: True)
        return Info
fetching.fetch(Cluster(), "job", Path("results"), print)
"""


@pytest.mark.parametrize("runs", ['["../x"]', '["/x"]', '["a/b/c"]', '[""]', '["a/.."]'])
def test_a_job_cannot_say_that_its_run_belongs_elsewhere(work: Path, runs: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASTRAY, runs], cwd=work, env=environment(), capture_output=True, text=True, check=False
    )
    assert "nothing of that name is written here; expected NAME" in done.stderr
    assert not (work / "results").exists()


PARTS = """
import sys
from pathlib import Path
from ensemble.launch import dashboard, fetching
cluster = dashboard.connect(sys.argv[1], False)
print(fetching.fetch(cluster, sys.argv[2], Path("results"), lambda line: print(line, flush=True), part_bytes=1_500_000))
"""
SUBMITTED = """
import sys
import time
from ensemble.launch import dashboard
cluster = dashboard.connect(sys.argv[1], False)
job = cluster.take(entrypoint="true", metadata={"ensemble": "big", "ensemble_output_dir": "~/ensemble_runs"})
while not cluster.info(job).status.is_terminal():
    time.sleep(0.2)
print(job)
"""


def test_a_large_run_comes_in_parts_goes_on_after_a_kill_and_is_all_or_nothing(head: Head, work: Path) -> None:
    there, before = head.home / "ensemble_runs" / "big", sum(head.logs().values())
    make_big_run(there)
    python = [sys.executable, "-c"]
    made = subprocess.run(
        [*python, SUBMITTED, head.address], env=environment(), capture_output=True, text=True, timeout=300, check=True
    )
    job = made.stdout.strip()
    client = subprocess.Popen(
        [*python, PARTS, head.address, job], cwd=work, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    lines = [client.stdout.readline() for _ in range(2)]
    client.kill()
    client.communicate()
    assert lines == ["fetching 10 files, 4.0 MiB\n", "1.4 of 4.0 MiB\n"]
    assert not (work / "results" / "big").exists()
    (partial,) = (work / "results").iterdir()
    assert 1_400_000 < sum(path.stat().st_size for path in partial.rglob("*.bin")) < 4_000_000

    rest = subprocess.run(
        [*python, PARTS, head.address, job], cwd=work, env=environment(), capture_output=True, text=True, check=False
    )
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.startswith("fetching 10 files, 4.0 MiB, of which 1.4 MiB are here\n")
    assert {path.name for path in (work / "results").iterdir()} == {"big", ".big.fetched"}
    for name, content in BIG.items():
        assert (work / "results" / "big" / name).read_bytes() == content
    assert (work / "results" / "big" / "events.jsonl").read_bytes() == b"{}\n"
    assert (work / "results" / "big" / "zempty").read_bytes() == b""
    # The logs of the parts are emptied, or the head would hold every run a second time.
    assert sum(head.logs().values()) - before < 2_700_000  # of the killed one its last part may be left
    assert max(head.logs().values()) < 2_100_000

    (there / "shared/3.bin").write_bytes(BIG["shared/3.bin"][:-1] + b"?")
    damaged = submit(work, "--fetch", "other", "--job", job, "--address", head.address)
    assert damaged.returncode == 6, damaged.stderr
    assert "shared/3.bin: arrived with another SHA-256 than its manifest says" in damaged.stderr
    assert not (work / "other" / "big").exists()
    (work / "third" / "big").mkdir(parents=True)
    taken = submit(work, "--fetch", "third", "--job", job, "--address", head.address)
    assert taken.returncode == 6
    assert "third/big: is there already" in taken.stderr


@pytest.mark.parametrize(
    ("token", "sentence"),
    [({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}, "none is set here"), ({"RAY_AUTH_TOKEN": "wrong" * 8}, "does not know the token")],
    ids=["none", "wrong"],
)  # fmt: skip
def test_a_token_that_is_missing_or_wrong_is_one_sentence(
    head: Head, work: Path, token: dict[str, str], sentence: str
) -> None:
    done = submit(work, "small.yaml", "--address", head.address, **token)
    assert done.returncode == 7
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr
    assert "export RAY_AUTH_MODE=token" in done.stderr
    assert TOKEN not in done.stderr


def test_what_is_asked_of_a_cluster_and_cannot_be_is_one_sentence(head: Head, work: Path) -> None:
    to = ("--address", head.address)
    unknown = submit(work, "--follow", "nothing", *to)
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)
    assert "there is no job nothing" in unknown.stderr
    nodes = submit(work, "small.yaml", "--address", f"http://127.0.0.1:{head.gcs_port}")
    assert (nodes.returncode, len(nodes.stderr.splitlines())) == (7, 1)
    assert "is no Ray dashboard" in nodes.stderr
    # A job that Ray itself cannot begin: its files cannot be had there any more.
    gone = SUBMITTED.replace(
        'entrypoint="true"', 'entrypoint="true", runtime_env={"working_dir": "gcs://_ray_pkg_0.zip"}'
    )
    made = subprocess.run(
        [sys.executable, "-c", gone, head.address], env=environment(), capture_output=True, text=True, check=True
    )
    failed = submit(work, "--follow", made.stdout.strip(), *to)
    assert failed.returncode == 7, failed.stdout + failed.stderr
    assert "failed on the cluster: " in failed.stderr
    assert "Traceback" not in failed.stderr


class NoRay(http.server.BaseHTTPRequestHandler):
    """Somebody's web server."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class OldRay(NoRay):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"version": "4", "ray_version": "2.9.3", "ray_commit": ""}).encode())


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [(NoRay, "is no Ray dashboard"), (OldRay, "has Ray 2.9.3; expected 2.52 or later"), (None, "says nothing for")],
    ids=["web", "old", "silent"],
)
def test_what_answers_and_is_no_cluster_for_us_is_one_sentence(
    work: Path, handler: type[NoRay] | None, sentence: str
) -> None:
    if handler is None:
        silent = socket.create_server(("127.0.0.1", 0))
        port = silent.getsockname()[1]
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
    done = submit(work, "small.yaml", "--address", f"http://127.0.0.1:{port}", RAY_AUTH_MODE="disabled")
    if handler is None:
        silent.close()
    else:
        server.shutdown()
        server.server_close()
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 1), done.stderr
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["small.yaml"], 2, "--address is missing"),
        (["small.yaml", "--address", "127.0.0.1:8265"], 2, "expected the dashboard's URL"),
        (["small.yaml", "--address", "http://[bad"], 2, "Invalid IPv6 URL; expected the dashboard's URL"),
        (["small.yaml", "--address", "http://a:99999"], 2, "expected the dashboard's URL"),
        (["small.yaml", "--address", "ray://127.0.0.1:10001"], 2, "is for Ray's client"),
        (["small.yaml", "--address", "http://127.0.0.1:8265/jobs"], 2, "expected the dashboard's URL"),
        (["small.yaml", "--address", "http://127.0.0.1:1"], 7, "could not be reached within 3 s: Connection refused"),
        (["small.yaml", "--address", "http://no-such-host.invalid:8265"], 7, "could not be reached"),
        (["small.yaml", "--follow", "job", "--address", "http://127.0.0.1:1"], 2, "leave out small.yaml"),
        (["--job", "job"], 2, "goes with --fetch FOLDER"),
        (["--fetch", "results"], 2, "expected a CONFIG to submit"),
        (["small.yaml", "--detach", "--fetch", "results"], 2, "--fetch has no effect with --detach"),
        (["--follow", "job", "--install"], 2, "--install has no effect with --follow"),
        (["seed=3", "small.yaml"], 2, "expected a CONFIG first"),
        (["small.yaml", "--address", "http://127.0.0.1:1", "model.nam=x"], 2, "did you mean"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_sentence(work: Path, words: list[str], code: int, sentence: str) -> None:
    done = submit(work, *words)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_other_versions_are_said_before_anything_trains(work: Path) -> None:
    mine = here()
    assert differences(mine) == []
    other = {**mine, "ensemble": "0.0.9 (sources 0123456789ab)", "Python": "3.99.0"}
    lines = differences(other)
    assert [line for line in lines if "0.0.9" in line and "--install" in line]
    assert [line for line in lines if "(there 3.99.0)" in line]
    done = subprocess.run(
        [sys.executable, "-m", "ensemble.launch.ray_job", "small.yaml", "output_dir=relative"], cwd=work,
        env=environment(**{VARIABLE: json.dumps(other)}), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    first, second, third = done.stderr.splitlines()
    assert first.startswith("note: the program on the cluster is ensemble ")
    assert second.startswith("note: the cluster has other versions")
    assert third.startswith("error: output_dir: 'relative'")


@pytest.mark.parametrize("most", [1, 7, 1000, 10**9])
def test_parts_of_any_size_make_up_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int) -> None:
    contents = {"a": b"first", "b/c": b"", "d": bytes(range(256)) * 3}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    manifest = json.dumps({"files": {name: {"bytes": len(content)} for name, content in contents.items()}}).encode()
    (tmp_path / "manifest.json").write_bytes(manifest)
    whole, found = b"".join(contents.values()), b""
    step = most if most > 1 else 100  # the smallest parts at a few places only
    for start in range(0, len(whole), step):
        words = ["send", str(tmp_path), hashlib.sha256(manifest).hexdigest(), str(start), str(most)]
        assert hand_over.main(words) == 0
        printed, received = capsys.readouterr().out, _Received()
        cut = random.Random(start).randrange(len(printed))  # pieces end anywhere
        part = b"".join([*received.lines(printed[:cut]), *received.lines(printed[cut:])])
        assert received.ended
        assert part == whole[start : start + most]
        found += part
    assert most == 1 or found == whole
    assert hand_over.main(["send", str(tmp_path), "0" * 64, "0", "10"]) == 1
    assert "the run has changed meanwhile" in capsys.readouterr().out


def test_a_run_in_a_bucket_is_read_from_there(tmp_path: Path) -> None:
    import fsspec

    make_big_run(tmp_path / "made")
    (tmp_path / "made" / "events.jsonl").write_bytes(b"{}\n")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path / "made"), "/bucket-of-runs/big", recursive=True)
    target = _from_bucket("memory://bucket-of-runs", "big", tmp_path / "results" / "big")
    assert digests(target) == digests(tmp_path / "made")
    assert {path.name for path in target.parent.iterdir()} == {"big", ".big.fetched"}
    bucket.rm("/bucket-of-runs", recursive=True)
