"""What is written is what is read: text stays text, digits are the number a person reads, nothing is read by half."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensemble.config import Loaded, load_config
from ensemble.config.keys import all_keys, dotted, kind_of
from ensemble.config.loading import flat_values
from ensemble.errors import ConfigError
from tests.amounts import examples

GOOD = """
num_members: 4
method: {name: bagging, sample_fraction: 0.5}
data: {name: mnist, root: somewhere, download: false}
model: {name: cnn, widths: [16, 32], activation: relu}
training:
  lr: 1e-3            # a comment
  schedule: cosine
  augmentation: {rotation_degrees: 5, shift: 0.1}
tracking:
  wandb: {mode: disabled, entity: me, tags: [a, "b c"]}
"""
# Words that say a message speaks of the program's innards and not of what somebody wrote.
LIBRARY_WORDS = re.compile(r"constructor|pickle|NoneType|datetime|dtype\('O'\)|Traceback|<class|object at 0x|pydantic")
# Characters that mean something to YAML, to a shell or to Python, and a few that look harmless and are not.
ODD = "#&*!|>%@`'\"{}[],:?-~<=$\\/ \t0123456789.eExo_+nulyestrf" + "\u00b2\u0663\u2028\x85\ufeff\u00e9\u4e2d"
FAST = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(GOOD)
    return path


def value(loaded: Loaded, key: str) -> object:
    return flat_values(loaded.experiment)[key]


def read(path: Path, *overrides: str) -> Loaded | str:
    """What was loaded, or the message of the refusal."""
    try:
        return load_config(path, overrides)
    except ConfigError as error:
        return str(error)


@settings(FAST, max_examples=examples(250))
@given(
    key=st.sampled_from(["data.root", "output_dir", "tracking.wandb.entity", "name"]),
    text=st.one_of(st.text(alphabet=ODD, max_size=12), st.text(max_size=8), st.text(string.printable, max_size=8)),
)
def test_a_text_key_gets_the_text_of_the_command_line_or_is_refused(good: Path, key: str, text: str) -> None:
    found = read(good, f"{key}={text}")
    if isinstance(found, str):
        assert not LIBRARY_WORDS.search(found)
        return
    expected: object = None if text in ("null", "Null", "NULL") else text
    if key == "output_dir" and text.startswith("~"):
        expected = str(Path(text).expanduser())
    assert value(found, key) == expected


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("data.root", "set #2"), ("data.root", "&x"), ("data.root", ">"), ("data.root", "*x"), ("data.root", "!a b"),
        ("data.root", "{a: 1}"), ("data.root", "[1, 2]"), ("data.root", "a: b"), ("data.root", "010"), ("data.root", "yes"),
        ("data.root", "2024-01-01"), ("data.root", "1e3"), ("data.root", "12:30:00"), ("data.root", "~"), ("data.root", "="),
        ("data.root", "<<"), ("data.root", "0x1F"), ("data.root", "- a"), ("data.root", " lead and trail "),
        ("name", "2024"), ("name", "007"), ("name", "1e3"), ("name", "true"), ("name", "no"),
        ("tracking.wandb.project", "1.10"),
    ],
)  # fmt: skip
def test_texts_that_yaml_would_make_something_else_of(good: Path, key: str, text: str) -> None:
    assert value(load_config(good, [f"{key}={text}"]), key) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("010", 10), ("0008", 8), ("10", 10), ("+5", 5), ("0", 0)],
)
def test_digits_are_the_number_that_a_person_reads(good: Path, text: str, expected: int) -> None:
    assert value(load_config(good, [f"seed={text}"]), "seed") == expected
    good.write_text(f"{GOOD}seed: {text}\n")
    assert value(load_config(good), "seed") == expected


@pytest.mark.parametrize(
    "text", ["0x10", "0o17", "1_000", "12:30", "12:30:00", "1,5", "\u0663", "\u00b2", "1e", "yes", "five"]
)
def test_what_is_no_number_is_refused_as_one(good: Path, text: str) -> None:
    assert "seed" in str(read(good, f"seed={text}"))
    assert isinstance(read(good, f"seed={text}"), str)


@pytest.mark.parametrize(
    ("text", "expected"), [("1e-3", 1e-3), ("1.e2", 100.0), (".5", 0.5), ("00.5", 0.5), ("3", 3.0)]
)
def test_reals(good: Path, text: str, expected: float) -> None:
    assert value(load_config(good, [f"training.lr={text}"]), "training.lr") == expected


@settings(FAST, max_examples=examples(100))
@given(number=st.integers(0, 2**63 - 1), zeros=st.integers(0, 5))
def test_every_whole_number_comes_back(good: Path, number: int, zeros: int) -> None:
    assert value(load_config(good, [f"seed={'0' * zeros}{number}"]), "seed") == number


@pytest.mark.parametrize("key", ["data.max_train_rows", "data.root", "seed", "model", "name", "training.betas"])
@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_an_empty_value_is_refused_and_null_is_null(good: Path, key: str, text: str) -> None:
    found = read(good, f"{key}={text}")
    assert isinstance(found, str)
    assert "null" in found


def test_null_is_null(good: Path) -> None:
    loaded = load_config(good, ["data.max_train_rows=null", "data.root=null", "tracking.wandb.entity=null"])
    assert [value(loaded, key) for key in ("data.max_train_rows", "data.root", "tracking.wandb.entity")] == [None] * 3
    assert "name = null: expected text" in str(read(good, "name=null"))


@pytest.mark.parametrize("line", ["data:", "seed:", "output_dir:", "members:\n  -", "data: {root: , name: mnist}"])
def test_a_key_without_a_value_in_a_file_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(f"num_members: 2\nmethod: {{name: bagging}}\nmodel: {{name: lenet5}}\n{line}\n")
    found = read(path)
    assert isinstance(found, str)
    assert re.search(r"some\.yaml:[45]: (the key '\w+' has no value|an entry without a value)", found)


@pytest.mark.parametrize(
    "text", ["5 # five", "&a 5", "!!int 5", "5\n--- 6", "[1, 2] # two", "|\n 5", "%YAML 1.1\n---\n5", "{a: &b 1}"]
)
def test_a_value_of_which_yaml_reads_a_part_is_refused(good: Path, text: str) -> None:
    found = read(good, f"seed={text}")
    assert isinstance(found, str)
    assert "part" in found or "not valid YAML" in found


def test_text_keys_of_a_file_are_text_as_well(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(
        GOOD.replace("entity: me", "entity: 0012").replace("tags: [a", "tags: [1, 007, 1e3, yes") + "name: 2024\n"
    )
    values = flat_values(load_config(path).experiment)
    assert values["name"] == "2024"
    assert values["tracking.wandb.entity"] == "0012"
    assert values["tracking.wandb.tags"] == ["1", "007", "1e3", "yes", "b c"]


def test_a_tilde_in_a_file_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(GOOD.replace("root: somewhere", "root: ~"))
    assert "the home folder to a shell" in str(read(path))
    path.write_text(GOOD.replace("root: somewhere", 'root: "~"'))
    assert value(load_config(path), "data.root") == "~"


def test_merge_keys_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(GOOD + "failures: &f {crash_retries: 1}\ncompute: {<<: *f, slots: 2}\n")
    found = str(read(path))
    assert "some.yaml:13: merging by << is not supported" in found
    assert not LIBRARY_WORDS.search(found)


LINES = GOOD.splitlines(keepends=True)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A configuration with some characters or lines lost, doubled, moved or replaced."""
    lines = [LINES[i] for i in draw(st.lists(st.integers(0, len(LINES) - 1), min_size=3, max_size=len(LINES) + 2))]
    text = "".join(lines) if draw(st.booleans()) else GOOD
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        inserted = draw(st.one_of(st.text(ODD, max_size=3), st.sampled_from(NASTY)))
        text = text[:place] + inserted + text[place + draw(st.integers(0, 4)) :]
    return text


