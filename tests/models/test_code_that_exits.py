"""A file of one's own that ends the program: else a command would end there with exit code 0, as if its work were done."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ensemble.commands.main import main

CONFIG = """\
name: own
num_members: 1
method: {name: deep_ensemble}
data: {name: digits}
model: {name: mlp, widths: [8]}
training: {epochs: 1}
compute: {executor: inline, device: cpu}
tracking: {wandb: {mode: disabled}}
"""
FILES = {
    "on_import.py": "import sys\nsys.exit(0)\n",
    "when_called.py": "def make(**_):\n    raise SystemExit\n",
    "with_text.py": "import sys\ndef make(**_):\n    sys.exit('enough')\n",
    "in_a_row.py": "class Rows:\n    def __len__(self):\n        return 9\n    def __getitem__(self, row):\n        raise SystemExit(0)\n"
    "def make(**_):\n    return {'train': Rows(), 'test': Rows()}\n",
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(CONFIG)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    ("section", "file"),
    [(section, file) for section in ("model", "data") for file in FILES if (section, file) != ("model", "in_a_row.py")],
)
def test_no_command_ends_as_if_it_were_done(section: str, file: str) -> None:
    done = CliRunner().invoke(main, ["train", "own.yaml", "-q", f"{section}={{name: python, path: '{file}:make'}}"])
    assert done.exit_code in (2, 3), done.output
    assert file in done.output
    assert "it ends the program (sys.exit(" in done.output


@pytest.mark.parametrize("file", ["on_import.py", "when_called.py"])
def test_nor_does_the_table_of_layers(file: str) -> None:
    done = CliRunner().invoke(main, ["models", f"{file}:make"])
    assert done.exit_code == 2, done.output
    assert "it ends the program" in done.output


@pytest.mark.parametrize("after", [0, 1, 2, 4, 8, 16, 32])
def test_nor_does_a_network_that_ends_the_program_when_it_is_asked(after: int, tmp_path: Path) -> None:
    """At whichever call: while it is looked at, tried, compared with others, or trained."""
    (tmp_path / "net.py").write_text(
        "import sys, torch\n"
        "calls = []\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes, in_channels):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(784 * in_channels, num_classes)\n"
        "    def forward(self, images):\n"
        "        calls.append(None)\n"
        f"        if len(calls) > {after}:\n"
        "            sys.exit(0)\n"
        "        return self.layer(images.flatten(1))\n"
    )
    words = ["train", "own.yaml", "-q", "model={name: python, path: 'net.py:Net'}", "num_members=2"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code in (2, 5), done.output
    assert "it ends the program (sys.exit(0))" in " ".join(done.output.split())
