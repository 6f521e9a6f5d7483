"""What every test shares: no key, no network, no display, and the real data sets only where they are."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import steady_environment
from tests.s3_server import S3Server, s3_server

# Set before ray, wandb or matplotlib is first imported.
os.environ["WANDB_MODE"] = "offline"
os.environ.pop("WANDB_API_KEY", None)
os.environ["WANDB_SILENT"] = "true"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")
steady_environment.install()
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup: commands that tests start would inherit that
    signal.signal(signal.SIGHUP, lambda *_: None)

PROCESS_GIB = 6  # what one process that runs tests may come to need, with the processes that it starts


def pytest_xdist_auto_num_workers() -> int:
    """One a core, as far as memory goes: with two, limits of minutes are missed (docs/log.md)."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(os.cpu_count() or 1, int(memory_gib / PROCESS_GIB)))


# Folders and files whose tests start Ray, launched ranks, a browser or whole commands, or take seconds each: `make test-fast` leaves
# them out.
SLOW = (
    "cli/test_commands",
    "cli/test_every_door",
    "cli/test_init",
    "cli/test_no_run",
    "cli/test_odd_surroundings",
    "cli/test_output",
    "config/test_effects",
    "config/test_foreign_variables",
    "config/test_json_schema",
    "damage",
    "data/test_bucket_data",
    "data/test_huggingface",
    "data/test_margin",
    "data/test_own_source",
    "data/test_prepared",
    "data/test_prepared_arrays",
    "data/test_python_source",
    "data/test_webdataset",
    "docs",
    "evaluation/test_delong_coverage",
    "evaluation/test_evaluate",
    "evaluation/test_own_section",
    "evaluation/test_repeats",
    "evaluation/test_selective",
    "executors",
    "gpu",
    "inference/test_abstaining",
    "inference/test_cost",
    "inference/test_export",
    "inference/test_export_networks",
    "inference/test_names_in_answers",
    "inference/test_own_data_runs",
    "inference/test_predict_command",
    "inference/test_same_through_all_doors",
    "launch",
    "methods/test_own_method",
    "models/test_built_network",
    "models/test_libraries",
    "models/test_own_network",
    "models/test_python_network",
    "native/test_compiling",
    "overview/test_removal",
    "overview/test_runs_command",
    "overview/test_states",
    "overview/test_watching",
    "report/test_figures",
    "report/test_html_report",
    "report/test_large_reports",
    "report/test_legible_page",
    "report/test_many_runs",
    "report/test_matplotlib_alone",
    "report/test_names_everywhere",
    "report/test_paper_tables",
    "report/test_pictures",
    "report/test_report_in_chromium",
    "report/test_tables",
    "storage/test_remote",
    "storage/test_s3",
    "test_bare_machine",
    "test_baseline",
    "test_benchmarks",
    "test_chosen_score",
    "test_controls",
    "test_cross_validation_runs",
    "test_examples",
    "test_finished_members",
    "test_further_sets",
    "test_further_sets_beside",
    "test_given_probabilities",
    "test_given_weights",
    "test_gpu_benchmark",
    "test_gpu_benchmark_runner",
    "test_imports",
    "test_judging_again",
    "test_mapped_runs",
    "test_peers",
    "test_predictions",
    "test_preloaded",
    "test_python_entrance",
    "test_rectangles",
    "test_remedies_of_errors",
    "test_repeats",
    "test_reproduction",
    "test_run",
    "test_run_boosting",
    "test_run_chained_and_boosted",
    "test_skips",
    "test_sklearn_api",
    "test_sklearn_tta",
    "test_steady_environment",
    "test_sweep",
    "test_test_time_augmentation",
    "test_tune_gpu",
    "test_wheel",
    "tracking/test_json_lines",
    "tracking/test_metrics",
    "tracking/test_mlflow",
    "tracking/test_own_tracker",
    "tracking/test_tensorboard",
    "tracking/test_wandb_members",
    "tracking/test_wandb_offline",
    "tracking/test_wandb_online",
    "tracking/test_wandb_replay",
    "tracking/test_wandb_silence",
    "tracking/test_wandb_sweep",
    "tracking/test_wandb_whole_run",
    "training/test_accumulation",
    "training/test_checkpoints",
    "training/test_class_balance",
    "training/test_data_parallel_resume",
    "training/test_data_parallel_strides",
    "training/test_drawn_heads",
    "training/test_frozen_features",
    "training/test_mapped",
    "training/test_placement",
    "training/test_prediction_memory",
    "training/test_stack_equals_alone",
    "training/test_start",
    "training/test_stochastic_depth",
    "training/test_streamed_images",
    "training/test_trial",
    "training/test_triton_convolutions",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Millions of objects of modules and tests come to stay: nobody looks for garbage among them before the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)


