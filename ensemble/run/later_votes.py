"""Further sets for a stored run: its weights vote on images that nobody thought of when it was trained.

vote_later(Path("runs/quickstart"), ["mnist_c", "fashion_mnist"])
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ensemble.config import Experiment
from ensemble.config.data import DataConfig
from ensemble.config.evaluation import RESERVED, TEST
from ensemble.config.loading import load_sets, parse_stored
from ensemble.config.schema import SetConfig
from ensemble.data import DATASETS, Dataset
from ensemble.data.corruptions import RECIPES
from ensemble.data.named_sets import NamedSet, load_named_set, remarks_on, with_test_images
from ensemble.data.pixel_rule import PixelRule
from ensemble.errors import ConfigError, EnsembleError, StorageError
from ensemble.events import Event, Notice
from ensemble.executors import Executor, build_executor
from ensemble.executors.choose import planned_device
from ensemble.inference.stored import require_networks
from ensemble.results.run_data import load_run_data, require_trust
from ensemble.run.planning import training_work
from ensemble.run.set_voting import vote_on_sets
from ensemble.storage import RunFolder
from ensemble.storage.damage import Damaged
from ensemble.storage.names import CONFIG, DATASET
from ensemble.storage.set_store import SetStore
from ensemble.types import Task


def vote_later(
    path: Path,
    names: Sequence[str],
    executor: Literal["auto", "inline", "processes", "ray"] | None = None,
    trust_code: bool = False,
    tell: Callable[[str], None] = lambda _line: None,
) -> None:
    """Let the members of a run vote on further sets, and store what they say.

    names: recipes of corruptions, data sets, sets of the run's configuration, YAML files. executor: instead of the run's.
    trust_code: see `load_ensemble`. tell: takes lines about what is done. Raises ConfigError for a name that stands for nothing
    and for code that is not trusted, StorageError where the data set of the run is needed and is not what it was.
    """
    stored = RunFolder.read(path)
    experiment = parse_stored(stored.config(), str(path / CONFIG))
    require_networks(experiment, path, "be cast on further sets", trust_code)
    compute = experiment.compute.model_copy(update={"executor": executor or _alone(experiment), "parallel": "members"})
    experiment = experiment.model_copy(update={"compute": compute})
    wanted = [one for name in names for one in sets_of(name, experiment, stored.dataset().class_names)]
    _require_same(stored, wanted)
    lower = [one.name.lower() for one in wanted]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise ConfigError(f"--on: {twice[0]} is named twice; give each set its own name")
    for stored_set in experiment.evaluation.sets:
        if stored_set in wanted and stored_set.data is not None:
            require_trust(path, stored_set.data, trust_code)
    needed = any(one.data is None for one in wanted)
    dataset = load_run_data(stored, trust_code) if needed else _described(stored)
    sets = [load_named_set(one, dataset) for one in wanted]
    if any(one.kind == "unknown" for one in wanted) and TEST not in SetStore(stored).names():
        try:
            sets = with_test_images(sets, dataset if needed else load_run_data(stored, trust_code))
        except EnsembleError as error:
            tell(
                f"note: unknown images are judged without energies, which those of the test images are needed for: {error}"
            )
    for remark in remarks_on(sets, _to_compare_with(sets, dataset, needed, stored, trust_code, tell)):
        tell(f"{'warning' if remark.warning else 'note'}: {remark.text}")
    device, opened = planned_device(compute), list[Executor]()

    def start(tasks: Sequence[Task], images: Mapping[str, int]) -> Executor:
        third = {name: count // 3 for name, count in images.items()}  # looking is about a third of the work of learning
        work = training_work(third, experiment, device, dataset.image_shape, dataset.num_classes)
        opened.append(build_executor(compute, device, tasks, work, experiment.name))
        return opened[0]

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            tell(f"{'warning' if event.warning else 'note'}: {event.message}")

    with RunFolder.open(path.absolute().parent, path.absolute().name, stored.config(), stored.plan()) as folder:
        _refuse_replacement(SetStore(folder), sets)
        try:
            for line in vote_on_sets(experiment, device, sets, folder, start, hear):
                tell(f"warning: {line}")
        finally:
            for one in opened:
                one.close()


def _refuse_replacement(store: SetStore, sets: Sequence[NamedSet]) -> None:
    """Raises ConfigError where a name stands for another set already: its votes would be lost."""
    for one in sets:
        with contextlib.suppress(Damaged):
            if one.name in store.names() and store.facts(one.name).definition != one.definition:
                raise ConfigError(
                    f"--on: the run has votes on another set named {one.name} ({store.facts(one.name).source}); give this one another name, or remove those first: ensemble evaluate RUN --forget {one.name}"
                )


def forget_sets(path: Path, names: Sequence[str]) -> None:
    """Remove the votes on these sets from a run. Raises ConfigError for one that it has no votes on."""
    stored = RunFolder.read(path)
    with RunFolder.open(path.absolute().parent, path.absolute().name, stored.config(), stored.plan()) as folder:
        store = SetStore(folder)
        further = [name for name in store.names() if name not in RESERVED]  # not what belongs to the run itself
        for name in names:  # all of them, before any is removed
            if name not in further:
                raise ConfigError(f"--forget {name}: no votes on such a set; there are {', '.join(further) or 'none'}")
        for name in dict.fromkeys(names):
            store.forget(name)
        left = [store.facts(name).kind for name in store.names()]
        if "known" in left and "unknown" not in left:
            store.forget(TEST)


def _require_same(stored: RunFolder, wanted: Sequence[SetConfig]) -> None:
    """Raises ConfigError for a name that differs from a stored one in its case alone, which some file systems do not tell apart."""
    known = {name.lower(): name for name in SetStore(stored).names()}
    for one in wanted:
        if known.get(one.name.lower(), one.name) != one.name:
            raise ConfigError(
                f"--on: the run has votes on a set {known[one.name.lower()]}, and {one.name} differs from it in its case alone; choose another name"
            )


def sets_of(name: str, experiment: Experiment, classes: Sequence[str]) -> list[SetConfig]:
    """The sets that a name stands for: of the run's configuration, of a file, a recipe, or a data set.

    classes: of the run; a data set that has any of them is shifted images, another one unknown images.
    """
    own = [one for one in experiment.evaluation.sets if one.name == name]
    if own:
        return own
    if name in RECIPES:
        return [SetConfig.model_validate({"name": name, "kind": "shifted", "corruptions": name})]
    source = DataConfig.registry.find(name)
    if source is not None and name in source.published:
        # Another data set lies where the run's own does only where that is a published one, not a folder of pictures.
        place = {"root": experiment.data.data_folder} if "root" in source.model_fields else {}
        data = DataConfig.choose({"name": name, **place})
        shared = set(classes) & set(DATASETS[name].class_names)
        return [SetConfig(name=name, kind="shifted" if shared else "unknown", data=data)]
    if Path(name).suffix in (".yaml", ".yml"):
        return list(load_sets(Path(name)))
    known = [one.name for one in experiment.evaluation.sets]
    raise ConfigError(
        f"--on {name}: stands for nothing; expected one of {', '.join([*known, *RECIPES])}, a data set ({', '.join(DATASETS)}), or a YAML file with evaluation: {{sets: [...]}}"
    )


def _alone(experiment: Experiment) -> str:
    """The run's executor, where this one process can be it."""
    executor = experiment.compute.executor
    return "auto" if executor == "accelerate" else executor


