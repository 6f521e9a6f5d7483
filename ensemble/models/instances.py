"""A network that somebody has built in Python, as text: what it is made of, without its weights.

    text, code = described(network)         # in the process that has it; code: texts of the user's files that define its classes
    network = rebuilt(text, code)           # anywhere, weights blank
    draw(network, code)                     # by the reset_parameters of its layers, from torch's generator

The text is JSON, not a pickle: it names classes and functions, and holds plain values and buffers. Whatever cannot be said so
(a lambda, a hook, a class of a notebook) is refused by its place in the network.
"""

from __future__ import annotations

import base64
import enum
import functools
import hashlib
import json
import math
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ensemble.cache import TEMPORARY, is_own, own_folder, private
from ensemble.errors import ConfigError
from ensemble.outside import own_code
from ensemble.outside.code_names import named, reference

_MOST_LETTERS = 2**22  # of the text, which lies in the configuration of the run
_BASE = frozenset(vars(nn.Module()))  # what every module has; the rest is its class's own


def described(network: nn.Module) -> tuple[str, dict[str, str]]:
    """The network as text, and the texts of the files that its own classes and functions are defined in.

    Raises ConfigError naming the place of what cannot travel.
    """
    writer = _Writer()
    # A module begins a line, so that the differences of two networks can be read.
    text = json.dumps(writer.value(network, "the network"), allow_nan=False).replace('{"module"', '\n{"module"').strip()
    if len(text) > _MOST_LETTERS:
        raise ConfigError(
            f"model: beside its weights the network holds {len(text) / 2**20:.0f} MiB of buffers and values, more than {_MOST_LETTERS >> 20}; make them parameters, or make the network in a function: model=that function"
        )
    return text, dict(sorted(writer.code.items()))


def rebuilt(text: str, code: Mapping[str, str]) -> nn.Module:
    """The network that a text describes, with weights that are not numbers."""
    with own_code.beside_each_other(code):
        network = _Reader(code).value(json.loads(text))
    assert isinstance(network, nn.Module), "described of a network"
    return network


def reference_of(network: nn.Module) -> str:
    """The name of the network's class, as in the text."""
    return reference(type(network), "model", _REMEDY)[0]


