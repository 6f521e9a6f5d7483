"""How a member is trained: optimiser, schedule, regularisation, augmentation.

Optimiser keys that the chosen optimiser does not have are refused instead of ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ensemble.config.base import Section

Optimizer = Literal["sgd", "adam", "adamw", "adamax", "adadelta", "adagrad", "rmsprop"]
# Which of the optional keys each optimiser takes, besides lr and weight_decay which all have.
OPTIMIZER_KEYS: dict[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov"}),
    "adam": frozenset({"betas", "eps"}),
    "adamw": frozenset({"betas", "eps"}),
    "adamax": frozenset({"betas", "eps"}),
    "adadelta": frozenset({"rho", "eps"}),
    "adagrad": frozenset({"eps"}),
    "rmsprop": frozenset({"momentum", "alpha", "eps"}),
}
Fraction = Annotated[float, Field(ge=0, lt=1)]


class ConstantConfig(Section):
    """The rate stays at lr."""

    name: Literal["constant"]


class StepConfig(Section):
    """lr * gamma ** (epochs done // every)."""

    name: Literal["step"]
    every: int = Field(1, ge=1, description="epochs between steps")
    gamma: float = Field(0.1, gt=0, le=1, description="factor on the rate at each step")


class ExponentialConfig(Section):
    """lr * gamma ** epochs done."""

    name: Literal["exponential"]
    gamma: float = Field(0.95, gt=0, le=1, description="factor on the rate after each epoch")


class CosineConfig(Section):
    """Half a cosine from lr to final_fraction * lr, per batch, after an optional linear warm-up."""

    name: Literal["cosine"]
    warmup_fraction: Fraction = Field(
        0.0, description="share of the training in which the rate rises in a straight line to lr"
    )
    final_fraction: float = Field(0.0, ge=0, le=1, description="rate at the end, as a share of lr")


class OneCycleConfig(Section):
    """Cosine up from lr / start_divisor to lr, then down to nearly nothing (Smith and Topin 2017), per batch."""

    name: Literal["one_cycle"]
    warmup_fraction: float = Field(0.3, gt=0, lt=1, description="share of the training in which the rate rises to lr")
    start_divisor: float = Field(25.0, gt=1, description="the rate begins at lr divided by this")
    final_divisor: float = Field(1e4, gt=1, description="the rate ends at where it began divided by this")


class PlateauConfig(Section):
    """Multiply the member's lr by gamma when its validation loss has not fallen for `patience` epochs."""

    name: Literal["plateau"]
    gamma: float = Field(0.1, gt=0, lt=1, description="factor on the rate")
    patience: int = Field(5, ge=0, description="epochs without a fall that are let pass")
    threshold: float = Field(1e-4, ge=0, description="relative fall that counts")


class TriangularConfig(Section):
    """Up from low_fraction * lr to lr and down again in one cycle over all epochs, per batch (Garipov et al. 2018)."""

    name: Literal["triangular"]
    low_fraction: Fraction = Field(0.01, description="lowest rate, as a share of lr")


ScheduleConfig = Annotated[
    ConstantConfig | StepConfig | ExponentialConfig | CosineConfig | OneCycleConfig | PlateauConfig | TriangularConfig,
    Field(discriminator="name"),
]


class AugmentationConfig(Section):
    """Random deformation of training images: each sample draws its own parameters. All zero: none."""

    rotation_degrees: float = Field(0.0, ge=0, le=180, description="angle within +- this")
    scale: float = Field(0.0, ge=0, lt=1, description="size factor within 1 +- this")
    shear_degrees: float = Field(0.0, ge=0, lt=90, description="horizontal and vertical shear within +- this")
    shift: float = Field(0.0, ge=0, lt=1, description="translation within +- this share of the side")
    crop_padding: int = Field(0, ge=0, le=64, description="pad by this many pixels, crop the old size at random")
    elastic_alpha: float = Field(
        0.0, ge=0, description="displacement in pixels of the elastic deformation (Simard 2003)"
    )
    elastic_sigma: float = Field(4.0, gt=0, description="smoothing of the displacement field, in pixels")
    brightness: float = Field(0.0, ge=0, le=1, description="factor within 1 +- this")
    contrast: float = Field(0.0, ge=0, le=1, description="factor around the image mean within 1 +- this")
    saturation: float = Field(
        0.0, ge=0, le=1, description="factor of the colours within 1 +- this; refused for grey images"
    )
    hue: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="turn of the hues within +- this share of the colour circle; refused for grey images",
    )
    grey_probability: float = Field(0.0, ge=0, le=1, description="that an image becomes grey; refused for grey images")
    blur_probability: float = Field(0.0, ge=0, le=1, description="that an image is blurred by a Gaussian")
    blur_sigma: float = Field(
        2.0, ge=0.1, le=20, description="largest sigma of the blur, in pixels; each is drawn from 0.1 to this"
    )
    randaugment_operations: int = Field(
        0,
        ge=0,
        le=10,
        description="so many operations one after the other on each image, each drawn from the 14 of RandAugment (Cubuk et al. 2020); usual: 2",
    )
    randaugment_magnitude: int = Field(
        9, ge=0, le=30, description="how strong each operation of RandAugment is, of 0 to 30"
    )
    horizontal_flip: bool = Field(False, description="with probability 1/2; refused for characters")
    crop_area: float = Field(
        1.0,
        gt=0,
        le=1,
        description="smallest share of the image that a random crop shows, stretched to the whole image, the ratio of its sides within 3/4 to 4/3 of the image's own; 1: no such crop",
    )
    erasing_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="that a rectangle of 2 to 33 % of the image becomes the mean colour (Zhong et al. 2020)",
    )
    mixup_alpha: float = Field(
        0.0,
        ge=0,
        le=100,
        description="images and labels are mixed in pairs, in shares of a Beta(alpha, alpha) distribution (Zhang et al. 2018); usual: 0.2",
    )
    cutmix_alpha: float = Field(
        0.0,
        ge=0,
        le=100,
        description="a rectangle of each image comes from another one, its share of the area and of the label likewise (Yun et al. 2019); usual: 1. With mixup_alpha, each image takes one of the two",
    )

    @model_validator(mode="after")
    def _sigma_used(self) -> Self:
        if self.elastic_sigma != type(self).model_fields["elastic_sigma"].default and self.elastic_alpha == 0:
            raise ValueError("elastic_sigma has no effect without elastic_alpha")
        for key, switch in (("blur_sigma", "blur_probability"), ("randaugment_magnitude", "randaugment_operations")):
            if getattr(self, key) != type(self).model_fields[key].default and getattr(self, switch) == 0:
                raise ValueError(f"{key} has no effect without {switch}")
        return self

    @property
    def photographic(self) -> bool:
        """True when anything is switched on that is meant for photographs."""
        colours = self.saturation or self.hue or self.grey_probability
        return bool(colours or self.blur_probability or self.randaugment_operations)

    @property
    def active(self) -> bool:
        """True when anything is ever changed."""
        return self.deforms or self.blends

    @property
    def deforms(self) -> bool:
        """True when images are changed one by one, before they are standardised."""
        return self.blending_alone() != self

    @property
    def blends(self) -> bool:
        """True when standardised images are covered or mixed."""
        return self.mixes or self.erasing_probability > 0

    @property
    def mixes(self) -> bool:
        """True when images and labels are mixed in pairs."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def blending_alone(self) -> AugmentationConfig:
        """What is left for images that are deformed already."""
        return AugmentationConfig(
            erasing_probability=self.erasing_probability,
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
        )


class TrainingConfig(Section):
    """One recipe, shared by the members of a group."""

    epochs: int = Field(10, ge=1, le=100_000, description="passes over the rows of a member")
    batch_size: int = Field(
        64,
        ge=1,
        le=1_000_000,
        description="images that go through the network together, and without accumulation make one step; the last batch of an epoch is smaller, but a single image joins the batch before it where a batch norm could not be trained on it alone",
    )
    accumulation: int = Field(
        1,
        ge=1,
        le=10_000,
        description="batches whose gradients are added up for one step of the optimiser, as if they were one batch of so many times batch_size; schedules, warm-ups, averages and clipping go by these steps",
    )
    lr: float = Field(1e-3, gt=0, description="learning rate; with a schedule its highest")
    lr_backbone_factor: float = Field(
        1.0, gt=0, le=100, description="learning rate of all layers but the last, as a multiple of lr"
    )
    optimizer: Optimizer = Field("adam", description="the rule by which weights are changed, as PyTorch has it")
    momentum: Fraction | None = Field(
        None, description="sgd, rmsprop: share of the last step that is kept; without it 0"
    )
    nesterov: bool | None = Field(None, description="sgd: look ahead by the momentum; without it false")
    betas: tuple[Fraction, Fraction] | None = Field(
        None,
        description="adam, adamw, adamax: how slowly the averages of gradient and squared gradient move; without it [0.9, 0.999]",
    )
    eps: float | None = Field(
        None, gt=0, description="added to divisors by all but sgd; without it as in PyTorch for that optimiser"
    )
    rho: Fraction | None = Field(
        None, description="adadelta: how slowly the average of squared gradients moves; without it 0.9"
    )
    alpha: Fraction | None = Field(
        None, description="rmsprop: how slowly the average of squared gradients moves; without it 0.99"
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="pull of the weights towards 0; of adamw apart from the gradient, of the others within it",
    )
    weight_decay_on: Literal["all", "weights"] = Field(
        "all", description="weights: not on biases, normalisation layers and other parameters of one axis"
    )
    schedule: ScheduleConfig = Field(
        ConstantConfig(name="constant"),
        description="how the rate changes while a member trains; a name alone is short for its section",
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        description="epochs, or parts of one, in which the rate rises in a straight line to lr; the schedule runs over the rest",
    )
    loss: Literal["cross_entropy", "focal", "bce"] = Field(
        "cross_entropy",
        description="focal: rows that are right already count less (Lin et al. 2017); bce: every class against all others by a sigmoid of its own (binary cross-entropy, its mean over the classes); the votes are then the sigmoids, divided by their sum",
    )
    focal_gamma: float | None = Field(
        None,
        gt=0,
        le=20,
        description="focal: the loss is multiplied by (1 - probability of the label) to that power; without it 2",
    )
    label_smoothing: Fraction = Field(0.0, description="share of each label that is spread evenly over all classes")
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = Field(
        "none",
        description="of the loss, by class: balanced, or {name: weight} with 1 for the others; from each member's own rows, with mean 1 over them",
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description="rows of an epoch: all once, or as many draws in which every class is as likely as the others",
    )
    logit_adjustment: float = Field(
        0.0,
        ge=0,
        le=10,
        description="that times the logarithm of each class's share of the member's rows is added to its logits in the training loss, so that rare classes need a clearer lead (Menon et al. 2021, who use 1)",
    )
    gradient_clip_norm: float | None = Field(None, gt=0, description="largest gradient norm, per member")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="vote with an exponential average of the weights")
    keep: Literal["last", "best_validation", "best_validation_error"] = Field(
        "last", description="the weights that vote: of the last epoch, or of the lowest validation loss or error"
    )
    early_stopping_epochs: int | None = Field(
        None, ge=1, description="a member that has not become better on validation for so many epochs trains no further"
    )
    watch_test: bool = Field(
        False, description="note loss and error on the test set after every epoch, for a curve; nothing chooses by it"
    )
    augmentation: AugmentationConfig = AugmentationConfig()

    @property
    def images_per_step(self) -> int:
        """Images whose gradients make one step of the optimiser."""
        return self.batch_size * self.accumulation

    @model_validator(mode="before")
    @classmethod
    def _schedule_by_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("schedule"), str):
            return {**values, "schedule": {"name": values["schedule"]}}
        return values

    @model_validator(mode="after")
    def _keys_fit_optimizer(self) -> Self:
        optional = {key for keys in OPTIMIZER_KEYS.values() for key in keys}
        unused = sorted(key for key in optional - OPTIMIZER_KEYS[self.optimizer] if getattr(self, key) is not None)
        if unused:
            takes = ", ".join(sorted(OPTIMIZER_KEYS[self.optimizer]))
            raise ValueError(f"{', '.join(unused)} has no effect with optimizer {self.optimizer}, which takes {takes}")
        made_up_for = {
            "class_weights": self.class_weights == "balanced",
            "sampling": self.sampling == "balanced",
            "logit_adjustment": self.logit_adjustment > 0,
        }
        if sum(made_up_for.values()) > 1:
            both = " and ".join(key for key, used in made_up_for.items() if used)
            raise ValueError(f"{both} each make up for rare classes: use one of them")
        if self.class_weights == {}:
            raise ValueError("class_weights is empty; expected none, balanced, or weights by the names of classes")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if problem := self._problem_of_course() or self._problem_of_loss():
            raise ValueError(problem)
        return self

    def _problem_of_course(self) -> str:
        if self.weight_decay_on != "all" and not self.weight_decay:
            return f"weight_decay_on {self.weight_decay_on} has no effect without weight_decay"
        if self.early_stopping_epochs is not None and self.keep == "last":
            return "early_stopping_epochs needs keep best_validation or best_validation_error, by which it knows what is better; keep is last"
        if self.warmup_epochs >= self.epochs:
            return f"warmup_epochs is {self.warmup_epochs:g}; expected less than epochs, {self.epochs}"
        if self.warmup_epochs and getattr(self.schedule, "warmup_fraction", 0):
            return f"warmup_epochs and schedule.warmup_fraction of {self.schedule.name} are two warm-ups: leave one of them out"
        return ""

    def _problem_of_loss(self) -> str:
        if self.focal_gamma is not None and self.loss != "focal":
            return f"focal_gamma has no effect with loss {self.loss}; expected focal"
        if self.loss == "bce" and self.logit_adjustment:
            return "logit_adjustment is made for the softmax of cross_entropy and focal: leave it out with loss bce"
        if self.loss == "focal" and self.label_smoothing:
            return "label_smoothing is not defined for the focal loss: leave one of them out"
        return ""
