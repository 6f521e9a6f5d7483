"""`ensemble compare` on a real run, its members and foreign files, good and bad."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.errors import ConfigError, DataError
from ensemble.executors.inline import InlineExecutor
from ensemble.results.comparison import compare_items
from ensemble.run.run import judge_again, run_ensemble
from ensemble.storage import RunFolder

CONFIG: dict[str, Any] = {
    "name": "bag", "seed": 1, "num_members": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (16,)}, "training": {"epochs": 2, "lr": 3e-3},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = parse_experiment({**CONFIG, "output_dir": str(tmp_path_factory.mktemp("runs"))})
    return run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _: []).path


@pytest.fixture
def votes(run: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = RunFolder.read(run)
    return np.stack([folder.load_member(m).votes.test_NK for m in range(3)]), folder.load_labels().test_labels_N


def write_csv(path: Path, probs: np.ndarray, labels: np.ndarray | None) -> Path:
    names = [f"p{k}" for k in range(probs.shape[1])] + ([] if labels is None else ["label"])
    table = probs if labels is None else np.column_stack([probs, labels])
    np.savetxt(path, table, delimiter=",", header=",".join(names), comments="", fmt="%.9g")
    return path


def test_a_run_counts_as_its_own_judgement_says(run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())
    compared = compare_items([str(run), f"{run}:members"])
    assert [line.name for line in compared.lines[:4]] == ["bag", "bag:0", "bag:1", "bag:2"]
    headline = next(row for row in evaluation["leaderboard"] if row["headline"])
    members = [row for row in evaluation["leaderboard"] if row["kind"] == "member"]
    for line, row in zip(compared.lines, [headline, *members], strict=False):
        for name in ("test_error", "wrong", "lower", "upper", "validation_error", "nll", "brier", "ece"):
            assert getattr(line, name) == row[name], (line.name, name)


def test_a_run_is_found_by_its_name(run: Path) -> None:
    compared = compare_items(["bag:0", "bag:2"], root=run.parent)
    assert [line.name for line in compared.lines] == ["bag:0", "bag:2", "joint vote of 2 systems"]


def test_the_same_votes_from_any_file_are_the_same_line(run: Path, votes: Any, tmp_path: Path) -> None:
    probs_MNK, labels_N = votes
    np.savez(tmp_path / "theirs.npz", test_probs=probs_MNK, test_labels=labels_N)
    np.save(tmp_path / "theirs.npy", probs_MNK[1])
    write_csv(tmp_path / "theirs.csv", probs_MNK[1], labels_N)
    files = [str(tmp_path / f"theirs.{suffix}") for suffix in ("npz", "npy", "csv")]
    lines = compare_items([str(run), f"{run}:1", *files]).lines
    assert lines[2].nll == pytest.approx(lines[0].nll, rel=1e-12)
    assert (lines[2].wrong, lines[2].voters) == (lines[0].wrong, 3)
    for line in lines[3:5]:
        assert (line.wrong, line.voters) == (lines[1].wrong, 1)
        assert line.nll == pytest.approx(lines[1].nll, rel=1e-6)
    # Without any run the csv's or npz's own labels are enough, and so is --labels.
    assert compare_items(files[1:]).lines[0].wrong == lines[1].wrong
    np.save(tmp_path / "labels.npy", labels_N)
    np.save(tmp_path / "other.npy", probs_MNK[0])
    assert (
        compare_items([files[1], str(tmp_path / "other.npy")], labels=tmp_path / "labels.npy").lines[0].wrong
        == lines[1].wrong
    )


def test_bad_files_are_named_with_the_remedy(run: Path, votes: Any, tmp_path: Path) -> None:
    probs_MNK, labels_N = votes
    one, bad = probs_MNK[0], tmp_path / "bad.npy"

    def complaint(array: np.ndarray, match: str) -> None:
        np.save(bad, array)
        with pytest.raises(DataError, match=match):
            compare_items([str(run), str(bad)])

    complaint(np.log(one + 1e-9), r"bad\.npy: 355 rows are no probabilities, the first is row 0: .*apply softmax")
    complaint(one[:-1], r"bad\.npy has probabilities of 354 images, but there are 355 labels")
    complaint(
        np.tile(one[:, :5] / one[:, :5].sum(1, keepdims=True), 1), r"different numbers of classes \(.*: 10, .*: 5\)"
    )
    complaint(one.argmax(1), r"found int64 of shape 355; expected floats \[rows, classes\]")
    complaint(np.full_like(one, np.nan), "no probabilities")
    np.savez(tmp_path / "bad.npz", probs=one)
    with pytest.raises(DataError, match=r"bad\.npz: test_probs missing; found probs"):
        compare_items([str(run), str(tmp_path / "bad.npz")])
    (tmp_path / "bad.csv").write_text("zero,one\n0.5,0.5\n")
    with pytest.raises(DataError, match=r"first line is zero,one; expected the columns p0,p1"):
        compare_items([str(run), str(tmp_path / "bad.csv")])
    write_csv(tmp_path / "bad.csv", one, np.roll(labels_N, 1))
    with pytest.raises(DataError, match=r"different labels on \d+ test images, first image \d+: \d and \d"):
        compare_items([str(run), str(tmp_path / "bad.csv")])
    np.save(bad, one)
    with pytest.raises(DataError, match=r"nobody knows the true classes: add a run, test_labels .*--labels FILE"):
        compare_items([str(bad), str(bad)])
    with pytest.raises(DataError, match=r"no file .*absent\.npy"):
        compare_items([str(run), str(tmp_path / "absent.npy")])


def test_remedies_for_rows_that_are_no_probabilities_make_some(run: Path, votes: Any, tmp_path: Path) -> None:
    one = votes[0][0]
    divided = r"divide each row by its sum before saving"
    for array, remedy in (
        (one * 100, divided),
        (one * 2, divided),
        (np.log(one + 1e-9), "apply softmax"),
        (np.full_like(one, np.inf), "diverged"),
    ):
        np.save(tmp_path / "odd.npy", array)
        with pytest.raises(DataError, match=remedy):
            compare_items([str(run), str(tmp_path / "odd.npy")])
        if remedy == divided:
            np.save(tmp_path / "odd.npy", array / array.sum(axis=1, keepdims=True))
            assert compare_items([str(run), str(tmp_path / "odd.npy")]).lines[1].nll is not None


@pytest.mark.parametrize("content", ["hello", "", "p0,p1\n.5,.5\n", b"\x80\x04.", b"\x00\xff\x13\xfe" * 9], ids=repr)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_no_file_of_numpy_is_said_in_words_about_the_file(
    run: Path, tmp_path: Path, content: str | bytes, suffix: str
) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for words in ([str(run), str(path)], None):
        with pytest.raises(
            DataError, match=r"other\.np.: cannot be read.*it is (text|an empty file|a pickle|no file of numpy)"
        ) as error:
            compare_items(words) if words else load_dataset(DataConfig(name="arrays", path=str(path)))
        assert not any(word in str(error.value) for word in ("allow_pickle", "unsafely", "No data left"))


def test_objects_in_arrays_are_never_opened(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([None] * 4, object), allow_pickle=True)
    with pytest.raises(DataError, match=r"it holds Python objects, which are never opened"):
        compare_items([str(run), str(tmp_path / "o.npy")])


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join(",".join(f'"{value}"' for value in line.split(",")) for line in text.splitlines()),
        lambda text: text.replace(",", " , "),
        lambda text: text + "\n\n# made by a program\n",
    ],
    ids=["plain", "mark", "windows", "quoted", "blanks", "remarks"],
)
def test_every_spelling_of_a_csv_is_the_same_line(run: Path, votes: Any, tmp_path: Path, form: Any) -> None:
    probs_MNK, labels_N = votes
    write_csv(tmp_path / "plain.csv", probs_MNK[0], labels_N)
    (tmp_path / "other.csv").write_bytes(form((tmp_path / "plain.csv").read_text()).encode())
    first, second = compare_items([str(tmp_path / "plain.csv"), str(tmp_path / "other.csv")]).lines[:2]
    assert (first.wrong, first.nll) == (second.wrong, second.nll)


def test_endings_in_capitals_are_the_same_files(run: Path, votes: Any, tmp_path: Path) -> None:
    probs_MNK, labels_N = votes
    np.savez(tmp_path / "a.npz", test_probs=probs_MNK[0])
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    write_csv(tmp_path / "A.CSV", probs_MNK[0], labels_N)
    lines = compare_items([str(run), str(tmp_path / "A.NPZ"), str(tmp_path / "A.CSV")]).lines
    assert lines[1].wrong == lines[2].wrong


@pytest.mark.parametrize(("text", "said"), [
    ("p0,p1\n.5,.5\n60%,.4\n", r"line 3, column p0: found '60%'; expected a number"),
    ("p0,p1\n.5,.5\n\n,1\n", r"line 4, column p0: found nothing"),
    ('p0,p1\n"0,5",.5\n', r"line 2, column p0: found '0,5'; expected a number; write a point"),
    ("p0,p1\n.5,.5\n.5\n", r"line 3 has 1 values, the first line 2; expected as many"),
    ("p0;p1\n.5;.5\n", r"separated by ';': save it with commas"),
    ("p0\tp1\n.5\t.5\n", r"separated by '\\t': save it with commas"),
    ("p0,p1\n.5,'\ud800'\n".encode("utf-16", "surrogatepass"), "no UTF-8"),
], ids=repr)  # fmt: skip
def test_odd_lines_of_a_csv_are_named(run: Path, tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "bad.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=rf"bad\.csv.*{said}"):
        compare_items([str(run), str(tmp_path / "bad.csv")])


def test_words_that_mean_nothing(run: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run, RUN:INDEX"):
        compare_items([str(run), "nowhere"])
    with pytest.raises(ConfigError, match="no member 7; expected members or one of 0, 1, 2"):
        compare_items([str(run), f"{run}:7"])
    with pytest.raises(ConfigError, match="is one system"):
        compare_items([str(run)])
    with pytest.raises(ConfigError, match="--reference x: no such line; expected one of bag, bag:0"):
        compare_items([str(run), f"{run}:0"], reference="x")


def test_the_command_prints_table_json_and_markdown(run: Path, tmp_path: Path) -> None:
    words = ["compare", f"{run}:members", str(run), "--reference", "bag"]
    shown = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "table.md")])
    assert shown.exit_code == 0, shown.output
    assert "bag (reference)" in shown.output
    assert "joint vote of 6 networks" in shown.output
    assert (tmp_path / "table.md").read_text().count("\n|") == 1 + 4 + 2
    record = json.loads(CliRunner().invoke(main, [*words, "--json"]).output)
    assert (record["reference"], len(record["pairs"])) == ("bag", 6)


def test_a_table_as_latex_is_replaced_by_its_own_newer_version_only(run: Path, tmp_path: Path) -> None:
    words = ["compare", f"{run}:members", str(run), "--out", str(tmp_path / "table.tex")]
    for _ in range(2):
        assert CliRunner().invoke(main, words).exit_code == 0
    lines = (tmp_path / "table.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 1 + 4 + 2
    assert {line.count(" & ") for line in rows} == {9}
    assert rows[-1].startswith(r"\textbf{joint")
    other = CliRunner().invoke(main, [*words, "--aggregator", "hard"])
    assert other.exit_code == 2
    assert "is there already" in other.output


@pytest.mark.timed
def test_fifty_members_take_less_than_five_seconds(tmp_path: Path) -> None:
    labels_N = np.random.default_rng(0).integers(0, 10, 10_000)
    for m in range(50):
        probs = np.random.default_rng(m + 1).dirichlet(np.ones(10), 10_000).astype(np.float32)
        np.savez(tmp_path / f"m{m}.npz", test_probs=probs, test_labels=labels_N)
    started = time.monotonic()
    compared = compare_items([str(tmp_path / f"m{m}.npz") for m in range(50)])
    assert time.monotonic() - started < 5
    assert len(compared.pairs) == 50 * 49 // 2


def test_judged_again_and_kept(run: Path) -> None:
    before = json.loads((run / "evaluation.json").read_text())
    assert judge_again(run, "hard").aggregator == "hard"
    assert json.loads((run / "evaluation.json").read_text())["aggregator"] == "hard"
    judge_again(run)
    assert json.loads((run / "evaluation.json").read_text()) == before
    RunFolder.read(run).read_bytes("evaluation.json")  # its digest is the listed one