def kept_weights(network: nn.Module) -> tuple[str, str]:
    """The network's weights as a file in the cache, and its digest: the keys weights and weights_sha256 of a section.

    A start of the run reads it; the run itself, and its members, do without. Raises ConfigError where it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    try:
        path = own_folder("weights") / f"{digest}.safetensors"
        if not (is_own(path) and path.stat().st_size == len(content)):
            temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
            with private(temporary, "wb") as file:
                file.write(content)
            temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"keep_weights: the weights cannot be kept in the cache: {error}; set ENSEMBLE_CACHE to a folder of yours"
        ) from error
    return str(path), digest


def draw(network: nn.Module, code: Mapping[str, str], required: bool = True) -> None:
    """Draw the weights of a rebuilt network by the reset_parameters of its layers, those inside a layer before its own.

    required: raises ConfigError naming the layer of weights that none of them draws; else such are drawn from a normal
    distribution, as nothing that takes their place later may be without a number.
    """
    with own_code.beside_each_other(code):
        for layer in _inner_first(network, set()):
            if (reset := _reset_of(layer)) is not None:
                try:
                    reset()
                except Exception as error:  # the layer may be a user's
                    kind = type(layer).__name__
                    raise ConfigError(
                        f"model: reset_parameters of {kind}: failed: {own_code.told(error, code)}; correct it, or keep_weights=True"
                    ) from error
    for name, parameter in network.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point() or not bool(parameter.isnan().any()):
            continue
        if not required:
            nn.init.normal_(parameter, std=0.02)
            continue
        place, _, key = name.rpartition(".")
        kind = type(network.get_submodule(place)).__name__
        raise ConfigError(
            f"model: {key} of {place or 'the network itself'} ({kind}) is drawn anew by no reset_parameters, so a member would have nothing to start from; give {kind} a method reset_parameters that draws it, or make the network in a function of a file and give that (model=make_net), or start all members from the network's own weights (keep_weights=True)"
        )


def _inner_first(layer: nn.Module, seen: set[int]) -> Iterator[nn.Module]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for child in layer.children():
        yield from _inner_first(child, seen)
    yield layer


def _reset_of(layer: nn.Module) -> Callable[[], object] | None:
    """What draws a layer's weights; some of torch's own, such as attention, have it under another name."""
    own = type(layer).__module__.startswith("torch.")
    found = getattr(layer, "reset_parameters", None) or (getattr(layer, "_reset_parameters", None) if own else None)
    return found if callable(found) else None


class _Writer:
    """Turns values into what JSON has. A module, a tensor or an object that stands in several places is written once."""

    def __init__(self) -> None:
        self.code: dict[str, str] = {}
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no number is given twice

    def value(self, value: Any, where: str) -> Any:
        """where: its place in the network, for messages."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.generic):
            return self.value(value.item(), where)
        if kind is list:
            return [self.value(inner, f"{where}[{n}]") for n, inner in enumerate(value)]
        if kind in _SEQUENCES:
            return {_SEQUENCES[kind]: [self.value(inner, f"{where}[{n}]") for n, inner in enumerate(value)]}
        if kind in (set, frozenset):
            return {kind.__name__: sorted((self.value(inner, where) for inner in value), key=json.dumps)}
        if kind in (dict, OrderedDict):
            return {kind.__name__: [[self.value(k, where), self.value(v, f"{where}[{k!r}]")] for k, v in value.items()]}
        if kind in (torch.dtype, torch.device):
            return {kind.__name__: str(value).removeprefix("torch.")}
        if isinstance(value, enum.Enum):
            return {"enum": self._reference(kind, where), "key": value.name}
        if isinstance(value, functools.partial):
            parts = {"arguments": value.args, "keywords": value.keywords}
            return {"partial": self._reference(value.func, where)} | {k: self.value(v, where) for k, v in parts.items()}
        if isinstance(value, nn.Module | Tensor):
            return self._once(value, where, self._module if isinstance(value, nn.Module) else self._tensor)
        if callable(value) and hasattr(value, "__qualname__"):  # a function or a class
            return {"name": self._reference(value, where)}
        return self._once(value, where, self._object)

    def _once(self, value: Any, where: str, write: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any]:
        if id(value) in self._numbers:
            return {"again": self._numbers[id(value)]}
        self._numbers[id(value)] = number = len(self._numbers)
        self._alive.append(value)
        return {**write(value, where), "number": number}

    def _module(self, module: nn.Module, where: str) -> dict[str, Any]:
        state: Any = module.__getstate__() if "__getstate__" in _methods(type(module)) else vars(module)  # type: ignore[no-untyped-call]
        found: dict[str, Any] = {"module": self._reference(type(module), where)}
        at = "" if where == "the network" else f"{where}."
        for name, parameter in state["_parameters"].items():
            if type(parameter).__name__.startswith("Uninitialized"):
                raise ConfigError(
                    f"model: {at}{name} has no shape yet; call the network once on a batch of images first"
                )
        if hooks := [key for key in _BASE if "_hooks" in key and state.get(key)]:
            raise ConfigError(
                f"model: {where} ({type(module).__name__}) has hooks ({', '.join(sorted(hooks))}), which cannot travel with the run; {_REMEDY}"
            )
        if passing := sorted(state.get("_non_persistent_buffers_set", ())):
            found["passing"] = passing
        for key in ("_parameters", "_buffers", "_modules"):
            if inner := state[key]:
                found[key] = {name: self.value(held, f"{at}{name}") for name, held in inner.items()}
        own = {key: self.value(held, f"{at}{key}") for key, held in state.items() if key not in _BASE}
        return {**found, "own": own} if own else found

    def _tensor(self, tensor: Tensor, where: str) -> dict[str, Any]:
        parameter, kind = isinstance(tensor, nn.Parameter), type(tensor)
        if kind not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout is not torch.strided or tensor.is_meta:
            raise ConfigError(
                f"model: {where} is a tensor of the kind {kind.__name__}, which cannot travel with the run; {_REMEDY}"
            )
        found: dict[str, Any] = {"tensor": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        if parameter and tensor.is_floating_point():
            return {**found, "trained": tensor.requires_grad}
        if parameter:
            found["trained"] = False
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return {**found, "content": base64.b64encode(zlib.compress(content)).decode()}

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        """A plain object: its class, and its attributes."""
        kind = type(value)
        special = _methods(kind) & {"__reduce__", "__reduce_ex__", "__getstate__", "__slots__"}
        if special or not hasattr(value, "__dict__"):
            raise ConfigError(f"model: {where} is a {kind.__name__}, which cannot travel with the run; {_REMEDY}")
        state = {key: self.value(held, f"{where}.{key}") for key, held in vars(value).items()}
        return {"object": self._reference(kind, where), "own": state}

    def _reference(self, thing: Any, where: str) -> str:
        found, code = reference(thing, f"model: {where}", _REMEDY)
        for name, text in code.items():
            if self.code.setdefault(name, text) != text:
                raise ConfigError(
                    f"model: two files are called {name}, and the run's code has one of each name; rename one of them"
                )
        return found


_REMEDY = "expected layers, plain values, and classes and functions at the top of Python files; or make the network in a function of a file, and give that: model=make_net"
_SEQUENCES: dict[type, str] = {tuple: "tuple", torch.Size: "size"}
_PLAIN: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple, "size": torch.Size, "set": set, "frozenset": frozenset, "dict": dict, "OrderedDict": OrderedDict,
}  # fmt: skip


