"""A Ray head for tests, as `ray start --head` makes it, on ports and in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
_TRIES = 6


@dataclass(frozen=True)
class Head:
    """A head node. address: of its dashboard; home: its user's folder; gcs_port: for nodes, not for us."""

    address: str
    home: Path
    gcs_port: int
    session: Path

    def logs(self) -> dict[str, int]:
        """Bytes of the logs of all jobs."""
        return {path.name: path.stat().st_size for path in (self.session / "logs").glob("job-driver-*.log")}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def ray_head(home: Path, environment: Mapping[str, str], cpus: int) -> Iterator[Head]:
    """A head node on the loopback interface. home: its working directory."""
    for attempt in range(_TRIES):  # a busy machine is not up within Ray's half a minute; a port may be taken meanwhile
        temporary = Path(f"/tmp/r{os.getpid()}{attempt}")
        gcs, dashboard, agent, client = (free_port() for _ in range(4))
        command = [
            str(BIN / "ray"), "start", "--head", "--block", f"--port={gcs}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", "--include-dashboard=true",
            "--disable-usage-stats", f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
            f"--temp-dir={temporary}",
        ]  # fmt: skip
        patient = {"RAY_agent_register_timeout_ms": "240000"}  # or the node ends itself where that takes half a minute
        with (home / "said").open("w") as said:
            node = subprocess.Popen(
                command, env={**environment, **patient}, stdout=said, stderr=said, start_new_session=True, cwd=home
            )
        up = _is_up(node, home / "said")
        try:
            if up:
                yield Head(f"http://127.0.0.1:{dashboard}", home, gcs, temporary / "session_latest")
                return
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(node.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.wait(5)
            shutil.rmtree(temporary, ignore_errors=True)
    raise RuntimeError("no head node came up")


def _is_up(node: subprocess.Popen[bytes], said: Path) -> bool:
    """Whether the node says that it has started, within two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and node.poll() is None:
        if "will now block forever" in said.read_text():
            return True
        time.sleep(0.5)
    return False