def _to_compare_with(
    sets: Sequence[NamedSet],
    dataset: Dataset,
    whole: bool,
    stored: RunFolder,
    trust_code: bool,
    tell: Callable[[str], None],
) -> Dataset:
    """The run's data set with its images, which those of sets from elsewhere are looked for in; without them where they cannot be read."""
    if whole or not any(one.elsewhere for one in sets):
        return dataset
    try:
        return load_run_data(stored, trust_code)
    except EnsembleError as error:
        tell(f"note: the sets are not compared with the run's training images: {error}")
        return dataset


def _described(folder: RunFolder) -> Dataset:
    """The run's data set without its images: what further images must be like."""
    facts = folder.dataset()
    if facts.image_shape is None or facts.mean is None or facts.std is None:
        raise StorageError(
            f"{folder.path / DATASET}: an earlier version wrote it, without the shape of images; start the run's `ensemble train` again: it retrains nothing that is finished and writes the file anew"
        )
    channels, height, width = facts.image_shape
    images, labels_N = np.empty((0, channels, height, width), np.uint8), np.empty(0, np.int64)
    rule = PixelRule() if facts.pixels is None else PixelRule.from_json(facts.pixels)
    names = tuple(facts.class_names)
    return Dataset(facts.name, images, labels_N, images, labels_N, names, flippable=False, pixels=rule)
