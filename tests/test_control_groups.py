"""What a container or a slice of the system leaves of processors and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble.outside import control_groups, memory, processors


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of groups of our own, on a machine with 16 processors."""
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "mine")
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path / "tree")
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(16)))
    return tmp_path


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_2_has_the_smallest_limit_from_ones_own_group_upwards(groups: Path) -> None:
    (groups / "mine").write_text("0::/a/b\n")
    put(groups / "tree/a/b", cpu__max="max 100000", memory__max="max")
    put(
        groups / "tree/a",
        cpu__max="250000 100000",
        memory__max="1000",
        memory__current="400",
        memory__stat="file 100\n",
    )
    assert processors.cpus_here() == 3
    assert memory._of_groups() == [700]


def test_version_1_has_a_folder_for_each_controller(groups: Path) -> None:
    (groups / "mine").write_text("4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n")
    put(groups / "tree/cpu/job", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    put(groups / "tree/cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    stat = "total_cache 10\n"
    put(groups / "tree/memory/job", memory__limit_in_bytes="500", memory__usage_in_bytes="100", memory__stat=stat)
    assert processors.cpus_here() == 4
    assert memory._of_groups() == [410]


def test_in_a_container_ones_own_group_is_the_root(groups: Path) -> None:
    (groups / "mine").write_text("0::/kubepods/of/outside\n")
    put(groups / "tree", cpu__max="50000 100000")
    assert processors.cpus_here() == 1


def test_without_limits_it_is_what_the_process_may_run_on(groups: Path) -> None:
    assert processors.cpus_here() == 16
    assert memory._of_groups() == []
