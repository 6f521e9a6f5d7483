"""Where data sets are looked for, and what is not imported on the way."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from ensemble.config.schema import DataConfig
from ensemble.data import DATASETS, load_dataset
from ensemble.errors import DataError


def test_catalogue_and_configuration_name_the_same_sets():
    own = {name for name, source in DataConfig.registry.all().items() if name not in source.published}
    assert {"image_folder", "table", "arrays"} <= own
    assert {*DATASETS, *own} == set(DataConfig.registry.all())
    assert {name for name, info in DATASETS.items() if info.flippable} == {
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "stl10",
    }
    for name, info in DATASETS.items():
        assert info.name == name
        assert len(set(info.class_names)) == len(info.class_names)


def test_root_comes_from_the_configuration_then_the_environment_then_the_folder(tmp_path, write_dataset, monkeypatch):
    write_dataset("kmnist")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENSEMBLE_DATA", raising=False)
    with pytest.raises(DataError, match="now data, from the default"):
        load_dataset(DataConfig(name="kmnist", download=False))
    (tmp_path / "data").symlink_to(tmp_path)
    assert len(load_dataset(DataConfig(name="kmnist", download=False)).train_labels_N) == 60
    monkeypatch.setenv("ENSEMBLE_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"elsewhere, from \$ENSEMBLE_DATA"):
        load_dataset(DataConfig(name="kmnist", download=False))
    assert len(load_dataset(DataConfig(name="kmnist", root=str(tmp_path), download=False)).train_labels_N) == 60


def test_data_set_survives_the_journey_to_another_process(tmp_path, write_dataset):
    write_dataset("kmnist")
    dataset = load_dataset(DataConfig(name="kmnist", root=str(tmp_path)))
    arrived = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(arrived.train_images_NCHW, dataset.train_images_NCHW)
    assert arrived.class_names == dataset.class_names
    assert arrived.image_shape == (1, 28, 28)


def test_reading_files_needs_no_torch(tmp_path, write_dataset):
    write_dataset("kmnist")
    program = (
        "import sys\n"
        "from ensemble.config.schema import DataConfig\n"
        "from ensemble.data import load_dataset\n"
        "load_dataset(DataConfig(name='kmnist', root=sys.argv[1]))\n"
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
