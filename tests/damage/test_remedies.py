"""Whatever is said of a damaged file names it and says what to do, and what it says to do helps."""

from __future__ import annotations

import ast
import errno
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ensemble
from ensemble.storage.remedies import name_in_run, unfit, unreadable, what_to_do
from tests.damage.commands import call, said
from tests.damage.test_matrix import DAMAGES, FILES, MEMBER

Relist = Callable[[Path, str], None]
REMEDY = re.compile(
    r"\b(restore|remove|start|give|check|use|free|wait|move|put|fetch again|submit|choose|correct|create|stop|stop it|"
    r"elsewhere|install|read again|raise|try again)\b|ensemble (check|evaluate|runs|cost)|what_to_do|REMEDY",
    re.IGNORECASE,
)
# Messages that pass on another one, which has its remedy.
PASSED_ON = {"str(error).replace(folder, self.place)", "f'{source.place}: {row.problem}'", "f'{where}: {error}'", "str(error).replace(plain, self.address)"}  # fmt: skip


def messages() -> Iterator[tuple[str, str]]:
    """Where a StorageError is made, and what is written there."""
    root = Path(ensemble.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("StorageError", "Damaged")
            ):
                yield f"{path.relative_to(root)}:{node.lineno}", ast.unparse(node.args[-1]).replace("\\n", " ")


def test_every_message_about_storage_says_what_to_do() -> None:
    found = list(messages())
    assert len(found) > 50
    without = [
        f"{where}: {text}"
        for where, text in found
        if text not in PASSED_ON
        and not REMEDY.search(text)
        # `storage.event_lines` says the rest of these two; `unreadable` has a remedy for every cause, tested below; of `no_run` tests/cli/test_no_run.py
        and not where.startswith(("events.py", "storage/no_run.py", "storage/remedies.py"))
    ]
    assert not without, "\n".join(without)


@pytest.mark.parametrize("cause", sorted(errno.errorcode))
def test_every_cause_of_the_system_has_a_remedy(cause: int) -> None:
    assert REMEDY.search(str(unreadable(Path("runs/d/plan.json"), OSError(cause, "why"))).partition("why; ")[2])


def test_a_file_is_known_by_where_it_lies() -> None:
    for name in (*FILES, "baseline/votes.npz", "controls/longer/member.json", "votes/noisy/set.json", "shared/net.safetensors", "failures/x.txt"):  # fmt: skip
        assert name_in_run(Path("runs/baseline") / name) == name
        assert str(unfit(Path("runs/d") / name, "no JSON")) == (
            f"runs/d/{name}: damaged: no JSON; {what_to_do(name, remove=True)}"
        )


def other_arrays(path: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, other=np.zeros(3))
    return buffer.getvalue()


# Contents with a right checksum: of another kind, and of the right kind that says something else.
CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "noise": lambda _: b"\xff\xfe\x00noise\n\x80",
    "other": lambda path: other_arrays(path) if path.suffix == ".npz" else b"[]\n",
}
COMMANDS = {
    "evaluate": ("evaluate", "runs/d"), "compare": ("compare", "runs/d", "runs/d:0"), "predict": ("predict", "runs/d", "x.png"),
    "report": ("report", "runs/d", "--out", "page.html"), "card": ("card", "runs/d"), "export": ("export", "runs/d", "--format", "torch_export", "--out", "vote.pt2"),
    "cost": ("cost", "runs/d", "--rows", "8"), "wandb": ("wandb", "runs/d", "--mode", "offline"), "watch": ("watch", "runs/d"),
    "runs": ("runs", "runs/d"), "write": ("evaluate", "runs/d", "--write"), "check": ("check", "runs/d"),
}  # fmt: skip


LONG = ("wandb", "write", "evaluate", "export", "report")  # these are asked about every third file


