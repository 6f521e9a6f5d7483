"""A member trained in a stack of K is the member trained alone, for every architecture, optimiser and trick.

Tolerance: float32 sums are taken in another order. Plain SGD agrees to 2e-5 after a few dozen steps, but for
PyTorch's convolutions: those of a stack round otherwise than one network's, and a maximum may change its place. The adaptive
optimisers divide a gradient by its own size, so that the sign of a gradient that is nearly zero moves a weight by the
whole rate: they are compared with a larger eps, to 5e-4 for weights and 2e-3 for votes.
Batch norm subtracts nearly equal numbers, and training amplifies what is left: those networks are compared after a
few large batches, where a mistake (another stream, another row, statistics mixed) would show in the first digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.training.helpers import cut, experiment, results, specs, train

MODELS: dict[str, dict[str, Any]] = {
    "lenet5": {"name": "lenet5"},
    "mlp": {"name": "mlp", "widths": (32, 16), "dropout": 0.3, "activation": "tanh"},
    "cnn": {"name": "cnn", "widths": (6, 8), "dropout": 0.25, "fully_connected": (16,)},
    "cnn_gelu": {"name": "cnn", "widths": (4,), "kernel_size": 5, "padding": 2, "activation": "gelu"},
}


PLAIN = {"auto": 2e-5, "torch": 5e-4}


def compare(config: Any, arrays: dict[str, Any], weights: float, votes: float) -> None:
    together = results(train(config, specs([0, 1, 2]), arrays))
    for index in (0, 2):
        alone = results(train(config, specs([index]), arrays))[index]
        for name, tensor in alone.weights.items():
            np.testing.assert_allclose(together[index].weights[name], tensor, atol=weights, err_msg=name)
        np.testing.assert_allclose(together[index].votes.test_NK, alone.votes.test_NK, atol=votes)
        np.testing.assert_allclose(together[index].votes.rows_RK, alone.votes.rows_RK, atol=votes)
        assert together[index].kept_epoch == alone.kept_epoch
        assert len(together[index].history) == len(alone.history)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_with_plain_sgd(model: str, kernels: str, arrays: dict[str, Any]) -> None:
    compare(experiment(MODELS[model], kernels, optimizer="sgd", lr=0.05), arrays, weights=PLAIN[kernels], votes=1e-3)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("size", [(20, 28), (28, 20)], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_images_that_are_no_squares(model: str, size: tuple[int, int], kernels: str, arrays: dict[str, Any]) -> None:
    moves = {"rotation_degrees": 10, "shift": 0.1, "elastic_alpha": 1.0, "crop_area": 0.5, "cutmix_alpha": 1.0}
    config = experiment(MODELS[model], kernels, optimizer="sgd", lr=0.02, epochs=1, augmentation=moves)
    compare(config, cut(arrays, *size), weights=PLAIN[kernels], votes=1e-3)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_batch_norm(kernels: str, arrays: dict[str, Any]) -> None:
    model = {"name": "cnn", "widths": (6, 8), "batch_norm": True, "dropout": 0.25, "fully_connected": (16,)}
    config = experiment(model, kernels, optimizer="sgd", lr=0.05, epochs=1, batch_size=130)
    compare(config, arrays, weights=3e-4, votes=1e-3)


@pytest.mark.parametrize("width", [1.0, 0.3])
def test_residual_network(width: float, arrays: dict[str, Any]) -> None:
    config = experiment(
        {"name": "resnet18", "stem": "small", "width": width}, optimizer="sgd", lr=0.01, epochs=1, batch_size=130
    )
    compare(config, arrays_small(arrays), weights=5e-3, votes=2e-2)
    assert results(train(config, specs([0, 1]), arrays_small(arrays)))[0].stack_size == 2


def arrays_small(arrays: dict[str, Any]) -> dict[str, Any]:
    """Images of 14x14: a ResNet step in milliseconds."""
    return {
        **arrays,
        "train_images": arrays["train_images"][:, :, ::2, ::2],
        "test_images": arrays["test_images"][:, :, ::2, ::2],
    }


OPTIMIZERS = [
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    {"optimizer": "adam", "lr": 1e-3, "eps": 1e-3},
    {"optimizer": "adamw", "lr": 1e-3, "eps": 1e-3, "weight_decay": 0.05},
    {"optimizer": "adamax", "lr": 1e-3, "eps": 1e-3},
    {"optimizer": "adadelta", "lr": 0.1, "eps": 1e-3},
    {"optimizer": "adagrad", "lr": 1e-2, "eps": 1e-3},
    {"optimizer": "rmsprop", "lr": 1e-4, "eps": 1e-3},
]


@pytest.mark.parametrize("recipe", OPTIMIZERS, ids=lambda recipe: str(recipe["optimizer"]))
def test_every_optimizer(recipe: dict[str, Any], arrays: dict[str, Any]) -> None:
    compare(experiment(**recipe), arrays, weights=5e-4, votes=2e-3)


TRICKS: dict[str, dict[str, Any]] = {
    "augmentation": {"augmentation": {"rotation_degrees": 10, "shift": 0.1, "elastic_alpha": 1.0, "brightness": 0.2}},
    "mixed and covered": {
        "augmentation": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "erasing_probability": 0.5, "crop_area": 0.5}
    },
    "photographs": {
        "augmentation": {"shift": 0.1, "randaugment_operations": 2, "blur_probability": 0.5, "mixup_alpha": 0.4}
    },
    "accumulated": {"batch_size": 16, "accumulation": 2, "gradient_clip_norm": 0.5},
    "one against all": {"loss": "bce", "label_smoothing": 0.1},
    "focal, warm-up": {"loss": "focal", "warmup_epochs": 0.5},
    "early stopping": {"early_stopping_epochs": 1, "keep": "best_validation_error", "epochs": 8, "lr": 0.2},
    "clipping": {"gradient_clip_norm": 0.5},
    "smoothing and cosine": {"label_smoothing": 0.1, "schedule": {"name": "cosine", "warmup_fraction": 0.2}},
    "average": {"ema_decay": 0.9},
    "average, best epoch": {"ema_decay": 0.9, "keep": "best_validation", "epochs": 3},
    "best epoch": {"keep": "best_validation", "epochs": 4, "lr": 0.1},
    "plateau": {"schedule": {"name": "plateau", "patience": 0, "threshold": 0.9}, "epochs": 4},
}


@pytest.mark.parametrize("trick", TRICKS)
def test_every_trick(trick: str, arrays: dict[str, Any]) -> None:
    compare(experiment(**{"optimizer": "sgd", "lr": 0.05, **TRICKS[trick]}), arrays, weights=1e-4, votes=1e-3)


ON_A_GPU: dict[str, dict[str, Any]] = {
    **{name: {"model": model, "optimizer": "sgd", "lr": 0.05} for name, model in MODELS.items()},
    **{recipe["optimizer"]: recipe for recipe in OPTIMIZERS[1:]},
    **{trick: {"optimizer": "sgd", "lr": 0.05, **recipe} for trick, recipe in TRICKS.items()},
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ON_A_GPU)
def test_on_a_gpu(case: str, arrays: dict[str, Any]) -> None:
    compare(experiment(device="cuda", **ON_A_GPU[case]), arrays, weights=1e-3, votes=5e-3)


def test_members_differ_from_each_other(arrays: dict[str, Any]) -> None:
    found = results(train(experiment(), specs([0, 1]), arrays))
    assert not np.allclose(found[0].weights["0.weight"], found[1].weights["0.weight"], atol=1e-3)