class _Reader:
    """The other way round."""

    def __init__(self, code: Mapping[str, str]) -> None:
        self._code, self._known = code, dict[int, Any]()

    def value(self, node: Any) -> Any:
        """What a part of the text stands for."""
        if isinstance(node, list):
            return [self.value(inner) for inner in node]
        if not isinstance(node, dict):
            return node
        if "again" in node:
            return self._known[node["again"]]
        for key, make in (("module", self._module), ("tensor", self._tensor), ("object", self._object)):
            if key in node:
                return make(node)
        if "enum" in node:
            return self._named(node["enum"])[node["key"]]
        if "partial" in node:
            arguments, keywords = self.value(node["arguments"]), self.value(node["keywords"])
            return functools.partial(self._named(node["partial"]), *arguments, **keywords)
        ((kind, held),) = node.items()
        if kind in _PLAIN:
            return _PLAIN[kind](self.value(held))
        others: dict[str, Callable[[str], Any]] = {
            "float": float, "device": torch.device, "dtype": _dtype, "name": self._named,
        }  # fmt: skip
        return others[kind](held)

    def _named(self, name: str) -> Any:
        return named(name, self._code)

    def _module(self, node: dict[str, Any]) -> nn.Module:
        kind = self._named(node["module"])
        module: nn.Module = kind.__new__(kind)
        self._known[node["number"]] = module  # before what it holds, which may refer to it
        nn.Module.__init__(module)
        state = dict(vars(module))
        for key in ("_parameters", "_buffers", "_modules"):
            state[key] = {name: self.value(held) for name, held in node.get(key, {}).items()}
        state["_non_persistent_buffers_set"] = set(node.get("passing", ()))
        state |= {name: self.value(held) for name, held in node.get("own", {}).items()}
        module.__setstate__(state)  # type: ignore[no-untyped-call]
        return module

    def _tensor(self, node: dict[str, Any]) -> Tensor:
        dtype, shape = _dtype(node["dtype"]), node["tensor"]
        if "content" in node:
            content = bytearray(zlib.decompress(base64.b64decode(node["content"])))
            flat = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
            tensor = torch.empty(shape, dtype=dtype)
            tensor.copy_(flat.view(dtype).view(shape))
        else:
            tensor = torch.full(shape, math.nan, dtype=dtype)
        made = nn.Parameter(tensor, node["trained"]) if "trained" in node else tensor
        self._known[node["number"]] = made
        return made

    def _object(self, node: dict[str, Any]) -> Any:
        kind = self._named(node["object"])
        made = self._known[node["number"]] = kind.__new__(kind)
        vars(made).update({name: self.value(held) for name, held in node["own"].items()})
        return made


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype), name
    return found


def _methods(kind: type) -> set[str]:
    """What a class and its bases define, but for those that every class or every module has."""
    return {name for base in kind.__mro__ if base not in (object, nn.Module) for name in vars(base)}
