"""What every test shares: no key, no network, no display, and the real data sets only where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before ray, wandb or matplotlib is first imported.
os.environ["WANDB_MODE"] = "offline"
os.environ.pop("WANDB_API_KEY", None)
os.environ["WANDB_SILENT"] = "true"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def mnist_root() -> Path:
    """The folder that holds real MNIST, from $ENSEMBLE_DATA; skips with the reason without it."""
    root = os.environ.get("ENSEMBLE_DATA")
    if not root or not (Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("needs real MNIST: set ENSEMBLE_DATA to a folder with MNIST/raw in torchvision's layout")
    return Path(root)


ALLOWED_SKIPS = "ENSEMBLE_ALLOWED_SKIPS"  # the variable: one beginning of a reason a line


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Where $ENSEMBLE_ALLOWED_SKIPS is set, names every skip that it does not begin, and fails: skipped is not passed."""
    allowed = _allowed_skips()
    if allowed is None:
        return
    unexpected = _unexpected_skips(terminalreporter, allowed)
    if unexpected:
        terminalreporter.section("skips that are not expected here", red=True, bold=True)
    for nodeid, reason in unexpected:
        terminalreporter.line(f"{nodeid}: {reason}")
    expected = len(terminalreporter.stats.get("skipped", [])) - len(unexpected)
    terminalreporter.line(f"{expected} skips as expected; {len(unexpected)} not expected")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turns success into failure when a skip was not expected."""
    allowed = _allowed_skips()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if allowed is not None and reporter is not None and exitstatus == 0 and _unexpected_skips(reporter, allowed):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _allowed_skips() -> tuple[str, ...] | None:
    text = os.environ.get(ALLOWED_SKIPS)
    return None if text is None else tuple(line.strip() for line in text.splitlines() if line.strip())


def _unexpected_skips(reporter: pytest.TerminalReporter, allowed: tuple[str, ...]) -> list[tuple[str, str]]:
    """(test, reason) of each skip whose reason begins with none of `allowed`."""
    found = []
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(reason.startswith(beginning) for beginning in allowed):
            found.append((report.nodeid, reason))
    return found
