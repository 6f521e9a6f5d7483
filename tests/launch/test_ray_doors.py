"""A real Ray head, a job submitted to it, and files for clusters checked against their schemas."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from ensemble.errors import ComputeError
from ensemble.launch.dashboard import check_line
from tests import preloaded
from tests.held_network import held, hold_of
from tests.launch.ray_head import BIN, Head, ray_head

pytestmark = pytest.mark.timeout(900)  # jobs begin slowly where the machine is busy
ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary0123456789canary0123456789canary01"


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head node on the loopback interface, which asks for no token."""
    with ray_head(tmp_path_factory.mktemp("head"), environment(), cpus=4) as found:
        yield found


@pytest.fixture(scope="module")
def address(head: Head) -> str:
    return head.address


def submission(address: str, *words: str, config: str = "configs/quickstart.yaml") -> list[str]:
    return [sys.executable, "-m", "ensemble.launch.submit", config, "--address", address, *words]


def submit(address: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = submission(address, *words)
    return subprocess.run(
        command, cwd=ROOT, env={**environment(), **more}, capture_output=True, text=True, timeout=600, check=False
    )


def test_a_submitted_job_trains_and_its_exit_code_comes_back(address: str, tmp_path: Path) -> None:
    small = ["num_members=2", "training.epochs=1", "data.max_train_rows=200", "tracking.wandb.mode=disabled"]
    done = submit(address, f"output_dir={tmp_path}", *small, WANDB_API_KEY=CANARY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "soft vote *" in done.stdout
    evaluation = json.loads((tmp_path / "quickstart" / "evaluation.json").read_text())
    assert len(evaluation["members"]) == 2
    assert CANARY not in done.stdout + done.stderr
    stored = [path for path in (tmp_path / "quickstart").rglob("*") if path.is_file()]
    assert not [path for path in stored if CANARY.encode() in path.read_bytes()]

    wrong = submit(address, "output_dir=relative")  # the job's own exit code, not the launcher's 1
    assert wrong.returncode == 2
    assert "vanishes with it; expected an absolute path" in wrong.stdout


def test_one_two_and_four_slots_and_no_ray_at_all_give_the_same_bits(head: Head, tmp_path: Path) -> None:
    """Two rounds of boosting with four chains; tests/launch/test_accelerate_door.py has two launched ranks beside inline."""
    (tmp_path / "same.yaml").write_text(
        "{num_members: 8, method: {name: adaboost, chains: 4, error_rows: training}, data: {name: digits}, model: {name: mlp, widths: [16]},"
        " training: {epochs: 2}, compute: {stack_size: 1, device: cpu}, tracking: {wandb: {mode: disabled}}}"
    )
    runs = {
        f"slots{slots}": [
            "compute.executor=ray",
            f"compute.ray_address=127.0.0.1:{head.gcs_port}",
            f"compute.slots={slots}",
        ]
        for slots in (1, 2, 4)
    }
    found = {}
    for name, words in {"inline": ["compute.executor=inline"], **runs}.items():
        command = [
            str(BIN / "ensemble"),
            "train",
            str(tmp_path / "same.yaml"),
            f"name={name}",
            f"output_dir={tmp_path}",
            "-q",
        ]
        done = preloaded.run(
            [*command, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        files = json.loads((tmp_path / name / "manifest.json").read_text())["files"]
        found[name] = {
            k: f["sha256"] for k, f in files.items() if k.endswith((".safetensors", "votes.npz", "method.json"))
        }
    assert len(found["inline"]) == 8 * 2 + 1
    for name in runs:
        assert found[name] == found["inline"], name


def test_a_stopped_job_can_be_resumed(address: str, tmp_path: Path) -> None:
    """Ctrl-C stops the job on the cluster; the same submission then finishes it."""
    keys = {
        "name": "stopped", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits", "max_train_rows": 500},
        "model": held(tmp_path), "training": {"epochs": 40}, "compute": {"executor": "ray", "checkpoint_every_s": 0.5},
        "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    (tmp_path / "stopped.yaml").write_text(json.dumps(keys))
    command = submission(address, f"output_dir={tmp_path}", config="stopped.yaml")
    where: dict[str, Any] = {"cwd": tmp_path, "env": {**environment(), "PYTHONPATH": str(ROOT)}, "text": True}
    client = subprocess.Popen(command, **where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log, kept = tmp_path / "stopped" / "events.jsonl", tmp_path / "stopped" / "checkpoints"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if kept.exists() and any(kept.iterdir()) and "EpochFinished" in log.read_text():
            break
        time.sleep(0.2)
    client.send_signal(signal.SIGINT)
    output = client.communicate(timeout=300)[0]
    assert client.returncode == 75, output
    assert "STOPPED" in output or "stopping" in output
    before = log.read_text().count("EpochFinished")
    assert 0 < before < 80
    assert list(kept.iterdir())
    hold_of(tmp_path).unlink()
    done = subprocess.run(command, **where, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert log.read_text().count("EpochFinished") < before + 80  # it went on where the checkpoint was


@pytest.mark.parametrize(
    ("address", "fine"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://localhost:8265", True),
        ("https://cluster.example:8265", True),
        ("http://10.0.0.7:8265", False),
        ("http://cluster.example:8265", False),
    ],
)
def test_remote_lines_need_encryption_or_a_token(address: str, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if fine:
        check_line(address, insecure=False)
    else:
        with pytest.raises(ComputeError, match=r"ssh -L 8265.*RAY_AUTH_MODE=token.*--insecure"):
            check_line(address, insecure=False)
        check_line(address, insecure=True)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        check_line(address, insecure=False)


def test_the_cluster_launcher_s_file_fits_ray_s_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / "launch/cluster/ray_cluster.yaml").read_text()), schema)


def test_the_slurm_script_is_valid_bash() -> None:
    script = ROOT / "launch/cluster/slurm.sh"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --signal=B:TERM@60" in script.read_text()
