"""What is uploaded with a job: the configuration and what it names, nothing else of the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from ensemble.errors import ConfigError
from ensemble.launch import upload
from ensemble.launch.submit import described, requirements, submission
from ensemble.launch.upload import collect, staged

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary0123456789canary0123456789canary01"
SMALL = {"num_members": 1, "method": {"name": "bagging"}, "model": {"name": "mlp", "widths": [4]}}
FOLDER = {"name": "image_folder", "root": "photos", "image_size": 8}
TABLE = {
    "name": "table",
    "path": "labels.csv",
    "image_column": "file",
    "label_column": "class",
    "image_size": 8,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with pictures and other large things that no job needs."""
    folder = tmp_path / "work"
    (folder / "photos" / "cats").mkdir(parents=True)
    (folder / "photos" / "cats" / "one.png").write_bytes(b"\0" * 5000)
    (folder / "notes.txt").write_text("private")
    monkeypatch.chdir(folder)
    return folder


def write(path: Path, **sections: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**SMALL, **sections}))
    return path


def test_the_configuration_alone(here: Path) -> None:
    write(here / "my.yaml")
    found = collect(Path("my.yaml"), ("seed=3", "name=other"))
    assert list(found.files) == ["my.yaml"]
    assert (found.config, found.name, found.output_dir, found.program) == ("my.yaml", "other", "~/ensemble_runs", 0)
    with staged(found) as folder:
        assert [path.name for path in folder.rglob("*")] == ["my.yaml"]
    assert not folder.exists()


def test_own_modules_and_weights_keep_their_places_to_each_other(here: Path, tmp_path: Path) -> None:
    (here / "configs").mkdir()
    (here / "configs" / "nets.py").write_text("from blocks import block\ndef make(num_classes, in_channels): ...\n")
    (here / "configs" / "blocks.py").write_text("def block(): ...\n")
    (here / "configs" / "unused.py").write_text("")
    (here / "old.safetensors").write_bytes(b"weights")
    model = {"name": "python", "path": "nets.py:make", "weights": "../old.safetensors"}
    write(here / "configs" / "my.yaml", model=model)
    found = collect(Path("configs/my.yaml"))
    wanted = {"configs/my.yaml", "configs/nets.py", "configs/blocks.py", "old.safetensors"}
    assert set(found.files) == wanted
    # From elsewhere the same files lie to each other as they did; another folder's names do not matter.
    (tmp_path / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "elsewhere")
        moved = collect(here / "configs" / "my.yaml")
    assert set(moved.files) == {f"configuration/{name}" for name in wanted}
    assert moved.config == "configuration/configs/my.yaml"


def test_the_runs_of_repeats_lie_in_a_folder_of_their_name(here: Path) -> None:
    write(here / "my.yaml")
    assert collect(Path("my.yaml")).runs == ("my",)
    assert collect(Path("my.yaml"), ("repeats=2", "seed=3", "name=x")).runs == ("x/x_seed3", "x/x_seed4")
    with staged(found := collect(Path("my.yaml"), ("repeats=2",))) as folder:
        told = submission(found, folder, False, "2", ())["metadata"]
    assert json.loads(told["ensemble_runs"]) == ["my/my_seed0", "my/my_seed1"]


def test_a_file_of_class_names_travels_and_shards_are_the_cluster_s(here: Path) -> None:
    (here / "lists").mkdir()
    (here / "lists" / "classes.txt").write_text("rose\ntulip\n")
    shards = {
        "name": "webdataset", "root": "s3://bucket/lots", "urls": "shard-{000..003}.tar", "class_names": "lists/classes.txt", "image_size": 8
    }  # fmt: skip
    write(here / "my.yaml", data=shards)
    assert set(collect(Path("my.yaml")).files) == {"my.yaml", "lists/classes.txt"}
    write(here / "named.yaml", data=shards | {"class_names": ["rose", "tulip"]})
    assert set(collect(Path("named.yaml")).files) == {"named.yaml"}
    write(here / "gone.yaml", data=shards | {"class_names": "lists/none.txt"})
    with pytest.raises(ConfigError, match=r"data\.class_names: lists/none\.txt: is no file of this machine"):
        collect(Path("gone.yaml"))
    write(here / "there.yaml", data=shards | {"class_names": "/shared/classes.txt"})
    assert collect(Path("there.yaml")).there == ("data.root: s3://bucket/lots", "data.class_names: /shared/classes.txt")