# Those with tests of a minute or more: begun first, so that no process waits for another's last test.
LONGEST = (
    "docs/test_guides",
    "launch/test_chaos",
    "executors/test_ray_nodes",
    "launch/test_slurm",
    "launch/test_submit",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing the files that `make test-fast` leaves out would take longer than its tests."""
    left_out = (
        "not slow" in config.option.markexpr and collection_path.suffix == ".py" and _is_in(collection_path, SLOW)
    )
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the marker `slow` to what lies in those files, and puts the longest first."""
    for item in items:
        if _is_in(item.path, SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not _is_in(item.path, LONGEST))


def _is_in(path: Path, names: tuple[str, ...]) -> bool:
    """Whether a file is named there, or lies in a folder that is."""
    here = Path(__file__).parent
    inside = path.relative_to(here) if path.is_relative_to(here) else path
    return inside.parts[0] in names or inside.with_suffix("").as_posix() in names


@pytest.fixture(autouse=True)
def the_working_directory_stays() -> Iterator[None]:
    """A test that leaves its working directory changed fails, and the next one starts where it should."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before


@pytest.fixture(autouse=True)
def denormal_numbers_stay() -> Iterator[None]:
    """What a placement sets for the whole process while it trains is put back after a test that made one by itself."""
    yield
    if sys.float_info.min / 2 == 0:
        torch = sys.modules["torch"]
        torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    """What a test draws from torch's own generator does not depend on the tests before it."""
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(0)


def check_intervals(record: Any, where: str = "") -> None:
    """Every interval of a rate lies within [0, 1], every one of a difference within [-1, 1], and holds its ends in order."""
    if isinstance(record, list | tuple):
        for i, inner in enumerate(record):
            check_intervals(inner, f"{where}.{i}")
    elif isinstance(record, dict):
        ends = [
            (record.get(f"{kind}lower"), record.get(f"{kind}upper"), low)
            for kind, low in (("", 0), ("difference_", -1))
        ]
        ends += [(*record[name], 0) for name in ("validation_interval", "test_interval") if name in record]
        for lower, upper, low in ends:
            assert (lower is None) == (upper is None), f"{where}: half an interval, {lower} to {upper}"
            assert lower is None or low <= lower <= upper <= 1, f"{where}: {lower} to {upper}"
        for name, inner in record.items():
            check_intervals(inner, f"{where}.{name}")


@pytest.fixture(autouse=True, scope="session")
def intervals_lie_in_their_range() -> Iterator[None]:
    """Every judgement, comparison and sweep that a test makes into JSON in this process is looked through."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            ("evaluation.records", "Evaluation"), ("evaluation.comparing", "Comparison"), ("results.sweep", "SweepResult"),
        ):  # fmt: skip
            made = getattr(importlib.import_module(f"ensemble.{module}"), name)

            def checked(self: Any, to_json: Any = made.to_json, name: str = name) -> Any:
                record = to_json(self)
                check_intervals(record, name)
                return record

            patch.setattr(made, "to_json", checked)
        yield


@pytest.fixture
def mnist_root() -> Path:
    """The folder that holds real MNIST, from $ENSEMBLE_DATA; skips with the reason without it."""
    root = os.environ.get("ENSEMBLE_DATA")
    if not root or not (Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("needs real MNIST: set ENSEMBLE_DATA to a folder with MNIST/raw in torchvision's layout")
    return Path(root)


@pytest.fixture(scope="session")
def one_s3_server() -> Iterator[S3Server]:
    """A real S3 server, once for all tests of a process."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(one_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server with a bucket of the test's own, `s3.bucket`, where this process finds it and nothing else."""
    import s3fs

    for name, value in one_s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()  # each of which keeps the credentials it was made with
    one_s3_server.new_bucket()
    one_s3_server.forget()
    yield one_s3_server
    one_s3_server.forget()
    s3fs.S3FileSystem.clear_instance_cache()


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
