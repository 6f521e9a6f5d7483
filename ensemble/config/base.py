"""The bases of all configuration sections: frozen, strict types, no unknown keys, only finite numbers.

A `Part` is a section that is chosen by its name among all that are registered. Whoever adds one writes a single class:

    @register_network
    class Tiny(Network):
        \"\"\"One hidden layer.\"\"\"

        name: Literal["tiny"]
        width: int = Field(8, ge=1)

        def build(self, image_shape, num_classes): ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ensemble.registry import Registry


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=False,
        protected_namespaces=(),
    )


class Part(Section):
    """A section that is chosen by name. A direct subclass, with a `registry` of its own, stands for all of its kind."""

    registry: ClassVar[Registry[type[Any]]]
    registered: ClassVar[int] = 0  # how many of all kinds are, so that what was found out about them is known to be old
    alike: ClassVar[bool] = False  # a key that one lacks and another has is worth a hint, as among sources of images
    name: str

    build: ClassVar[Callable[..., Any]]

    @classmethod
    def stands_for_all(cls) -> bool:
        """True for the class that annotations name, False for each of those that can be chosen."""
        return "registry" in vars(cls)

    @classmethod
    def choices(cls) -> list[type[Self]]:
        """Every class that can be chosen."""
        return list(dict.fromkeys(cls.registry.all().values()))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """By which this class is chosen: the values of its key `name`."""
        annotation = cls.model_fields["name"].annotation
        return get_args(annotation) if get_origin(annotation) is Literal else ()

    @classmethod
    def choose(cls, value: Any) -> Self:
        """The section that a mapping with a name describes. Raises pydantic's ValidationError."""
        if isinstance(value, dict) and isinstance(name := value.get("name"), str):
            cls.registry.find(name)
        chosen: Self = _union(tuple(cls.choices())).validate_python(value)
        return chosen

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls.stands_for_all():
            return handler(source)
        return made_by(cls.choose)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if not cls.stands_for_all():
            return handler(schema)
        names = sorted(name for choice in cls.choices() for name in choice.names())
        return {"anyOf": [{"enum": names}, handler(_union(tuple(cls.choices())).core_schema)]}


def made_by(make: Callable[[Any], Any]) -> CoreSchema:
    """Of a field whose value is made by a function, and written as whatever it has become."""
    as_it_is = core_schema.wrap_serializer_function_ser_schema(
        lambda value, serialise: serialise(value), schema=core_schema.any_schema()
    )
    return core_schema.no_info_plain_validator_function(make, serialization=as_it_is)


@functools.lru_cache
def _union(choices: tuple[type[Part], ...]) -> TypeAdapter[Any]:
    """Chooses by `name`; its findings lie at the same places as those of a union that is written down."""
    together: Any = Annotated[Union[choices], Field(discriminator="name")]  # noqa: UP007 - the types are known only now
    return TypeAdapter(together)


def register(part: type[Part]) -> None:
    """Make a part known by its names. Raises TypeError where it has none, or lacks a method of its base."""
    if not part.names():
        raise TypeError(f'{part.__name__}: needs its name as a key, such as name: Literal["{part.__name__.lower()}"]')
    part.registry.register(part, *part.names())
    Part.registered += 1