@pytest.mark.parametrize(
    "data",
    [
        {"name": "image_folder", "root": "s3://bucket/photos", "image_size": 8},
        TABLE | {"path": "s3://bucket/labels.csv"},
        TABLE | {"root": "s3://bucket/photos"},
    ],
    ids=["folder", "table", "pictures of a table"],
)
def test_pictures_in_object_storage_are_looked_for_there(here: Path, data: dict[str, object]) -> None:
    (here / "labels.csv").write_text("file,class\na.png,x\n")
    write(here / "my.yaml", data=data)
    found = collect(Path("my.yaml"))
    address = next((key, text) for key, text in data.items() if str(text).startswith("s3:"))
    assert found.there == (f"data.{address[0]}: {address[1]}",)
    assert set(found.files) == {"my.yaml"} | ({"labels.csv"} if data.get("path") == "labels.csv" else set())


def test_weights_of_a_run_s_member_bring_what_is_said_of_them(here: Path) -> None:
    run = here / "runs" / "old"
    member = run / "members" / "0000"
    member.mkdir(parents=True)
    (member / "weights.safetensors").write_bytes(b"weights")
    (member / "member.json").write_text(json.dumps({"recipe": "lenet5"}))
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"name": "mlp"}}))
    (run / "dataset.json").write_text(json.dumps({"mean": [0.5], "std": [0.25]}))
    (member / "votes.npz").write_bytes(b"not needed")
    write(here / "my.yaml", model={**SMALL["model"], "weights": "runs/old/members/0000/weights.safetensors"})  # type: ignore[dict-item]
    own = "runs/old/members/0000"
    assert set(collect(Path("my.yaml")).files) == {
        "my.yaml", f"{own}/weights.safetensors", f"{own}/member.json", "runs/old/config.yaml", "runs/old/dataset.json"
    }  # fmt: skip


def test_probabilities_of_a_member_lie_beside_the_configuration(here: Path) -> None:
    groups = [
        {"count": 1, "model": SMALL["model"]},
        {"count": 1, "probabilities": "../theirs.npz"},
        {"count": 1, "name": "more", "probabilities": "/nowhere/here/but/there.npz"},
    ]
    (here / "theirs.npz").write_bytes(b"probabilities")
    write(here / "configs" / "my.yaml", members=groups, model=None, num_members=None)
    found = collect(Path("configs/my.yaml"))
    assert set(found.files) == {"configs/my.yaml", "theirs.npz"}
    assert found.there == ("probabilities: /nowhere/here/but/there.npz",)


def test_absolute_paths_are_of_the_cluster(here: Path) -> None:
    weights = "/nowhere/here/but/there.safetensors"
    write(
        here / "my.yaml",
        data={**FOLDER, "root": "/shared/photos"},
        model={**SMALL["model"], "weights": weights},  # type: ignore[dict-item]
        output_dir="/shared/runs",
    )
    found = collect(Path("my.yaml"))
    assert list(found.files) == ["my.yaml"]
    assert found.there == (f"model.weights: {weights}", "data.root: /shared/photos")
    assert found.output_dir == "/shared/runs"


@pytest.mark.parametrize("data", [FOLDER, TABLE], ids=["folder", "table"])
def test_pictures_are_not_sent_unasked(here: Path, data: dict[str, object]) -> None:
    (here / "photos" / "labels.csv").write_text("file,class\ncats/one.png,cat\n")
    data = {**data, **({"path": "photos/labels.csv"} if "path" in data else {})}
    write(here / "my.yaml", data=data)
    with pytest.raises(
        ConfigError, match=r"data\.root: photos: .*not uploaded.*data\.root=/shared/photos.*--with photos"
    ):
        collect(Path("my.yaml"))
    found = collect(Path("my.yaml"), more=[Path("photos")])
    assert set(found.files) == {"my.yaml", "photos/cats/one.png", "photos/labels.csv"}
    if "path" in data:  # a table whose pictures are on the cluster travels alone
        found = collect(Path("my.yaml"), ("data.root=/shared/photos",))
        assert set(found.files) == {"my.yaml", "photos/labels.csv"}


