"""Pictures by the rows of a table: parts, groups, and every odd table named."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, load_dataset, split_of
from ensemble.errors import DataError

NAMES = ["file", "class", "part", "patient"]


def pictures(root: Path, count: int) -> list[str]:
    """Pictures whose grey level tells which they are."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    files = [f"images/{i:03d}.png" for i in range(count)]
    for i, file in enumerate(files):
        Image.new("L", (8, 8), i).save(root / file)
    return files


def rows_of(files: Sequence[str], parts: Sequence[str] = ("",)) -> list[list[str]]:
    return [[file, "yn"[i % 2], parts[i % len(parts)] or "train", f"p{i // 4:02d}"] for i, file in enumerate(files)]


def write(path: Path, rows: Sequence[Sequence[Any]], names: Sequence[str] = NAMES) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([names, *rows])
    return path


def config(path: Path, **keys: object) -> DataConfig:
    given = {"image_column": "file", "label_column": "class", "image_size": 8, "channels": 1, **keys}
    return DataConfig(name="table", path=str(path), **given)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))


def warned(data: Dataset) -> list[str]:
    """Warnings, but for the one about the few grey levels of these pictures."""
    texts = [remark.text for remark in data.account.remarks() if remark.warning]
    return [text for text in texts if "use only the levels" not in text]


def levels(data: Dataset, part: str) -> list[int]:
    return [int(image[0, 0, 0]) for image in getattr(data, f"{part}_images_NCHW")]


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "csv with a mark", "root elsewhere", "absolute"])
def test_every_form_of_a_table_gives_the_same_rows(form, tmp_path):
    files = pictures(tmp_path / "photos", 20)
    folder = tmp_path if form == "root elsewhere" else tmp_path / "photos"
    rows = rows_of([str(tmp_path / "photos" / file) for file in files] if form == "absolute" else files)
    keys = {"root": str(tmp_path / "photos")} if form == "root elsewhere" else {}
    path = write(folder / f"labels.{'tsv' if form == 'tsv' else 'csv'}", rows)
    if form == "csv with a mark":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    if form == "parquet":
        import pyarrow
        from pyarrow import parquet

        path = folder / "labels.parquet"
        parquet.write_table(pyarrow.table(dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))), path)
    data = load_dataset(config(path, **keys))
    assert data.class_names == ("n", "y")
    assert sorted(levels(data, "train") + levels(data, "test")) == list(range(20))
    for part in ("train", "test"):
        expected = [1 - level % 2 for level in levels(data, part)]
        assert getattr(data, f"{part}_labels_N").tolist() == expected
        names = [Path(file).name for file in getattr(data, f"{part}_files")]
        assert names == [f"{level:03d}.png" for level in levels(data, part)]
    assert len(data.test_labels_N) == 4


def test_parts_are_given_in_the_words_of_folders(tmp_path):
    files = pictures(tmp_path, 24)
    path = write(tmp_path / "labels.csv", rows_of(files, ("Training", "train", "val", "Validation", "TEST", "test")))
    data = load_dataset(config(path, split_column="part"))
    assert levels(data, "train") == [*(i for i in range(24) if i % 6 < 2), *(i for i in range(24) if i % 6 in (2, 3))]
    assert levels(data, "test") == [i for i in range(24) if i % 6 > 3]
    for seed in (0, 1):
        split = split_of(data, config(path, split_column="part"), seed)
        assert split.validation_rows.tolist() == list(range(8, 16))
        assert split.train_rows.tolist() == list(range(8))
    thin = DataConfig(**config(path, split_column="part").model_dump(exclude={"max_train_rows"}), max_train_rows=20)
    assert split_of(data, thin, 0).validation_rows.tolist() == list(range(8, 16))
    told = [remark.text for remark in data.account.remarks()]
    assert [text.split(":")[0] for text in told[:3]] == ["train", "validation", "test"]
    keys = {"split_column": "part", "validation_fraction": 0.3}
    assert warned(load_dataset(config(path, **keys))) == [
        "data.validation_fraction has no effect, since a validation part is given"
    ]


