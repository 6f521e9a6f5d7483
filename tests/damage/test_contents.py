"""Files whose checksum is right and whose content is not: refused by name, or without effect; never a mistake of the program."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensemble.errors import EnsembleError
from ensemble.inference.stored import read_vote
from ensemble.report.run_facts import read_run
from ensemble.results.checking import check_run
from ensemble.results.voters import load_voters
from ensemble.storage import RunFolder
from tests.amounts import examples
from tests.damage.commands import call, said, train_in
from tests.damage.conftest import CONFIG

MEMBER = "members/0000"
TREES = (
    "config.yaml",
    "plan.json",
    "dataset.json",
    "method.json",
    f"{MEMBER}/member.json",
    "evaluation.json",
    "environment.json",
)
ARCHIVES = ("labels.npz", "disputed.npz", f"{MEMBER}/votes.npz")
TEXTS = (f"{MEMBER}/history.csv", "events.jsonl", f"{MEMBER}/weights.safetensors")
STRANGE: list[Any] = [None, True, -1, 10**30, 1.5, "", "x", [], {}, [[1]], {"a": 1}]
Relist = Callable[[Path, str], None]


def mutated_tree(value: Any, chance: random.Random) -> Any:
    """One place of a tree of plain values changed: a key dropped or added, another type, another length."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        if chance.random() < 0.3:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated_tree(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        position = chance.randrange(len(value))
        if chance.random() < 0.5:
            return value[:position] if chance.random() < 0.5 else [*value, value[position]]
        return [*value[:position], mutated_tree(value[position], chance), *value[position + 1 :]]
    return chance.choice([other for other in STRANGE if type(other) is not type(value)])


