"""Members from their stored weights, as one network that votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ensemble.config.groups import Group
from ensemble.models import ImageShape
from ensemble.training.frozen_features import voting_stack
from ensemble.training.stack import Stack
from ensemble.training.suitability import shares_features


def stack_of(group: Group, image_shape: ImageShape, num_classes: int, states: Sequence[Mapping[str, Tensor]]) -> Stack:
    """The members with these weights as one network on images, in the mode of evaluation.

    states: of whole networks, named as in their state_dict, with the tensors of the group's network. Members that differ in
    their last layer alone share the rest.
    """
    stack = (
        voting_stack(group, image_shape, num_classes, states)
        if shares_features(group, image_shape, num_classes)
        else None
    )
    if stack is None:
        stack = Stack.build(group.model, image_shape, num_classes, [0] * len(states))
        for position, state in enumerate(states):
            stack.load_member_state(position, dict(state))
    stack.one_vs_all = group.training.loss == "bce"
    stack.eval()
    return stack
