"""Whether a network suits the images, and how many members of it can be one network. Importing this loads no torch."""

from __future__ import annotations

from ensemble.config.network import Network
from ensemble.errors import ConfigError


def check_network(model: Network, image_shape: tuple[int, int, int], num_classes: int) -> list[str]:
    """Its layers without a K-fold form. Raises ConfigError for a network that does not suit the images, or has no weights."""
    from ensemble.models import build_model, num_parameters
    from ensemble.models.work import multiply_adds
    from ensemble.training.stack import unstackable

    multiply_adds(model, image_shape, num_classes)  # which builds it too, and explains whatever a user's code raises
    network = build_model(model, image_shape, num_classes)
    if not num_parameters(network):
        raise ConfigError(f"model {model.name}: the network has no weights to train")
    return unstackable(network)


def largest_stack(model: Network, image_shape: tuple[int, int, int], num_classes: int, wanted: int) -> int:
    """How many members can be computed as one network: as many as wanted, or 1 where a layer has no K-fold form."""
    from ensemble.models import build_model
    from ensemble.training.stack import unstackable

    return 1 if wanted > 1 and unstackable(build_model(model, image_shape, num_classes)) else wanted
