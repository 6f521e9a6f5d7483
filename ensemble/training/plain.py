"""What a layer does beyond what its type says: somebody's networks hold hooks, frozen weights and forwards of their own.

oddity(nn.Conv2d(1, 4, 3, padding_mode="circular"))     # "with padding_mode circular"
is_chain(nn.Sequential(...))                            # True: its layers one after the other, and nothing else
"""

from __future__ import annotations

from torch import nn

_WITH_TWINS = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)
_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}  # of these


def oddity(layer: nn.Module) -> str | None:
    """What a layer does beyond what its type says, in words, so that no twin may stand for it; None for a plain one."""
    if _hooked(layer):
        return "with hooks"  # as of weight_norm and spectral_norm in their older forms
    if "forward" in vars(layer):
        return "with a forward of its own"
    if any(not parameter.requires_grad for parameter in layer.parameters(recurse=False)):
        return "with frozen weights"
    if type(layer) in _WITH_TWINS and (more := {*layer._parameters, *layer._buffers} - _TENSORS):
        return f"with further tensors ({', '.join(sorted(more))})"
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return f"with padding_mode {layer.padding_mode}"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and (layer.weight is None or layer.running_mean is None):
        return "without weights" if layer.weight is None else "without running statistics"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.momentum is None:
        return "with momentum None"
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        return f"of axes {layer.start_dim} to {layer.end_dim}"
    if isinstance(layer, nn.MaxPool2d | nn.AdaptiveMaxPool2d) and layer.return_indices:
        return "with return_indices"
    return None


def is_chain(module: nn.Module) -> bool:
    """True for an nn.Sequential, also of a class of its own, whose forward is that of nn.Sequential."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and _plain_call(module)


def _plain_call(module: nn.Module) -> bool:
    return "forward" not in vars(module) and not _hooked(module)


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)
