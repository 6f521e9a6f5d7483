"""Precision, determinism and data-parallel training through Accelerate."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.config import parse_experiment
from ensemble.config.loading import parse_stored
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, ConfigError
from ensemble.training import check_precision
from ensemble.training.placement import Placement
from tests.training.helpers import experiment, results, specs, train


def test_bfloat16_trains_and_differs(arrays: dict[str, Any]) -> None:
    exact = experiment(epochs=8, lr=2e-3)
    compute = exact.compute.model_copy(update={"precision": "bf16"})
    rough = exact.model_copy(update={"compute": compute})
    first, second = (results(train(config, specs([0, 1]), arrays)) for config in (exact, rough))
    assert not np.array_equal(first[0].weights["0.weight"], second[0].weights["0.weight"])
    for index in (0, 1):
        assert second[index].weights["0.weight"].dtype == np.float32
        assert second[index].votes.test_NK.dtype == np.float32
        assert second[index].history[-1].train_loss < 0.7 * second[index].history[0].train_loss
    # One process, one precision after another: no state of the last task stays behind.
    again = results(train(exact, specs([0, 1]), arrays))
    np.testing.assert_array_equal(first[0].weights["0.weight"], again[0].weights["0.weight"])


def test_threads_are_pinned() -> None:
    before = torch.get_num_threads()
    try:
        Placement.create(ComputeConfig(device="cpu", threads_per_task=2))
        assert torch.get_num_threads() == 2
        assert Placement.create(ComputeConfig(device="cpu")).device.type == "cpu"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ComputeError, match="torch sees no GPU"):
        Placement.create(ComputeConfig(device="cuda"))


# Network, recipe, rows of a member, and how far weights and losses may lie from those of one process: without batch norm
# next to nothing; with it rounding grows from step to step, as it does between two libraries (by 1e-3 in two epochs).
SHARED: dict[str, tuple[dict[str, Any], dict[str, Any], int, float]] = {
    "lenet5, deformed and mixed": (
        {"name": "lenet5"},
        {
            "augmentation": {
                "rotation_degrees": 10.0,
                "mixup_alpha": 0.4,
                "cutmix_alpha": 1.0,
                "erasing_probability": 0.3,
                "randaugment_operations": 2,
                "blur_probability": 0.5,
            }
        },
        260,
        1e-5,
    ),
    "cnn, batch norm, dropout": (
        {"name": "cnn", "widths": (6, 8), "batch_norm": True, "dropout": 0.2, "fully_connected": (16,)},
        {"batch_size": 37, "epochs": 1},  # uneven shares; the last batch is of one row, so that one rank has none
        149,
        1e-3,
    ),
    "accumulated": (
        {"name": "cnn", "widths": (6, 8), "batch_norm": True, "dropout": 0.2},
        {
            "batch_size": 12,
            "accumulation": 3,
            "epochs": 1,
            "augmentation": {"mixup_alpha": 0.4},
        },  # at last a piece of one row
        145,
        1e-3,
    ),
    "plateau": (
        {"name": "cnn", "widths": (6,), "batch_norm": True},
        {"schedule": {"name": "plateau", "patience": 0, "threshold": 0.9}, "epochs": 3},
        128,
        1e-3,
    ),
    "resnet18": ({"name": "resnet18"}, {"epochs": 1, "batch_size": 32}, 64, 1e-3),
}


@pytest.mark.parametrize("what", SHARED)
def test_two_ranks_train_one_stack_to_the_same_weights_as_one(what: str, tmp_path: Path) -> None:
    """Data-parallel: each rank takes half of every batch, gradients are averaged, batch norm sees the whole batch.

    The ranks' weights are equal to the last bit, those of one process within the stated distance.
    """
    model, training, rows, tolerance = SHARED[what]
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        import numpy as np
        from accelerate import debug_launcher
        from tests.training.helpers import experiment, specs
        from ensemble.config.schema import DataConfig
        from ensemble.data import load_dataset
        from ensemble.training import Trainer
        from ensemble.training.stack_run import StackRun
        from ensemble.training.placement import Placement
        from ensemble.types import Task

        def work(parallel):
            digits = load_dataset(DataConfig(name="digits"))
            arrays = {{
                "train_images": digits.train_images_NCHW[:300], "train_labels": digits.train_labels_N[:300],
                "validation_rows": np.arange(270, 300), "test_images": digits.test_images_NCHW[:20],
                "mean": np.float32([0.3]), "std": np.float32([0.35]),
            }}
            config = experiment({model!r}, kernels="torch", **{{"optimizer": "sgd", "lr": 0.02, **{training!r}}})
            recipe = config.groups[0].name
            job = Trainer.create(config, "cpu", 10).jobs[recipe]
            placement = Placement.create(job.compute, data_parallel=parallel)
            run = StackRun(Task("t", recipe, specs([0, 1], recipe=recipe, rows={rows})), job, arrays, placement)
            found = [item for epoch in range(run.recipe.epochs) for item in run.train_epoch(epoch)]
            records = [item[1] for item in found if isinstance(item, tuple)]
            state = {{f"{{k}}.{{name}}": t.numpy() for k in (0, 1) for name, t in run.stack.member_state(k).items()}}
            losses = np.array([(record.train_loss, record.validation_loss, record.lr) for record in records])
            rank = placement.accelerator.process_index if parallel else "alone"
            assert placement.ranks == (2 if parallel else 1)
            np.savez(f"{tmp_path}/{{rank}}.npz", losses=losses, **state)

        if __name__ == "__main__":
            debug_launcher(work, args=(True,), num_processes=2)
            work(False)
    """)
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=280)
    alone, first, second = (np.load(tmp_path / f"{name}.npz") for name in ("alone", "0", "1"))
    for name in alone.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=tolerance, rtol=tolerance, err_msg=name)


def test_a_precision_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"compute\.precision is tf32, which only GPUs have"):
        check_precision(ComputeConfig(precision="tf32"), "cpu")
    check_precision(ComputeConfig(precision="tf32"), "cuda")
    check_precision(ComputeConfig(precision="bf16"), "cpu")


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ConfigError, match=r"compute.precision: fp16 would need loss scaling.*expected float32, tf32 or bf16"
    ):
        parse_experiment({"name": "t", "compute": {"precision": "fp16"}})


def test_a_run_that_was_stored_with_fp16_is_one_in_float32() -> None:
    """Earlier versions took it and trained in float32 all the same."""
    stored = experiment().model_dump(mode="json")
    stored["compute"]["precision"] = "fp16"
    assert parse_stored(stored).compute.precision == "float32"


def test_training_leaves_the_process_s_arithmetic_as_it_was(arrays: dict[str, Any]) -> None:
    """Denormal numbers are flushed to zero only while a task trains."""
    torch.set_flush_denormal(False)
    smallest = torch.tensor([1e-40])
    train(experiment(epochs=1), specs([0]), arrays)
    assert float(smallest / 2) > 0