def test_files_of_data_travel_and_others_are_refused(here: Path) -> None:
    (here / "set.npz").write_bytes(b"arrays")
    further = [{"name": "more", "kind": "shifted", "data": {"name": "arrays", "path": "more.npz"}}]
    (here / "more.npz").write_bytes(b"arrays")
    write(here / "my.yaml", data={"name": "arrays", "path": "set.npz"}, evaluation={"sets": further})
    assert set(collect(Path("my.yaml")).files) == {"my.yaml", "set.npz", "more.npz"}
    with pytest.raises(ConfigError, match=r"data\.path: \.\./set\.npz: lies outside the working directory"):
        collect(Path("my.yaml"), ("data.path=../set.npz",))
    with pytest.raises(ConfigError, match=r"data\.path: none\.npz: is no file of this machine"):
        collect(Path("my.yaml"), ("data.path=none.npz",))
    os.mkfifo(here / "pipe")
    (here / "bare").mkdir()
    (here / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "bare", "endless"):
        with pytest.raises(ConfigError, match=f"--with {name}: is no regular file"):
            collect(Path("my.yaml"), more=[Path(name)])
    with pytest.raises(ConfigError, match="--with missing: is not there"):
        collect(Path("my.yaml"), more=[Path("missing")])
    with pytest.raises(ConfigError, match=r"--with \.\.: expected a file or folder below"):
        collect(Path("my.yaml"), more=[Path("..")])


def test_more_than_ray_takes_is_refused_before_it_is_sent(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MOST_BYTES", 4000)
    write(here / "my.yaml")
    collect(Path("my.yaml"))
    with pytest.raises(ConfigError, match=r"the largest is photos/cats/one\.png"):
        collect(Path("my.yaml"), more=[Path("photos")])


def test_mistakes_are_said_before_anything_is_sent(here: Path) -> None:
    write(here / "my.yaml", trainig={})
    with pytest.raises(ConfigError, match=r"my\.yaml:\d+: trainig"):
        collect(Path("my.yaml"))
    with pytest.raises(ConfigError, match="missing"):
        collect(Path("missing.yaml"))


def test_the_program_goes_along_from_its_repository_and_when_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect(Path("quickstart")).program == 0
    asked = collect(Path("quickstart"), install=True)
    monkeypatch.chdir(ROOT)
    found = collect(Path("configs/quickstart.yaml"))
    assert found.config == "configs/quickstart.yaml"
    program = {name for name in found.files if name.startswith("ensemble/")}
    assert {"ensemble/__init__.py", "ensemble/launch/ray_job.py", "ensemble/configs/quickstart.yaml"} <= program
    assert program == {name for name in asked.files if name.startswith("ensemble/")}
    assert not [name for name in found.files if "__pycache__" in name or name.startswith(("tests/", "docs/", ".git"))]
    lines = list(described(found))
    assert lines[0].startswith(f"uploading {len(found.files)} files, ")
    assert lines[-1].endswith(f"ensemble/ (the program, {found.program} files)")


def test_nothing_secret_is_submitted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("RAY_AUTH_TOKEN", CANARY)
    write(here / "my.yaml")
    arguments = submission(collect(Path("my.yaml")), here, True, "2.60.0", ("seed=3",))
    assert CANARY not in json.dumps(arguments)
    assert arguments["entrypoint"] == "python -m ensemble.launch.ray_job my.yaml seed=3"
    metadata = {"ensemble": "my", "ensemble_output_dir": "~/ensemble_runs", "ensemble_runs": '["my"]'}
    assert arguments["metadata"] == metadata
    assert arguments["runtime_env"]["working_dir"] == str(here)
    packages = arguments["runtime_env"]["pip"]["packages"]
    assert packages == requirements("2.60.0")
    assert "ray[default,train]==2.60.0" in packages
    assert any(line.startswith("torch==") and "+" not in line for line in packages)
    assert not any(line.startswith(("pytest", "onnx", "timm")) for line in packages)
