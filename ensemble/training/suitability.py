"""Whether a network suits the images, and how many members of it can be one network. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble.config.network import Network


def check_network(model: Network, image_shape: tuple[int, int, int], num_classes: int, several: bool) -> Iterator[str]:
    """What is worth saying about a network; several: there are more members than one.

    Raises ConfigError for a network that does not suit the images, or cannot be trained.
    """
    from ensemble.models.work import multiply_adds
    from ensemble.training.trial import check, obstacles

    multiply_adds(model, image_shape, num_classes)  # which builds it too, and explains whatever a user's code raises
    yield from check(model, image_shape, num_classes)
    if several and (found := obstacles(model, image_shape, num_classes)):
        yield f"members are trained one by one, since {', '.join(found)} cannot be stacked"


def largest_stack(model: Network, image_shape: tuple[int, int, int], num_classes: int, wanted: int) -> int:
    """How many members can be computed as one network: as many as wanted, or 1 where a layer has no K-fold form."""
    from ensemble.training.trial import obstacles

    return 1 if wanted > 1 and obstacles(model, image_shape, num_classes) else wanted