def test_a_validation_part_without_a_test_part(tmp_path):
    files = pictures(tmp_path, 40)
    path = write(tmp_path / "labels.csv", rows_of(files, ("train", "train", "train", "train", "val", "val")))
    data = load_dataset(config(path, split_column="part"))
    split = split_of(data, config(path, split_column="part"), 0)
    train = levels(data, "train")
    assert [train[row] for row in split.validation_rows] == [i for i in range(40) if i % 6 > 3]
    assert len(data.test_labels_N) == 6  # a fifth of the 28 training rows, by class
    assert not set(levels(data, "test")) & {train[row] for row in split.validation_rows}


def test_a_damaged_picture_of_the_validation_part_moves_no_other(tmp_path):
    files = pictures(tmp_path, 24)
    for name in ("images/002.png", "images/000.png"):
        (tmp_path / name).write_bytes(b"")
    path = write(tmp_path / "labels.csv", rows_of(files, ("train", "train", "val", "val", "test", "test")))
    for storage in ("memory", "mapped"):
        data = load_dataset(config(path, split_column="part", on_bad_image="skip", storage=storage))
        split = split_of(data, config(path), 0)
        assert [levels(data, "train")[row] for row in split.validation_rows] == [3, 8, 9, 14, 15, 20, 21]
        assert [levels(data, "train")[row] for row in split.train_rows] == [1, 6, 7, 12, 13, 18, 19]


@pytest.mark.parametrize("given", [False, True], ids=["all divided", "test given"])
def test_groups_stay_together(given, tmp_path):
    files = pictures(tmp_path, 200)
    rows = rows_of(files, ("train",))
    if given:
        for row in rows[:40]:
            row[2] = "test"
    path = write(tmp_path / "labels.csv", rows)
    keys = {"group_column": "patient"} | ({"split_column": "part"} if given else {})
    group = {i: i // 4 for i in range(200)}
    seen = set()
    for seed in range(4):
        data = load_dataset(config(path, **keys))
        split = split_of(data, config(path, **keys), seed)
        train = levels(data, "train")
        parts = [
            [train[row] for row in split.train_rows],
            [train[row] for row in split.validation_rows],
            levels(data, "test"),
        ]
        groups = [{group[i] for i in part} for part in parts]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]
        assert sorted(i for part in parts for i in part) == list(range(200))
        assert len(parts[2]) == 40
        assert len(parts[1]) == 16  # a tenth of 160, in groups of 4
        for part in parts:
            assert sum(i % 2 for i in part) * 2 == len(part)
        seen.add(tuple(parts[1]))
    assert len(seen) > 1


def test_the_same_groups_are_held_back_whatever_the_order_of_rows(tmp_path):
    rows = rows_of(pictures(tmp_path, 80))
    held = []
    for order in (rows, rows[::-1]):
        data = load_dataset(config(write(tmp_path / "labels.csv", order), group_column="patient"))
        held.append(sorted(levels(data, "test")))
    assert held[0] == held[1]


def test_numbers_are_classes_in_their_order(tmp_path):
    files = pictures(tmp_path, 44)
    path = write(tmp_path / "labels.csv", [[file, i % 11, "train", ""] for i, file in enumerate(files)])
    data = load_dataset(config(path))
    assert data.class_names == tuple(map(str, range(11)))
    np.testing.assert_array_equal(data.train_labels_N, [level % 11 for level in levels(data, "train")])


def test_files_and_groups_in_several_parts_are_said(tmp_path):
    files = pictures(tmp_path, 24)
    rows = rows_of(files, ("train", "train", "test", "test"))
    path = write(tmp_path / "labels.csv", [*rows, [files[0], "y", "test", "p00"], [files[4], "n", "train", "p01"]])
    data = load_dataset(config(path, split_column="part", group_column="patient"))
    assert [text.split(":")[0] for text in warned(data)] == [
        f"2 files stand in several rows, 1 of them with several classes, such as {tmp_path / files[4]}",
        f"1 files stand in several parts, such as {tmp_path / files[0]}",
        "6 groups are in several of the given parts, such as p00, p01, p02",
    ]