NASTY = (
    "!!python/object:os.system", "!!timestamp 2024-01-01", "!!binary aaa", "!!set {a}", "<<: *x", "&a [*a]", "*missing",
    "\x00", "\x1b", '"\\ud800"', '"\\UFFFFFFFF"', "? [a, b]\n: c\n", "? {a: b}\n", "2024-01-01", "9" * 500, "1e999", ".nan",
    "[" * 300, "{a: " * 50, "\n---\n", "\n...\n", "%TAG ! x\n", "''", '""', "|\n", "- ", "null", "~", "true", "12:30:45",
)  # fmt: skip


@settings(FAST, max_examples=examples(600))
@given(text=damaged())
def test_a_damaged_file_is_read_or_refused_in_plain_words(good: Path, text: str) -> None:
    good.write_text(text, encoding="utf-8")
    found = read(good)
    if isinstance(found, str):
        assert not LIBRARY_WORDS.search(found), found


@settings(FAST, max_examples=examples(300))
@given(
    key=st.sampled_from([".".join(key) for key in all_keys() if key[0] != "members"]),
    text=st.one_of(st.sampled_from(NASTY), st.text(ODD, min_size=1, max_size=10)),
)
def test_any_value_of_any_key_is_taken_or_refused_in_plain_words(good: Path, key: str, text: str) -> None:
    found = read(good, f"{key}={text}")
    if isinstance(found, str):
        assert not LIBRARY_WORDS.search(found), found


@settings(FAST, max_examples=examples(100))
@given(override=st.text(ODD, max_size=15))
def test_any_override_is_taken_or_refused(good: Path, override: str) -> None:
    read(good, override)


def test_the_schema_says_which_keys_are_text() -> None:
    for key in ("name", "output_dir", "data.root", "training.optimizer", "model.activation", "tracking.wandb.tags.0"):
        assert kind_of(dotted(key)) == "text", key
    for key in ("seed", "training.schedule", "training.lr", "model.layers.0.width", "data", "tracking.wandb.tags", "x"):
        assert kind_of(dotted(key)) == "yaml", key
    assert kind_of(("sweep", "axes", "training.optimizer", 0)) == "text"
    assert kind_of(("sweep", "axes", "training.lr", 0)) == "yaml"
