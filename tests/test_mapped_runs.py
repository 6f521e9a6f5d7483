"""Whole runs on mapped pictures and arrays: the bits of a run in memory, inline and on Ray, for every network and method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ensemble
from ensemble.data.prepared import kept

COMPUTE = {"executor": "inline", "stack_size": 2}


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for k, name in enumerate("abc"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            level = generator.integers(0, 120, (24, 30, 3)) + 40 * k
            Image.fromarray(level.astype(np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def run(photos: Path, name: str, storage: str, **keys: Any) -> dict[str, bytes]:
    """The weights and votes of all members."""
    given: dict[str, Any] = {
        "model": "lenet5",
        "method": "bagging",
        "baseline": False,
        "training": {"epochs": 2, "batch_size": 8},
    } | keys
    pictures = {"name": "image_folder", "root": str(photos), "image_size": 28, "channels": 1}
    ensemble.train(
        data={**given.pop("data", pictures), "storage": storage},
        num_members=2, name=name, output_dir=photos.parent / "runs", **{"compute": COMPUTE, **given},
    )  # fmt: skip
    members = photos.parent / "runs" / name / "members"
    return {
        f"{file.parent.name}/{file.name}": file.read_bytes()
        for file in members.rglob("*.*")
        if file.suffix in (".npz", ".safetensors")
    }


KINDS: dict[str, dict[str, Any]] = {
    "C kernels": {},
    "torch kernels": {"compute": {**COMPUTE, "kernels": "torch"}},
    "augmented": {
        "training": {"epochs": 2, "batch_size": 8, "augmentation": {"elastic_alpha": 4.0, "mixup_alpha": 0.4}}
    },
    "one image a batch": {"training": {"epochs": 1, "batch_size": 1}},
    "batch norm": {"model": {"name": "cnn", "widths": [4, 8], "batch_norm": True}},
    "boosted": {"method": "gradient_boosting"},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_mapped_is_memory(kind, photos):
    memory = run(photos, "memory", "memory", **KINDS[kind])
    mapped = run(photos, "mapped", "mapped", **KINDS[kind])
    assert len(memory) == 4
    assert mapped == memory
    assert [each.complete for each in kept()] == [True]


def test_a_run_goes_on_with_its_pictures_stored_in_another_way(photos):
    memory = run(photos, "run", "memory")
    (photos.parent / "runs/run/members/0001/weights.safetensors").unlink()  # damaged: it is trained again
    assert run(photos, "run", "mapped") == memory


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, str]:
    """The section of an array file with wide whole numbers and a validation part."""
    generator, parts = np.random.default_rng(1), {}
    for part, count in (("train", 90), ("val", 18), ("test", 30)):
        labels = np.arange(count) % 3
        parts[f"{part}_labels"] = labels
        parts[f"{part}_images"] = (generator.integers(0, 2000, (count, 28, 28)) + 700 * labels[:, None, None]).astype(
            np.uint16
        )
    np.savez_compressed(tmp_path / "mine.npz", **parts)
    return {"name": "arrays", "path": str(tmp_path / "mine.npz")}


def test_a_mapped_array_file_is_one_in_memory_and_a_run_goes_on_with_either(photos, arrays):
    memory = run(photos, "memory", "memory", data=arrays)
    assert kept() == []
    assert run(photos, "mapped", "mapped", data=arrays) == memory
    assert [each.complete for each in kept()] == [True]
    for before, after in (("memory", "mapped"), ("mapped", "auto")):
        (photos.parent / f"runs/{before}/members/0001/weights.safetensors").unlink()
        assert run(photos, before, after, data=arrays) == memory


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
def test_ray_workers_map_the_same_array_file(photos, arrays):
    expected = run(photos, "memory", "memory", data=arrays)
    on_ray = run(photos, "ray", "mapped", data=arrays, compute={"executor": "ray", "stack_size": 2, "slots": 1})
    assert on_ray == expected
    assert [each.complete for each in kept()] == [True]


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
def test_ray_workers_map_the_same_files(photos):
    expected = run(photos, "memory", "memory")
    on_ray = run(photos, "ray", "mapped", compute={"executor": "ray", "stack_size": 2, "slots": 1})
    assert on_ray == expected
    assert [each.complete for each in kept()] == [True]