def test_rows_of_one_file_stay_together_however_it_is_written(tmp_path):
    files = pictures(tmp_path, 40)
    rows = [
        [f"{start}{file}", "yn"[i % 2], "", ""] for i, file in enumerate(files) for start in ("", "./", "images/../")
    ]
    table = config(write(tmp_path / "labels.csv", rows))
    data = load_dataset(table)
    assert warned(data) == [
        "40 files stand in several rows; the rows of a file stay together where a part is split off"
    ]
    for seed in range(3):
        split, train = split_of(data, table, seed), levels(data, "train")
        parts = [
            {train[row] for row in split.train_rows},
            {train[row] for row in split.validation_rows},
            set(levels(data, "test")),
        ]
        assert [len(part) for part in parts] == [28, 4, 8]
        assert len(set.union(*parts)) == 40


def test_a_missing_file_is_a_bad_picture(tmp_path):
    files = pictures(tmp_path, 20)
    (tmp_path / files[3]).unlink()
    path = write(tmp_path / "labels.csv", rows_of(files))
    with pytest.raises(DataError, match=r"1 of 20 pictures cannot be used(.|\n)*003.png: no such file"):
        load_dataset(config(path))
    for storage in ("memory", "mapped"):
        data = load_dataset(config(path, on_bad_image="skip", storage=storage))
        assert sorted(levels(data, "train") + levels(data, "test")) == [i for i in range(20) if i != 3]


def odd(text: str) -> bytes:
    return text.replace("|", "\n").encode()


ODD = {  # content of the table -> what is said, with keys of the configuration
    odd("file,class|"): ("found no rows", {}),
    odd(""): ("found an empty file", {}),
    odd("path,class|a.png,y|"): (r"no column 'file' \(data.image_column\); found 'path', 'class'", {}),
    odd("file,class|a.png|"): (r"found 1 values in row 1, but 2 columns; .* 1 such rows", {}),
    odd("file,class|a.png,y|b,c.png,n|"): (r"found 3 values in row 2, but 2 columns.*belong in quotes", {}),
    odd("file,class|a.png,|b.png,n|"): (r"column class: found nothing in 1 rows \(row 1\).*data.label_column", {}),
    odd("file,class|,y|b.png,n|"): (r"column file: found nothing in 1 rows \(row 1\).*data.image_column", {}),
    odd("file,class|a.png,y|b.png,y|"): ("found only y; expected at least two classes", {}),
    odd("file,class,class|a.png,y,y|"): ("found two columns class", {}),
    odd("file,class,part|a,y,train|b,n,later|"): (
        r"column part: found 'later'; expected train, val or test",
        {"split_column": "part"},
    ),
    odd("file,class,part|a,y,test|b,n,test|"): ("found no row of train", {"split_column": "part"}),
    odd("file,class,part|a,y,train|b,n,train|c,m,test|"): (
        "found m in rows for validation or test",
        {"split_column": "part"},
    ),
    odd('file,class|"a.png,y|'): ("cannot be read as a table from line 2 on: a quote is opened and never closed", {}),
    odd('file,class|a.png,y|b.png,y|"c.png,n|d.png,n|'): ("from line 4 on: a quote is opened and never closed", {}),
    odd(f"file,class|a.png,y|b.png,{'n' * 140_000}|"): (
        "from line 3 on: a value is longer than 131,072 characters",
        {},
    ),
    odd("File,Class|a.png,y|"): ("found 'File', 'Class'; set data.image_column to one of them", {}),
    odd("file;class|a.png;y|"): ("seem to be separated by ';'", {}),
    odd("file,class|a.png,y|b\0.png,n|"): (r"column file: found a NUL character in 1 rows \(row 2\)", {}),
    "file,class\na.png,Käse\n".encode("latin-1"): ("no UTF-8", {}),
}


