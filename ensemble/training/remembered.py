"""What was found out about a network by building or trying it is asked again and again, and costs seconds: it is remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ensemble.config.network import Network
from ensemble.models import ImageShape

_KEPT = 64
_Answer = TypeVar("_Answer")


def once_per_network(
    find: Callable[[Network, ImageShape, int], _Answer],
) -> Callable[[Network, ImageShape, int], _Answer]:
    """Decorator: the answer is found once per process for each network, image shape and number of classes.

    A network is known by its keys and by how it is built, since a class may be defined anew under the same name.
    """
    known: OrderedDict[tuple[Any, str, ImageShape, int], _Answer] = OrderedDict()

    @wraps(find)
    def answered(model: Network, image_shape: ImageShape, num_classes: int) -> _Answer:
        key = (type(model).build, model.model_dump_json(), image_shape, num_classes)
        if key not in known:
            known[key] = find(model, image_shape, num_classes)
            while len(known) > _KEPT:
                known.popitem(last=False)
        return known[key]

    return answered