def require_helpful(words: tuple[str, ...], name: str, exit_code: int, text: str) -> None:
    assert exit_code in {0, *range(2, 7)}, (words, name, text)
    if exit_code:
        assert name.rpartition("/")[2] in text, (words, name, text)
        assert REMEDY.search(text), (words, name, text)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_says_of_a_damaged_file_helps(run: Path, relist: Relist, command: str) -> None:
    words = COMMANDS[command]
    (Path("x.png")).write_bytes(b"")
    manifest = (run / "manifest.json").read_bytes()
    for number, name in enumerate(FILES):
        if command in LONG and number % 3 != LONG.index(command) % 3:
            continue
        sound = (run / name).read_bytes()
        for damage, change in DAMAGES.items():
            change(run / name)
            result = call(*words)
            if command not in ("predict", "cost") or result.exit_code == 6:  # the picture is none
                require_helpful((*words, damage), name, result.exit_code, said(result))
            (run / name).write_bytes(sound)
            (run / "manifest.json").write_bytes(manifest if name != "manifest.json" else sound)
        for damage, content in CONTENTS.items():
            (run / name).write_bytes(content(run / name))
            if name != "manifest.json":
                relist(run, name)
            result = call(*words)
            if result.exit_code == 6:
                require_helpful((*words, damage), name, result.exit_code, said(result))
            assert result.exit_code in {0, *range(2, 7)}, (words, name, damage, said(result))
            (run / name).write_bytes(sound)
            (run / "manifest.json").write_bytes(manifest)
        (run / name).unlink()
        (run / name).mkdir()
        result = call(*words)
        if command not in ("predict", "cost") or result.exit_code == 6:
            require_helpful((*words, "folder"), name, result.exit_code, said(result))
        (run / name).rmdir()
        (run / name).write_bytes(sound)


@pytest.mark.parametrize("damage", CONTENTS)
def test_the_remedy_helps(run: Path, relist: Relist, damage: str) -> None:
    """Where a message says that removing the file and another start mend the run, they do."""
    shutil.copytree(run, "sound")
    tried = 0
    for name in FILES:
        if name == "manifest.json":
            continue
        (run / name).write_bytes(CONTENTS[damage](run / name))
        relist(run, name)
        text = said(call("check", "runs/d"))
        if "remove it and start" in text:
            tried += 1
            (run / name).unlink()
            result = call("train", "d.yaml", "-q", "--json")
            assert result.exit_code == 0, (name, said(result))
            assert call("check", "runs/d").exit_code == 0, name
            before = json.loads((Path("sound") / "evaluation.json").read_text())
            after = json.loads((run / "evaluation.json").read_text())
            assert before["leaderboard"][0]["test_error"] == after["leaderboard"][0]["test_error"]
        shutil.rmtree(run)
        shutil.copytree("sound", run)
    assert tried >= 5


def test_a_start_mends_a_damaged_digest_of_what_it_can_make_again(run: Path) -> None:
    """One digit of the manifest is another: of a member it costs that member's training, of what nothing makes again the message names it."""
    sound = (run / "manifest.json").read_text()
    for name in FILES:
        if name == "manifest.json":
            continue
        manifest = json.loads(sound)
        digest = manifest["files"][name]["sha256"]
        manifest["files"][name]["sha256"] = ("0" if digest[0] != "0" else "1") + digest[1:]
        (run / "manifest.json").write_text(json.dumps(manifest))
        result = call("evaluate", "runs/d")
        assert result.exit_code == 6
        assert name in said(result)
        assert "ensemble train" in said(result)
        result = call("train", "d.yaml", "-q")
        if name in ("config.yaml", "plan.json", "labels.npz", "dataset.json", "events.jsonl"):
            require_helpful(("train",), name, result.exit_code, said(result))
            (run / "manifest.json").write_text(sound)
            continue
        assert result.exit_code == 0, (name, said(result))
        assert call("check", "runs/d").exit_code == 0, name
        sound = (run / "manifest.json").read_text()


def test_several_damaged_files_at_once(run: Path) -> None:
    for name in (f"{MEMBER}/votes.npz", "plan.json", "method.json"):
        (run / name).unlink()
    result = call("report", "runs/d", "--out", "page.html")
    assert result.exit_code == 6
    assert "ensemble check runs/d" in said(result)
    assert result.stderr.count("restore it from a copy") == 3
