"""Every kind of training that must run on a GPU, and what a step of it may cost there: the one place to change either.

A recipe is trained with CUDA graphs and without. With them, a step in the steady state (the last epoch, between its first
and its last graph) may put at most LAUNCHES_PER_STEP things into a stream, the graph counted, and may make the CPU wait
WAITS_PER_STEP times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LAUNCHES_PER_STEP = 3
WAITS_PER_STEP = 0
# Optimisers whose steps need not be captured, and why; test_recipes.py holds torch to the reason.
NOT_CAPTURABLE = {"adagrad": "torch.optim.Adagrad has no option `capturable`"}

BATCH, FULL_STEPS, VALIDATION, TEST, EPOCHS = 32, 10, 40, 50, 3
LENET5 = {"name": "lenet5"}
AUGMENTATION = {
    "rotation_degrees": 10, "scale": 0.1, "shear_degrees": 5, "shift": 0.1, "elastic_alpha": 1.0, "brightness": 0.2,
    "contrast": 0.2,
}  # fmt: skip
PHOTOGRAPHS = {
    "crop_area": 0.5, "horizontal_flip": True, "brightness": 0.2, "saturation": 0.4, "hue": 0.1, "grey_probability": 0.2,
    "blur_probability": 0.5, "randaugment_operations": 2,
}  # fmt: skip
LAYERS = {
    "name": "layers",
    "layers": (
        {"kind": "conv", "channels": 8, "batch_norm": True, "activation": "relu"},
        {"kind": "max_pool"},
        {"kind": "conv", "channels": 10, "activation": "relu", "dropout": 0.1},
        {"kind": "average_pool", "size": 4},
        {"kind": "linear", "width": "classes"},
    ),
}


@dataclass(frozen=True)
class Recipe:
    """One training. shape: channels and side of the images. margin: pixels more on each side, as kept. quick: part of `make test`."""

    model: dict[str, Any] = field(default_factory=lambda: LENET5)
    count: int = 3
    shape: tuple[int, int] = (1, 28)
    compute: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    tta: dict[str, Any] = field(default_factory=dict)
    margin: int = 0
    quick: bool = False
    launches: int = LAUNCHES_PER_STEP
    waits: int = WAITS_PER_STEP


def _trained(quick: bool = False, **training: Any) -> Recipe:
    return Recipe(training=training, quick=quick)


RECIPES = {
    # how many networks at a time, and which
    "1 network": Recipe(count=1, quick=True),
    "64 networks": Recipe(count=64, quick=True),
    "mlp": Recipe(model={"name": "mlp"}),
    "cnn": Recipe(model={"name": "cnn", "widths": (8, 16)}),
    "layers": Recipe(model=LAYERS, quick=True),
    "resnet18": Recipe(model={"name": "resnet18", "stem": "small"}, shape=(3, 32)),
    "1 resnet18 bf16": Recipe(
        model={"name": "resnet18", "stem": "small"}, count=1, shape=(3, 32), compute={"precision": "bf16"}
    ),
    "by torch.func": Recipe(model={"name": "torchvision", "architecture": "shufflenet_v2_x0_5"}, shape=(3, 32), quick=True),
    "by torch.func, dropout": Recipe(model={"name": "torchvision", "architecture": "squeezenet1_1"}, shape=(3, 32)),
    "rgb": Recipe(shape=(3, 32), quick=True),
    "rgb cnn": Recipe(model={"name": "cnn", "widths": (8, 16)}, shape=(3, 32)),
    # precision
    "bf16": Recipe(compute={"precision": "bf16"}, quick=True),
    "tf32": Recipe(compute={"precision": "tf32"}),
    "not deterministic": Recipe(compute={"deterministic": False}),
    # optimisers
    "sgd": _trained(optimizer="sgd"),
    "sgd momentum": _trained(optimizer="sgd", momentum=0.9),
    "sgd nesterov": _trained(optimizer="sgd", momentum=0.9, nesterov=True, quick=True),
    "adam": _trained(optimizer="adam", weight_decay=1e-4),
    "adamw": _trained(optimizer="adamw", weight_decay=1e-2),
    "adamax": _trained(optimizer="adamax"),
    "adadelta": _trained(optimizer="adadelta", quick=True),
    "adagrad": _trained(optimizer="adagrad"),
    "rmsprop": _trained(optimizer="rmsprop", momentum=0.9),
    # regularisation
    "augmentation": _trained(augmentation=AUGMENTATION, quick=True),
    "affine augmentation": _trained(augmentation={"rotation_degrees": 10, "shift": 0.1}),
    "cropped and flipped": Recipe(
        shape=(3, 32), training={"augmentation": {"crop_padding": 2, "horizontal_flip": True}}
    ),
    "mixed and covered": _trained(
        augmentation={"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "erasing_probability": 0.5, "crop_area": 0.5}, quick=True
    ),
    "windows": Recipe(shape=(3, 32), margin=3, quick=True),
    "windows, deformed": Recipe(margin=2, training={"augmentation": {**AUGMENTATION, "crop_padding": 1}}),
    "stretched windows": Recipe(shape=(3, 32), margin=4, training={"augmentation": {"crop_area": 0.5, "mixup_alpha": 0.2}}),
    "photographs": Recipe(shape=(3, 32), training={"augmentation": PHOTOGRAPHS}, quick=True),
    "focal, warm-up": _trained(loss="focal", warmup_epochs=0.5),
    "accumulated": _trained(batch_size=BATCH // 2, accumulation=2, gradient_clip_norm=0.5, quick=True),
    "one against all": _trained(loss="bce"),
    "clipping": _trained(gradient_clip_norm=0.5),
    "label smoothing": _trained(label_smoothing=0.1),
    "dropout": Recipe(model={"name": "mlp", "widths": (32, 16), "dropout": 0.3}, quick=True),
    "stochastic depth": Recipe(model={"name": "resnet18", "stem": "small", "stochastic_depth": 0.3}, shape=(3, 32)),
    "batch norm": Recipe(model={"name": "cnn", "widths": (6, 8), "batch_norm": True}),
    # which weights vote
    "ema": _trained(ema_decay=0.9),
    "ema, best": _trained(ema_decay=0.9, keep="best_validation", quick=True),
    "best error": _trained(keep="best_validation_error"),
    # schedules
    "plateau": _trained(schedule={"name": "plateau", "patience": 0, "threshold": 0.9}, epochs=EPOCHS + 2, quick=True),
    "one_cycle": _trained(schedule="one_cycle", quick=True),
    "cosine": _trained(schedule={"name": "cosine", "warmup_fraction": 0.2}),
    "test curve": _trained(watch_test=True),
    "on views": Recipe(shape=(3, 32), tta={"horizontal_flip": True, "shift": 2, "crops": 2}, quick=True),
    # much at once
    "everything": Recipe(
        model=LAYERS,
        compute={"precision": "bf16"},
        training={
            "optimizer": "adamw", "schedule": "one_cycle", "augmentation": AUGMENTATION, "gradient_clip_norm": 1.0,
            "label_smoothing": 0.1, "ema_decay": 0.9, "keep": "best_validation_error",
        },
        quick=True,
    ),
}  # fmt: skip


def may_be_refused(recipe: Recipe) -> bool:
    """Whether a graph of its steps may be refused."""
    return recipe.training.get("optimizer") in NOT_CAPTURABLE
