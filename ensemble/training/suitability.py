"""Whether a network suits the images, and how many members of it can be one network. Importing this loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ensemble.config.groups import Group
from ensemble.config.network import Network
from ensemble.config.schema import Experiment
from ensemble.errors import ConfigError
from ensemble.outside import own_code
from ensemble.training.job import CLASS_WEIGHTS, START, FloatVector
from ensemble.types import Votes

ELSEWHERE = "trained elsewhere, nobody here knows on which images: of those that are validation or test images of this run its votes say more than of new ones"


def check_network(model: Network, image_shape: tuple[int, int, int], num_classes: int, several: bool) -> Iterator[str]:
    """What is worth saying about a network; several: there are more members than one.

    Raises ConfigError for a network that does not suit the images, or cannot be trained.
    """
    from ensemble.models.work import multiply_adds
    from ensemble.training.trial import check, obstacles

    multiply_adds(model, image_shape, num_classes)  # which builds it too, and explains whatever a user's code raises
    try:
        with own_code.staying():
            said = check(model, image_shape, num_classes)
            found = obstacles(model, image_shape, num_classes) if several else ()
    except own_code.EndsProgramError as error:
        raise ConfigError(f"model {model.name}: asked for images, {error}") from error
    yield from said
    if found:
        yield (
            f"members are trained one by one, since {', '.join(found)} cannot be stacked; a GPU computes them as one by torch.func, "
            "where that gives the same"
        )


def shares_features(group: Group, image_shape: tuple[int, int, int], num_classes: int) -> bool:
    """True where the members differ in their last layer alone, so that all of them are one small network."""
    if group.model.freeze == "none":
        return False
    from ensemble.training.frozen_features import head_layer

    return head_layer(group, image_shape, num_classes) is not None


def check_views_of_features(experiment: Experiment, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises ConfigError for views of images (`evaluation.tta`) that are known by their features alone."""
    for group in experiment.groups if experiment.evaluation.tta.active else ():
        if shares_features(group, image_shape, num_classes):
            raise ConfigError(
                f"evaluation.tta: of {group.name} only the last layer is trained, on features that are computed once of every image as it is (model.freeze); leave tta out, or train more layers"
            )


@dataclass(frozen=True)
class Starts:
    """What members start from: as `Arrays` have it, what is worth saying of it, and the files of what each group's have alike.

    votes: of members that have no network, by the name of their group.
    """

    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shared: dict[str, bytes] = field(default_factory=dict)
    votes: dict[str, Votes] = field(default_factory=dict)


def starts(groups: Iterable[Group], image_shape: tuple[int, int, int], num_classes: int) -> Starts:
    """The weights that members start from, and of members on features of one frozen backbone that backbone.

    Raises ConfigError for weights of another network, and for parts to be frozen that it does not have.
    """
    found = Starts()
    for group in groups:
        model, recipe = group.model, group.training
        if model.mean is not None and (len(model.mean), image_shape[0]) in ((1, 3), (3, 1)):
            found.notes.append(
                f"{group.name}: standardised by {'the average of the numbers for three channels' if len(model.mean) == 3 else 'the one number for every channel'}"
            )
        elif model.mean is not None and len(model.mean) != image_shape[0]:
            raise ConfigError(
                f"model.mean has {len(model.mean)} numbers, but the images of this data set have {image_shape[0]} channels; give model.mean and model.std a number for each channel"
            )
        if not (model.brings_weights or model.freeze != "none" or recipe.lr_backbone_factor != 1):
            continue
        from safetensors.torch import save

        from ensemble.training.frozen_features import backbone_of
        from ensemble.training.start import starting_tensors, told_of_frozen

        frozen = told_of_frozen(group, image_shape, num_classes)
        tensors, said = starting_tensors(model, image_shape, num_classes, group.finished) or ({}, [])
        if tensors:
            found.arrays[START + group.name] = np.frombuffer(save(tensors), np.uint8)
        if group.finished:
            said = [*said, ELSEWHERE]
        found.notes.extend(f"{group.name}: {note}" for note in said)
        if frozen is not None:
            found.notes.append(f"{group.name}: {frozen}")
        if (backbone := backbone_of(group, image_shape, num_classes, tensors)) is not None:
            found.shared[group.name] = save({name: tensor.contiguous() for name, tensor in backbone.items()})
    return found


def named_class_weights(groups: Iterable[Group], class_names: Sequence[str]) -> dict[str, FloatVector]:
    """The weights that the groups give classes by name, as `Arrays` have them. Raises ConfigError for a class there is not."""
    arrays = {}
    for group in groups:
        given = group.training.class_weights
        if not isinstance(given, dict):
            continue
        for name in given:
            if name not in class_names:
                near = difflib.get_close_matches(name, class_names, 3, 0.5) or list(class_names[:10])
                raise ConfigError(
                    f"training.class_weights: {name!r} is no class of this data set; there are {', '.join(near)}{', ...' if len(class_names) > len(near) else ''}"
                )
        arrays[CLASS_WEIGHTS + group.name] = np.array([given.get(name, 1.0) for name in class_names], np.float64)
    return arrays


def largest_stack(
    model: Network, image_shape: tuple[int, int, int], num_classes: int, wanted: int, device: str = "cpu"
) -> int:
    """How many members can be computed as one network: as many as wanted, or 1 where a layer has no K-fold form.

    On a GPU ("cuda") torch.func computes those as one all the same, where that gives what each gives alone.
    """
    from ensemble.training.mapped import DEVICES
    from ensemble.training.trial import maps, obstacles

    if wanted <= 1 or not obstacles(model, image_shape, num_classes):
        return wanted
    return wanted if device in DEVICES and maps(model, image_shape, num_classes) else 1
