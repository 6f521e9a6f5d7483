"""Data sections of earlier versions, which held the keys of all sources, most of them null: read as they were meant, the same runs."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble.config import parse_experiment
from ensemble.config.loading import parse_stored
from ensemble.config.one_spelling import one_spelling
from ensemble.storage.identity import differences
from ensemble.tracking.run_identity import config_hash

# In the order in which the last such version wrote them.
EARLIER: dict[str, Any] = {
    "name": "digits", "root": None, "path": None, "image_column": None, "label_column": None, "split_column": None, "group_column": None,
    "channels": None, "image_size": None, "resize": None, "test_fraction": None, "layout": None, "value_range": None, "ground": None,
    "on_bad_image": None, "storage": None, "download": True, "validation_fraction": 0.1, "calibration_fraction": 0.0, "max_train_rows": None,
}  # fmt: skip
SECTIONS: dict[str, dict[str, Any]] = {
    "digits": {"max_train_rows": 300},
    "mnist": {"root": "/data", "download": False},
    "cifar10": {},
    "image_folder": {"root": "photos", "image_size": [8, 10], "resize": "pad", "ground": "black", "storage": "mapped"},
    "table": {"path": "labels.csv", "image_column": "file", "label_column": "class", "image_size": 8, "channels": 1},
    "arrays": {"path": "set.npz", "layout": "channels_first", "value_range": [0.0, 1.0], "test_fraction": 0.3},
}
KEYS: dict[str, Any] = {"name": "x", "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "lenet5"}}


def now(name: str) -> dict[str, Any]:
    """The resolved configuration as it is written now."""
    data = {k: tuple(v) if isinstance(v, list) else v for k, v in SECTIONS[name].items()}
    return parse_experiment({**KEYS, "data": {"name": name, **data}}).model_dump(mode="json")


def then(name: str) -> dict[str, Any]:
    """The same one as an earlier version wrote it."""
    further = {"sets": [{"name": "more", "kind": "unknown", "data": {**EARLIER, "name": "mnist"}}]}
    return {**now(name), "data": {**EARLIER, "name": name, **SECTIONS[name]}, "evaluation": further}


@pytest.mark.parametrize("name", SECTIONS)
def test_they_are_read_and_are_the_same_run(name: str) -> None:
    stored = parse_stored(then(name))
    assert stored.data.model_dump(mode="json") == now(name)["data"]
    assert stored.evaluation.sets[0].data is not None
    assert differences(then(name), now(name)) == []
    assert differences(now(name), then(name)) == []
    assert config_hash(then(name)) == config_hash(now(name))


def test_digests_of_earlier_versions_stay() -> None:
    """As dashboards know them: what such a version made of its keys, of which there were fewer once, is made of them now."""
    for left_out in ((), ("image_column", "label_column", "split_column", "group_column"), ("layout", "storage")):
        data = {key: value for key, value in EARLIER.items() if key not in left_out}
        assert one_spelling({"data": data}) == {"data": {k: v for k, v in data.items() if k != "resize"}}
    assert config_hash({"seed": 0, "data": EARLIER}) == "43560714"


def test_a_difference_is_told_by_its_key() -> None:
    assert differences(
        then("image_folder"), {**now("image_folder"), "data": {**now("image_folder")["data"], "image_size": 8}}
    ) == ["data.image_size: [8, 10] in the folder, 8 now"]
