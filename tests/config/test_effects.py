"""No option is ignored: whatever differs from its default changes the run or what is said of it, or is refused.

Every key of the schema stands in one of the tables below, so that a new one must be thought about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.config import load_config, parse_experiment
from ensemble.config.effects import contradictions, idle_here
from ensemble.config.keys import all_keys
from ensemble.config.loading import parse_stored
from ensemble.errors import ConfigError, EnsembleError

Trace = Callable[[Mapping[str, Any]], str]

SGD = {"training.optimizer": "sgd"}
FLIPS = {"method": {"name": "deep_ensemble"}}
SHIFTED = {"training.augmentation": {"shift": 0.1}}
# What makes each method train something, over the common recipe.
METHODS: dict[str, dict[str, Any]] = {
    "deep_ensemble": {},
    "bagging": {"method": {"name": "bagging"}},
    "cross_validation": {"method": {"name": "cross_validation", "folds": 2}},
    "adaboost": {"method": {"name": "adaboost", "error_rows": "training"}},
    "filter_boosting": {"method": {"name": "filter_boosting"}, "num_members": 3, **SHIFTED},
    "gradient_boosting": {"method": {"name": "gradient_boosting"}},
    "snapshot": {"method": {"name": "snapshot"}},
    "fast_geometric": {"method": {"name": "fast_geometric"}},
}
# A value that differs from the default, for keys that every method and network takes.
EVERYWHERE: dict[str, Any] = {
    "training.epochs": 3,
    "training.batch_size": 16,
    "training.accumulation": 2,
    "training.lr": 0.03,
    "training.optimizer": "sgd",
    "training.weight_decay": 0.1,
    "training.label_smoothing": 0.3,
    "training.class_weights": {"0": 3.0},  # balanced is none where all classes are equal
    "training.sampling": "balanced",
    "training.gradient_clip_norm": 0.001,
    "training.ema_decay": 0.5,
    "training.watch_test": True,
    "training.augmentation": {"rotation_degrees": 30},
    "training.augmentation.erasing_probability": 1.0,
    "training.augmentation.mixup_alpha": 1.0,
    "training.augmentation.cutmix_alpha": 1.0,
    "training.loss": "focal",
    "training.warmup_epochs": 1.0,
}
# Further keys, each with what must stand beside it: a change from (its base) to (its base and the key).
ALONE: dict[str, tuple[dict[str, Any], Any]] = {
    "seed": ({}, 1),
    "num_members": ({}, 1),
    "baseline": ({}, True),
    "controls": ({}, ("longer",)),
    "data.validation_fraction": ({}, 0.3),
    "data.max_train_rows": ({}, 80),
    "compute.threads_per_task": ({}, 2),  # said in the plan and to the console
    "compute.stack_size": ({}, 1),
    "compute.precision": ({}, "bf16"),
    "compute.gpus_per_task": ({}, 2.0),
    "compute.gpu_type": ({}, "H100"),
    "compute.cuda_graph": ({}, False),
    "compute.deterministic": ({}, False),
    "compute.slots": ({}, 2),
    "compute.ray_address": ({}, "127.0.0.1:6379"),
    "compute.parallel": ({}, "data"),
    "compute.device": ({}, "cuda"),
    "failures.crash_retries": ({"failures": {"policy": "drop"}}, 1),
    "failures.lost_node_retries": ({"failures": {"policy": "stop"}}, 1),
    "failures.min_members": ({"failures": {}}, 3),
    "training.momentum": (SGD, 0.9),
    "training.nesterov": ({**SGD, "training.momentum": 0.9}, True),
    "training.betas": ({}, (0.5, 0.6)),
    "training.eps": ({}, 0.1),
    "training.rho": ({"training.optimizer": "adadelta"}, 0.1),
    "training.alpha": ({"training.optimizer": "rmsprop"}, 0.1),
    "training.logit_adjustment": ({}, 1.0),  # refused beside the other two; where classes are equal its offsets cancel
    "training.weight_decay_on": ({"training.weight_decay": 0.3}, "weights"),
    "training.focal_gamma": ({"training.loss": "focal"}, 5.0),
    "training.early_stopping_epochs": ({"training.keep": "best_validation", "training.lr": 0.3, "training.epochs": 8}, 1),
    "training.keep": ({"training.lr": 0.3, "training.epochs": 8}, "best_validation"),
    "training.schedule.name": ({"training.schedule": {"name": "constant"}}, "cosine"),
    "training.schedule.every": ({"training.schedule": {"name": "step"}, "training.epochs": 3}, 2),
    "training.schedule.gamma": ({"training.schedule": {"name": "exponential"}}, 0.1),
    "training.schedule.warmup_fraction": ({"training.schedule": {"name": "cosine"}}, 0.5),
    "training.schedule.final_fraction": ({"training.schedule": {"name": "cosine"}}, 0.5),
    "training.schedule.start_divisor": ({"training.schedule": {"name": "one_cycle"}}, 2.0),
    "training.schedule.final_divisor": ({"training.schedule": {"name": "one_cycle"}}, 2.0),
    "training.schedule.patience": ({"training.schedule": {"name": "plateau"}, "training.lr": 1.0, "training.epochs": 5}, 0),
    "training.schedule.threshold": ({"training.schedule": {"name": "plateau", "patience": 0}, "training.epochs": 4}, 0.9),
    "training.schedule.low_fraction": ({"training.schedule": {"name": "triangular"}}, 0.5),
    **{
        f"training.augmentation.{key}": ({"training.augmentation": {"rotation_degrees": 1.0}}, value)
        for key, value in {
            "rotation_degrees": 30.0, "scale": 0.3, "shear_degrees": 20.0, "shift": 0.2, "crop_padding": 2,
            "elastic_alpha": 2.0, "brightness": 0.5, "contrast": 0.5, "crop_area": 0.3, "blur_probability": 1.0,
            "randaugment_operations": 2,
        }.items()
    },
    "training.augmentation.elastic_sigma": ({"training.augmentation": {"elastic_alpha": 2.0}}, 1.0),
    "training.augmentation.blur_sigma": ({"training.augmentation": {"blur_probability": 1.0}}, 1.0),
    "training.augmentation.randaugment_magnitude": ({"training.augmentation": {"randaugment_operations": 2}}, 20),
    "training.augmentation.horizontal_flip": ({"training.augmentation": {}}, True),
    "evaluation.tta.shift": ({}, 2),
    "evaluation.tta.horizontal_flip": ({}, True),
    "evaluation.tta.crops": ({}, 2),
    "evaluation.tta.crop_area": ({"evaluation.tta": {"crops": 2}}, 0.3),
    "method.sample_fraction": ({"method": {"name": "bagging"}}, 0.5),
    "method.replacement": ({"method": {"name": "bagging", "sample_fraction": 0.5}}, False),
    "method.error_rows": ({"method": {"name": "adaboost", "error_rows": "training"}}, "out_of_bag"),
    "method.folds": ({"method": {"name": "adaboost", "error_rows": "training"}}, 2),
    "method.use_weights": ({"method": {"name": "adaboost", "error_rows": "training"}}, "loss"),
    "method.learning_rate": ({"method": {"name": "adaboost", "error_rows": "training"}}, 1.0),
    "method.chains": ({"method": {"name": "adaboost", "error_rows": "training"}}, 2),
    "method.shrinkage": ({"method": {"name": "gradient_boosting"}}, 0.1),
    "method.line_search": ({"method": {"name": "gradient_boosting"}}, "none"),
    "method.cycle_epochs": ({"method": {"name": "fast_geometric"}}, 1),
    "method.cycle_lr": ({"method": {"name": "fast_geometric"}}, 0.5),
    "method.low_fraction": ({"method": {"name": "fast_geometric"}}, 0.5),
    "training.lr_backbone_factor": ({}, 0.01),
    "model.new_head": ({}, True),
    "model.freeze": ({}, "backbone"),
    "model.mean": ({"model.mean": (0.5,), "model.std": (0.5,)}, (0.1,)),
    "model.std": ({"model.mean": (0.5,), "model.std": (0.5,)}, (0.1,)),
    "model.weights_sha256": ({}, "0" * 64),
    "model.widths": ({}, (5,)),
    "model.width": ({"model": {"name": "lenet4"}}, 0.5),
    "model.activation": ({}, "tanh"),
    "model.dropout": ({}, 0.5),
    "model.kernel_size": ({"model": {"name": "cnn", "widths": (2,), "fully_connected": ()}}, 5),
    "model.padding": ({"model": {"name": "cnn", "widths": (2,), "fully_connected": ()}}, 2),
    "model.batch_norm": ({"model": {"name": "cnn", "widths": (2,), "fully_connected": ()}}, True),
    "model.fully_connected": ({"model": {"name": "cnn", "widths": (2,), "fully_connected": ()}}, (3,)),
}  # fmt: skip
# Keys of images in colour, which are refused for grey ones (tests/data/test_augmentation_check.py).
OF_COLOURS: dict[str, Any] = {
    f"training.augmentation.{key}": value
    for key, value in {"saturation": 0.9, "hue": 0.4, "grey_probability": 1.0}.items()
}
# Keys that need no run of this kind, each with the reason.
REVIEWED: dict[str, str] = {
    **{
        ".".join(key): "no member is trained by it: tests/test_further_sets.py"
        for key in all_keys()
        if key[0] == "evaluation" and len(key) > 1 and key[1:2] != ("tta",)
    },
    "evaluation.tta": "its keys are among the above",
    "name": "the name of the folder",
    "data.calibration_fraction": "which rows members are fitted to: tests/data/test_splits.py, tests/test_further_sets.py",
    "output_dir": "where the folder lies",
    "repeats": "several runs instead of one: tests/test_repeats.py",
    "aggregator": "the headline of the judgement, tests/evaluation",
    "members": "groups: their keys are those of model and training",
    "members.count": "the number of members; checked against num_members",
    "members.finished": "votes with given weights, refused without: tests/test_finished_members.py",
    "members.probabilities": "votes as the file says: tests/test_given_probabilities.py",
    "members.probabilities_sha256": "filled in, and refused where it is not the file's; see members.probabilities",
    "members.name": "the name of a group, and the recipe of its members",
    "method.name": "METHODS above trains every one",
    "method.redraws": "further tries for networks that failed or guess; tests/methods/test_samme.py",
    "method.min_effective_share": "ends a chain whose weights lie on few rows; tests/methods/test_samme.py",
    "method.max_passes": "a limit on how long filters look; tests/methods",
    "data.name": "another data set; each has its own tests in tests/data",
    "data.root": "refused with data sets that are no files",
    "data.path": "refused with other data sets than arrays",
    "data.channels": "refused with other data sets than image_folder",
    "data.image_size": "refused with other data sets than image_folder",
    "data.resize": "refused with other data sets than image_folder; tests/data/test_resize.py",
    "data.margin": "refused with other data sets than pictures; tests/data/test_margin.py",
    "data.layout": "refused with other data sets than arrays",
    "data.value_range": "refused with data sets that are not one's own",
    "data.ground": "refused with data sets that are not one's own",
    "data.duplicates": "which images members are judged by: tests/data/test_duplicates.py",
    "data.on_bad_image": "refused with other data sets than image_folder",
    "data.storage": "where decoded pictures lie; the same bits, tests/data/test_prepared.py and test_prepared_arrays.py",
    "data.image_column": "refused with other data sets than table and huggingface",
    "data.label_column": "refused with other data sets than table and huggingface",
    "data.split_column": "refused with other data sets than table and huggingface",
    "data.group_column": "refused with other data sets than table and huggingface",
    "data.urls": "other pictures: tests/data/test_webdataset.py, as validation_urls, test_urls, label_from and class_names",
    "data.validation_urls": "see data.urls",
    "data.test_urls": "see data.urls",
    "data.label_from": "see data.urls",
    "data.class_names": "see data.urls",
    "data.test_fraction": "refused with data sets that come with a test part",
    "data.subset": "another data set: tests/data/test_huggingface.py, as revision and split_map",
    "data.revision": "see data.subset",
    "data.split_map": "see data.subset",
    "data.args": "arguments of a function that gives images: tests/data/test_python_source.py",
    "data.code": "filled in, and refused where it is not the files'; see data.args",
    "data.download": "a permission: false is kept by data sets that never download",
    "compute.executor": "another executor gives the same bits; tests/contracts",
    "compute.kernels": "another way to the same numbers; tests/native",
    "compute.placement_timeout_s": "a limit that is heeded where a cluster has no room",
    "compute.hang_timeout_s": "a limit that is heeded where a worker hangs",
    "compute.checkpoint_every_s": "states of unfinished members; removed when they have finished",
    "failures.policy": "heeded where something fails; tests/test_run.py",
    "tracking.metrics_port": "what listens meanwhile: tests/tracking/test_metrics.py",
    "tracking.tensorboard": "files that are written beside: tests/tracking/test_tensorboard.py",
    "tracking.mlflow.enabled": "a store beside: tests/tracking/test_mlflow.py",
    "tracking.mlflow.uri": "refused where MLflow is not told, as the other keys; tests/tracking/test_mlflow.py",
    "tracking.mlflow.experiment": "as uri",
    "tracking.mlflow.members": "as uri",
    "tracking.wandb.mode": "tests/tracking",
    "tracking.wandb.project": "used by `ensemble wandb --mode` even where a run disabled it",
    "tracking.wandb.entity": "as project",
    "tracking.wandb.tags": "as project",
    "tracking.wandb.artifact": "as project",
    "tracking.wandb.members": "as project",
    "tracking.wandb.name": "as project",
    "tracking.wandb.notes": "as project",
    "tracking.wandb.group": "as project",
    "tracking.wandb.job_type": "as project",
    "model.name": "another network; tests/models",
    "model.stem": "ResNets are too slow for here; tests/models",
    "model.stochastic_depth": "ResNets are too slow for here; tests/training/test_stochastic_depth.py",
    "model.architecture": "another network; tests/models/test_libraries.py",
    "model.weights": "a file; tests/test_given_weights.py",
    "model.pretrained": "as weights, of timm; tests/test_given_weights.py",
    "model.path": "another network; tests/models/test_python_network.py, as args and code",
    "model.args": "see model.path",
    "model.code": "filled in, and refused where it is not the files'; see model.path",
    "model.built": "a network given to ensemble.train, refused in files: tests/models/test_built_network.py",
    "model.layers": "a network of its own; tests/models/test_layers_network.py, as all keys of its layers",
}
SECTIONS = {"method", "data", "evaluation", "model", "training", "compute", "failures", "tracking", "tracking.mlflow", "tracking.wandb", "training.augmentation",
            "training.schedule"}  # fmt: skip


def test_every_key_of_the_schema_is_in_one_of_the_tables() -> None:
    keys = {".".join(key) for key in all_keys()}
    keys -= {key for key in keys if key.startswith(("members.model", "members.training", "model.layers."))}
    named = {*EVERYWHERE, *ALONE, *OF_COLOURS, *REVIEWED, *SECTIONS}
    assert keys - named == set(), "a new key: show that it has an effect, or give the reason why not"
    assert named - keys == set()
    assert not (EVERYWHERE.keys() | ALONE.keys()) & REVIEWED.keys()


def outcome(trace: Trace, changes: Mapping[str, Any]) -> str:
    try:
        return trace(changes)
    except EnsembleError as error:
        return f"refused: {error}"


_BEFORE: dict[str, str] = {}  # many keys are changed from the same


def outcome_of_base(trace: Trace, base: Mapping[str, Any]) -> str:
    """As `outcome`, once for each base: an equal run leaves an equal trace, which the first test below shows."""
    key = repr(sorted(base.items()))
    if key not in _BEFORE:
        _BEFORE[key] = outcome(trace, base)
    return _BEFORE[key]


@pytest.mark.parametrize("method", METHODS)
def test_common_keys_have_an_effect_with_every_method_or_are_refused(trace: Trace, method: str) -> None:
    before = outcome(trace, METHODS[method])
    assert not before.startswith("refused")
    assert outcome(trace, {**METHODS[method], "name": "other"}) == before, "equal runs leave equal traces"
    for key, value in EVERYWHERE.items():
        after = outcome(trace, {**METHODS[method], key: value})
        assert after != before, f"{key}={value} has no effect with {method}"
        if after.startswith("refused"):
            assert key in after, "a refusal names the key"
            assert method == "gradient_boosting"
            assert key.rpartition(".")[2] in (
                "label_smoothing", "class_weights", "sampling", "loss", "mixup_alpha", "cutmix_alpha",
            )  # fmt: skip


@pytest.mark.parametrize("key", ALONE)
def test_a_key_has_an_effect_or_is_refused_by_its_name(trace: Trace, key: str) -> None:
    base, value = ALONE[key]
    before, after = outcome_of_base(trace, base), outcome(trace, {**base, key: value})
    assert after != before, f"{key}={value} has no effect"
    if after.startswith("refused"):
        assert key.rpartition(".")[2] in after
    assert not before.startswith("refused"), before


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Bright spots in two colours, each at its own place."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 90, (160, 12, 12, 3)).astype(np.uint8)
    labels = np.arange(160) % 2
    for number, label in enumerate(labels):
        images[number, 3:8, 2 + 3 * label : 7 + 3 * label] = (200, 90, 20) if label else (30, 180, 140)
    path = tmp_path_factory.mktemp("colours") / "spots.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:40], test_labels=labels[:40])
    return str(path)


@pytest.mark.parametrize("key", OF_COLOURS)
def test_a_key_of_colours_has_an_effect_on_images_in_colour(trace: Trace, coloured: str, key: str) -> None:
    base = {"data": {"name": "arrays", "path": coloured}, "training.augmentation": {"rotation_degrees": 1.0}}
    before = outcome_of_base(trace, base)
    after = outcome(trace, {**base, key: OF_COLOURS[key]})
    assert not before.startswith("refused")
    assert not after.startswith("refused")
    assert after != before, f"{key} has no effect"


GOOD: dict[str, Any] = {
    "name": "x", "num_members": 2, "method": {"name": "gradient_boosting"}, "model": {"name": "lenet5"},
    "training": {"label_smoothing": 0.3},
}  # fmt: skip


def test_what_is_refused_now_can_still_be_read_from_an_old_run() -> None:
    with pytest.raises(ConfigError, match=r"training\.label_smoothing has no effect with gradient_boosting"):
        parse_experiment(GOOD)
    assert parse_stored(GOOD).training.label_smoothing == 0.0
    inline = {**GOOD, "method": {"name": "bagging"}, "compute": {"executor": "inline", "slots": 3}}
    assert parse_stored(inline).compute.slots == 3
    with pytest.raises(ConfigError, match=r"compute\.slots has no effect with compute\.executor inline"):
        parse_experiment(inline)


def test_a_refusal_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(
        "num_members: 2\nmethod: {name: gradient_boosting}\nmodel: {name: lenet5}\ntraining:\n  label_smoothing: 0.1\n"
    )
    with pytest.raises(ConfigError, match=r"some\.yaml:5: training\.label_smoothing has no effect"):
        load_config(path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": {"name": "mlp", "widths": (), "dropout": 0.5}}, "model.dropout"),
        ({"model": {"name": "mlp", "widths": (), "activation": "tanh"}}, "model.activation"),
        ({"compute": {"executor": "inline", "parallel": "data"}}, "compute.parallel"),
        ({"compute": {"executor": "accelerate", "ray_address": "auto"}}, "compute.ray_address"),
        ({"method": {"name": "fast_geometric", "chains": 2, "cycle_epochs": 5}}, "method.cycle_epochs"),
        ({"failures": {"policy": "stop", "crash_retries": 1}}, "failures.crash_retries"),
        ({"tracking": {"mlflow": {"members": "none"}}}, "tracking.mlflow.members"),
    ],
)
def test_contradictions(change: dict[str, Any], key: str) -> None:
    stored = parse_stored({**GOOD, "method": {"name": "bagging"}, "training": {}, **change})
    assert [found for found, _ in contradictions(stored)] == [key]


def test_the_start_says_what_the_machine_makes_idle() -> None:
    values = {**GOOD, "training": {"epochs": 2, "schedule": {"name": "step", "every": 5}}, "compute": {
        "gpus_per_task": 0.5, "cuda_graph": False, "deterministic": False, "slots": 3, "ray_address": "auto", "gpu_type": "H100",
    }}  # fmt: skip
    experiment = parse_stored(values)
    assert [line.partition(" has no effect here")[0] for line in idle_here(experiment, "cpu", "inline")] == [
        "compute.ray_address=auto", "compute.slots=3", "compute.gpu_type=H100", "compute.gpus_per_task=0.5", "compute.cuda_graph=False",
        "compute.deterministic=False", "lenet5: training.schedule step",
    ]  # fmt: skip
    assert "compute.gpu_type=H100 has no effect here: the tasks train on CPUs" in idle_here(experiment, "cpu", "ray")
    assert "compute.gpu_type=H100 has no effect here: one process trains all" in idle_here(experiment, "cuda", "inline")
    assert idle_here(experiment, "cuda", "ray") == idle_here(experiment, "cuda", "ray")[-1:]
    many = experiment.model_copy(
        update={"compute": experiment.compute.model_copy(update={"slots": 9, "threads_per_task": 2})}
    )
    line = "compute.slots=9 is more than this machine has processors for: 2 at a time (compute.threads_per_task=2)"
    assert line in idle_here(many, "cpu", "processes", slots=2)
    assert line not in idle_here(many, "cpu", "ray", slots=2)