def mutated_arrays(arrays: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    name = chance.choice(sorted(arrays))
    array = arrays[name]
    changes: list[Callable[[], Any]] = [
        lambda: array[:-1], lambda: array[None], lambda: array.ravel(), lambda: array.astype(np.complex128),
        lambda: array.astype("U8"), lambda: array.astype(np.float64) - 2, lambda: np.full(array.shape, -3, (array.dtype.kind == "f" and array.dtype) or np.int64),
        lambda: np.full(array.shape, np.nan), lambda: array[..., :0], lambda: np.concatenate([array, array]),
    ]  # fmt: skip
    if chance.random() < 0.1:
        return {key: value for key, value in arrays.items() if key != name}
    return {**arrays, name: chance.choice(changes)()}


def mutated(name: str, content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return chance.choice(
            [b"", b"\xff\xfe", b"[" * 10_000, b'{"a":' * 10_000, b"NaN", b"!!python/object:os.system x", content[:40]]
        )
    if name.endswith(".npz"):
        with np.load(io.BytesIO(content)) as archive:
            changed = mutated_arrays(dict(archive), chance)
        buffer = io.BytesIO()
        np.savez(buffer, **changed)
        return buffer.getvalue()
    if name.endswith((".csv", ".jsonl", ".safetensors")):
        position = chance.randrange(len(content))
        return chance.choice(
            [
                content[:position],
                content[position:],
                content[:position] + b"9" + content[position + 1 :],
                content + content,
            ]
        )
    if name.endswith(".yaml"):
        return yaml.safe_dump(mutated_tree(yaml.safe_load(content), chance)).encode()
    return (
        json.dumps(mutated_tree(json.loads(content), chance))
        .replace("1.5", chance.choice(["1.5", "NaN", "1e999"]))
        .encode()
    )


def refusal(read: Callable[[Path], Any], path: Path) -> EnsembleError | None:
    """The error of a reader; None where it took what it found."""
    try:
        read(path)
    except EnsembleError as error:
        return error
    return None


def contents_of(path: Path) -> dict[str, bytes]:
    folder = RunFolder.read(path)
    return {name: folder.read_bytes(name) for name in folder.files()}


READERS = (check_run, read_vote, read_run, lambda path: load_voters(RunFolder.read(path)))


@settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.sampled_from(TREES + ARCHIVES + TEXTS), st.integers(0, 2**32))
def test_no_content_is_a_mistake_of_the_program(run: Path, relist: Relist, name: str, seed: int) -> None:
    """Every reader either takes a changed file or says which one it is."""
    sound, manifest = (run / name).read_bytes(), (run / "manifest.json").read_bytes()
    try:
        (run / name).write_bytes(mutated(name, sound, random.Random(seed)))
        relist(run, name)
        for read in READERS:
            error = refusal(read, run)
            assert error is None or (error.exit_code in range(2, 7) and str(run) in str(error)), error
    finally:
        (run / name).write_bytes(sound)
        (run / "manifest.json").write_bytes(manifest)


@pytest.fixture(scope="module")
def fuller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has what the plain one lacks: a baseline, votes on further sets, what a prediction costs."""
    sets = [
        {"name": "noisy", "kind": "shifted", "corruptions": [{"gaussian_noise": [1, 3]}]},
        {"name": "alien", "kind": "unknown", "data": {"name": "digits"}, "corruptions": ["stripe"], "max_images": 20},
    ]
    config = {**CONFIG, "name": "f", "baseline": True, "evaluation": {"sets": sets}}
    home = train_in(tmp_path_factory.mktemp("fuller"), config)
    result = call("cost", str(home / "runs/f"))
    assert result.exit_code == 0, said(result)
    return home


FURTHER = (
    "baseline/member.json", "baseline/votes.npz", "baseline/history.csv", "baseline/weights.safetensors", "cost.json",
    "votes/noisy/set.json", "votes/noisy/labels.npz", "votes/noisy/0001.npz", "votes/alien/set.json", "votes/alien/0000.npz",
    "predictions.csv", "leaderboard.csv", "wrong.npz", "events.jsonl",
)  # fmt: skip


@settings(max_examples=examples(24), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.sampled_from(FURTHER), st.integers(0, 2**32), st.booleans())
def test_nor_are_those_of_a_fuller_run_in_any_command(
    fuller: Path, relist: Relist, name: str, seed: int, listed: bool
) -> None:
    """Commands that read a run read its further files too; one of them, and every reader, is asked at a time."""
    run, chance = fuller / "runs/f", random.Random(seed)
    sound, manifest = (run / name).read_bytes(), (run / "manifest.json").read_bytes()
    words = chance.choice(COMMANDS)
    try:
        (run / name).write_bytes(mutated(name, sound, chance))
        if listed:
            relist(run, name)
        for read in READERS:
            error = refusal(read, run)
            assert error is None or (error.exit_code in range(2, 7) and str(run) in str(error)), error
        result = call(*(word.replace("RUN", str(run)) for word in words))
        assert result.exit_code in {0, *range(2, 7)}, (words, name, said(result))
    finally:
        (run / name).write_bytes(sound)
        (run / "manifest.json").write_bytes(manifest)


COMMANDS = (
    ("evaluate", "RUN", "--json"), ("evaluate", "RUN", "--all"), ("card", "RUN"), ("check", "RUN"), ("runs", "RUN", "--json"),
    ("runs", "RUN", "--cost"), ("watch", "RUN"), ("compare", "RUN:members", "RUN:0"),
)  # fmt: skip


@settings(max_examples=examples(20), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(("config.yaml", "dataset.json", "method.json", f"{MEMBER}/member.json", *ARCHIVES)),
    st.integers(0, 2**32),
)
def test_what_is_judged_is_judged_alike(run: Path, relist: Relist, name: str, seed: int) -> None:
    """A command that takes a file whose form was changed says what it said before."""
    calm = (run / "evaluation.json").read_text()
    sound, manifest = (run / name).read_bytes(), (run / "manifest.json").read_bytes()
    try:
        (run / name).write_bytes(mutated(name, sound, random.Random(seed)))
        relist(run, name)
        result = call("evaluate", "runs/d", "--json")
        assert result.exit_code in {0, *range(2, 7)}, said(result)
        if result.exit_code == 0:
            assert json.loads(result.stdout) == json.loads(calm), (name, (run / name).read_bytes()[:300])
    finally:
        (run / name).write_bytes(sound)
        (run / "manifest.json").write_bytes(manifest)


def test_files_of_another_member_are_refused(run: Path, relist: Relist) -> None:
    (run / MEMBER / "weights.safetensors").write_bytes((run / "members/0001/weights.safetensors").read_bytes())
    relist(run, f"{MEMBER}/weights.safetensors")
    for words in (("predict", "runs/d", "x.png"), ("check", "runs/d"), ("card", "runs/d")):
        result = call(*words)
        assert result.exit_code == 6, said(result)
        assert "members/0000/weights.safetensors" in said(result)
    assert call("train", "d.yaml", "-q").exit_code == 0  # trains that member again
    assert call("check", "runs/d").exit_code == 0


def test_one_name_for_two_classes_is_refused_by_every_command(run: Path, relist: Relist) -> None:
    """Else an answer would name a class that nobody can tell from another."""
    facts = json.loads((run / "dataset.json").read_text())
    facts["class_names"][0] = facts["class_names"][1]
    (run / "dataset.json").write_text(json.dumps(facts))
    relist(run, "dataset.json")
    for words in (("predict", "runs/d", "x.png"), ("check", "runs/d"), ("card", "runs/d"), ("evaluate", "runs/d")):
        result = call(*words)
        assert result.exit_code == 6, said(result)
        assert "dataset.json" in said(result)
        assert "class_names has a name more than once" in said(result)


def test_names_that_leave_the_folder_and_lost_names_are_damage(run: Path) -> None:
    path = run / "manifest.json"
    sound = json.loads(path.read_text())
    names = list(sound["files"])
    for changed in (
        {**sound["files"], "../x": sound["files"]["config.yaml"]},
        {**sound["files"], "/etc/passwd": sound["files"]["config.yaml"]},
        {name: entry for name, entry in sound["files"].items() if not name.startswith("members/0001/")},
        {name.replace("member.json", "membes.json"): entry for name, entry in sound["files"].items()},
        {name: entry for name, entry in sound["files"].items() if name != names[0]},
    ):
        for checksums in ({}, {"names_sha256": None, "entries_sha256": None}):
            path.write_text(json.dumps({**sound, "files": changed, **checksums}))
            result = call("evaluate", "runs/d")
            if not checksums or any(".." in name or name.startswith("/") or "membes" in name for name in changed):
                assert result.exit_code == 6, said(result)
                assert "manifest.json" in said(result)


def test_every_byte_of_the_manifest_counts(run: Path) -> None:
    """No bit of the manifest can change what is read: it is refused, or nothing depends on it."""
    path = run / "manifest.json"
    sound = path.read_bytes()
    before = contents_of(run)
    chance = random.Random(0)
    for _ in range(250):
        content = bytearray(sound)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(content))
        found: list[bool] = []
        error = refusal(lambda path, found=found: found.append(contents_of(path) == before), run)
        assert found in ([], [True]), "other contents"
        assert error is None or (error.exit_code == 6 and "manifest.json" in str(error)), error


def test_a_run_of_the_version_before_is_read(run: Path) -> None:
    """Without checksums of the manifest, without digests in member.json and dataset.json."""
    manifest = json.loads((run / "manifest.json").read_text())
    for name in [name for name in manifest["files"] if name.endswith("member.json") or name == "dataset.json"]:
        facts = json.loads((run / name).read_text())
        facts = {key: value for key, value in facts.items() if key not in ("files_sha256", "labels_sha256")}
        (run / name).write_text(json.dumps(facts, indent=1))
        manifest["files"][name] = entry_of(run / name)
    (run / "manifest.json").write_text(json.dumps({"version": 1, "files": manifest["files"]}, indent=1))
    calm = json.loads((run / "evaluation.json").read_text())
    assert json.loads(call("evaluate", "runs/d", "--json").stdout) == calm
    assert call("check", "runs/d").exit_code == 0
    assert call("train", "d.yaml", "-q").exit_code == 0
    assert json.loads((run / "manifest.json").read_text())["names_sha256"]


def entry_of(path: Path) -> dict[str, Any]:
    import hashlib

    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