@pytest.mark.parametrize("content", ODD)
def test_odd_tables_are_named(content, tmp_path):
    (tmp_path / "labels.csv").write_bytes(content)
    expected, keys = ODD[content]
    with pytest.raises(DataError, match=f"labels.csv.*{expected}"):
        load_dataset(config(tmp_path / "labels.csv", **keys))


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("labels.xlsx", b"PK", "found the ending '.xlsx'"), ("labels.parquet", b"PAR1 no", "cannot be read as Parquet"),
    ("labels.tsv", b"file,class\na.png,y\n", r"seem to be separated by ','.*as \.csv"),
])  # fmt: skip
def test_other_files_are_no_tables(name, content, expected, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected):
        load_dataset(config(tmp_path / name))
    with pytest.raises(DataError, match=r"data\.path: no file"):
        load_dataset(config(tmp_path / "none.csv"))


def test_pictures_inside_of_a_parquet_table_are_named(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{"bytes": b"x", "path": "a.png"}] * 4
    parquet.write_table(pyarrow.table({"file": rows, "class": list("ynyn")}), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"column file: found nested values; expected texts.*written into files"):
        load_dataset(config(tmp_path / "labels.parquet"))


def test_every_damaged_byte_of_a_parquet_table_is_a_data_error(tmp_path):
    """Texts in it may be no UTF-8, which is found only when they are read."""
    import pyarrow
    from pyarrow import parquet

    files = pictures(tmp_path, 20)
    parquet.write_table(
        pyarrow.table({"file": files, "class": ["yn"[i % 2] for i in range(20)]}),
        tmp_path / "labels.parquet",
        compression="none",
    )
    content = (tmp_path / "labels.parquet").read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / "labels.parquet").write_bytes(damaged)
        try:
            load_dataset(config(tmp_path / "labels.parquet"))
        except DataError:
            refused += 1
    assert refused > 10


def test_two_columns_of_one_name_in_parquet_are_named(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table([["a.png"] * 4, list("ynyn"), list("ynyn")], names=["file", "class", "class"])
    parquet.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(DataError, match="found two columns class; expected each name once"):
        load_dataset(config(tmp_path / "labels.parquet"))


def test_numbers_without_end_are_names(tmp_path):
    files = pictures(tmp_path, 20)
    path = write(
        tmp_path / "labels.csv", [[file, "9" * (5000 if i % 2 else 3), "", ""] for i, file in enumerate(files)]
    )
    assert [len(name) for name in load_dataset(config(path)).class_names] == [3, 5000]


def test_groups_that_leave_a_class_to_one_side_are_refused(tmp_path):
    files = pictures(tmp_path, 24)
    path = write(
        tmp_path / "labels.csv", [[file, "yn"[i % 2], "", "one" if i % 2 else f"g{i}"] for i, file in enumerate(files)]
    )
    with pytest.raises(DataError, match=r"data.group_column: no way was found.* n is in 1 groups"):
        load_dataset(config(path, group_column="patient"))


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_rows_that_cannot_be_divided_by_file_name_no_key_of_groups(fraction, tmp_path):
    """As with a wrong image_column: the same few values in all rows."""
    files = pictures(tmp_path, 2)
    path = write(tmp_path / "labels.csv", [[files[i % 2], "yn"[i % 2], "", ""] for i in range(24)])
    with pytest.raises(DataError, match=r"data\.image_column: files stand in several rows.* in 1 files") as error:
        load_dataset(config(path, test_fraction=fraction))
    assert "group" not in str(error.value)


def test_names_with_backslashes_say_how_folders_are_written(tmp_path):
    files = [file.replace("/", "\\") for file in pictures(tmp_path, 20)]
    path = write(tmp_path / "labels.csv", rows_of(files))
    with pytest.raises(DataError, match=r"(?s)20 of 20 pictures cannot be used.*no such file.*write folders with /"):
        load_dataset(config(path))


def test_the_keys_of_a_table_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"needs path.*image_column and label_column"):
        DataConfig(name="table", path="labels.csv", image_size=8)
    with pytest.raises(ValueError, match="label_column has no effect with data set image_folder"):
        DataConfig(name="image_folder", root="x", image_size=8, label_column="class")
