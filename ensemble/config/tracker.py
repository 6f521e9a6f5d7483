"""What every tracker that a configuration can name has; the trackers are in `ensemble/tracking/trackers`, a file each.

A tracker stands under `tracking` by the name that it is registered under:

    @register_tracker("csv_lines")
    class CsvLines(TrackerSection):
        \"\"\"A line of CSV per epoch.\"\"\"

        file: str = "epochs.csv"                        # tracking: {csv_lines: {file: other.csv}}

        def build(self, job): ...                       # what hears the events
"""

from __future__ import annotations

import functools
import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ensemble.config.base import Part, Section, made_by
from ensemble.errors import ConfigError
from ensemble.events import Event
from ensemble.registry import Registry

_TRACKERS = "ensemble.tracking.trackers"


@dataclass(frozen=True, eq=False)
class TrackerJob:
    """What a tracker is built from.

    name, experiment: the run's name and resolved configuration as plain values; there are no secrets in it. folder: the run folder.
    earlier: reads the events of earlier starts of the same run, each with its unix seconds. notify: takes a line that a person should
    read, from any thread. makers: of files that can be kept with a run, by what they are: each takes a run folder and the
    path to write.
    """

    name: str
    experiment: Mapping[str, Any]
    folder: Path
    notify: Callable[[str], None]
    earlier: Callable[[], Sequence[tuple[float, Event]]] = tuple
    makers: Mapping[str, Callable[[Path, Path], None]] = field(default_factory=dict)


class TrackerSection(Section):
    """The keys of a tracker, how it is built, and what it needs."""

    registry: ClassVar[Registry[type[TrackerSection]]] = Registry(
        "tracker", "ensemble.trackers",
        {
            "wandb": f"{_TRACKERS}.wandb", "tensorboard": f"{_TRACKERS}.tensorboard", "mlflow": f"{_TRACKERS}.mlflow",
            "metrics_port": f"{_TRACKERS}.metrics_port",
        },
    )  # fmt: skip
    value_of: ClassVar[str] = ""  # its only key, where that is written without a section of keys: `tensorboard: true`
    always: ClassVar[bool] = False  # it has its defaults where nobody names it; others are not there then
    packages: ClassVar[Mapping[str, str]] = {}  # what it imports, by module: the package to install

    @property
    def called(self) -> str:
        """The name that it is registered under."""
        return next((name for name, part in self.registry.all().items() if part is type(self)), type(self).__name__)

    @property
    def wanted(self) -> bool:
        """False where the keys say that it is not to be built."""
        return True

    def require(self) -> None:
        """Raises ConfigError where something that it needs is missing. Asked before there is a run folder."""
        missing = [package for module, package in self.packages.items() if importlib.util.find_spec(module) is None]
        if missing:
            names = " ".join(missing)
            raise ConfigError(
                f"tracking.{self.called} needs the package {', '.join(missing)}, which is missing: pip install {names}, or leave the key out"
            )

    def idle_keys(self) -> Iterator[tuple[str, str]]:
        """Keys that differ from their defaults and can change nothing, each with the reason."""
        return iter(())

    @abstractmethod
    def build(self, job: TrackerJob) -> Any:
        """What hears the events of the run (see `ensemble.tracking.base.Tracker`). Raises ConfigError where it cannot be had."""

    @classmethod
    def as_key(cls) -> tuple[Any, Any]:
        """Type and default of its key under `tracking`."""
        if cls.value_of:
            info = cls.model_fields[cls.value_of]
            return info.annotation, info
        if cls.always:
            return cls, cls()
        return cls | None, Field(None, description=(cls.__doc__ or "").strip().partition("\n")[0])

    @classmethod
    def section_of(cls, value: Any) -> Self | None:
        """The section of what stands under its key; None where nothing does."""
        found: Self | None = cls(**{cls.value_of: value}) if cls.value_of else value
        return found


class TrackingConfig(Section):
    """Who hears of a run besides its event log: a key for every tracker that is registered."""

    registry: ClassVar[Registry[type[TrackerSection]]] = TrackerSection.registry

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *_args: Any, **_values: Any) -> Self:
        return super().__new__(cls.of_all() if cls.stands_for_all() else cls)

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return _restored, ({name: value for name, value in values.items() if value is not None},)

    @classmethod
    def stands_for_all(cls) -> bool:
        """True for the class that annotations name, False for those that have the keys of some trackers."""
        return "registry" in vars(cls)

    @classmethod
    def of_all(cls) -> type[Self]:
        """The class that has the keys of all trackers that are registered."""
        made: type[Self] = _of_all(tuple(TrackerSection.registry.all().items()))
        return made

    def sections(self) -> Iterator[tuple[str, TrackerSection]]:
        """The section of every tracker that has one, by its key: also of those that are not wanted."""
        for name, tracker in TrackerSection.registry.all().items():
            if (section := tracker.section_of(getattr(self, name, None))) is not None:
                yield name, section

    @classmethod
    def _checked(cls, value: Any) -> Self:
        if isinstance(value, TrackingConfig):
            return value  # type: ignore[return-value]
        for name in value if isinstance(value, dict) else ():
            TrackerSection.registry.find(str(name))  # of an installed package
        return cls.of_all().model_validate(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls.stands_for_all():
            return handler(source)
        return made_by(cls._checked)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(cls.of_all().__pydantic_core_schema__ if cls.stands_for_all() else schema)


@functools.lru_cache
def _of_all(trackers: tuple[tuple[str, type[TrackerSection]], ...]) -> Any:
    """One class for each set of trackers, so that its instances compare as equal."""
    fields: dict[str, Any] = {name: tracker.as_key() for name, tracker in trackers}
    return create_model(
        "TrackingConfig", __base__=TrackingConfig, __module__=__name__, __doc__=TrackingConfig.__doc__, **fields
    )


def _restored(values: dict[str, Any]) -> TrackingConfig:
    """A section that was pickled; trackers that are not registered in this process are left out."""
    return TrackingConfig(**{name: value for name, value in values.items() if TrackerSection.registry.find(name)})


_Class = TypeVar("_Class", bound=type[TrackerSection])


def register_tracker(name: str) -> Callable[[_Class], _Class]:
    """Class decorator: configurations can name this tracker under `tracking`.

    Raises ConfigError where the name is taken, TypeError for one that can be no key and for a class that builds nothing.
    """

    def register(tracker: _Class) -> _Class:
        if not name.isidentifier() or name != name.lower() or hasattr(TrackingConfig, name):
            raise TypeError(f"{tracker.__name__}: {name!r} can be no key; expected a name such as csv_lines")
        tracker.registry.register(tracker, name)
        Part.registered += 1
        return tracker

    return register
