"""One run, one folder: what is in it is what the manifest lists.

    with RunFolder.open(Path("runs"), "my-run", config, plan) as folder:     # creates or resumes; locks
        folder.save_members([result])
    folder = RunFolder.read(Path("runs/my-run"))                             # reads; no lock
    folder.load_member(0)

A file counts only once the manifest (written last, atomically) names it with its SHA-256, so a kill at any moment
leaves either the old state or the new one. Nothing in the folder is, or is read as, a pickle.
"""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from ensemble.errors import ConfigError, StorageError
from ensemble.events import Event
from ensemble.storage.atomic import json_bytes, remove_leftovers
from ensemble.storage.damage import Damaged
from ensemble.storage.descriptions import DatasetFacts, JudgedConfig, MemberFile, MethodFacts, PlanFacts
from ensemble.storage.event_lines import parse_events
from ensemble.storage.folder_index import FolderIndex
from ensemble.storage.identity import as_begun, differences
from ensemble.storage.listed_folder import ListedFolder, has_entries, is_file, locked
from ensemble.storage.manifest import MANIFEST, MEMBER_FILES, Entry
from ensemble.storage.member_files import (
    HISTORY,
    MEMBER,
    VOTES,
    WEIGHTS,
    Expected,
    Labels,
    labels_bytes,
    labels_digest,
    member_contents,
    parse_history,
    parse_labels,
    parse_member,
    parse_votes,
    parse_weights,
    require_own,
    same_labels,
)
from ensemble.storage.names import BESIDE, CONFIG, DATASET, EVENTS, LABELS, METHOD, PLAN, member_folder, shared_weights
from ensemble.storage.no_run import no_run
from ensemble.storage.parsing import checked, json_model, json_object, yaml_mapping
from ensemble.storage.remedies import unreadable, what_to_do
from ensemble.storage.remote import Mirror, address_of, is_address, local_root
from ensemble.types import MemberResult

MakePlan = Callable[[], dict[str, Any]]


class RunFolder(ListedFolder):
    """The folder of one run, open for writing (locked) or for reading."""

    def __init__(self, path: Path, lock: IO[str] | None = None, mirror: Mirror | None = None) -> None:
        super().__init__(path, lock, mirror)
        self._expected: tuple[tuple[str, ...], Expected] | None = None
        self._known: FolderIndex | None = None

    @classmethod
    def open(
        cls,
        root: Path | str,
        name: str,
        config: dict[str, Any],
        plan: dict[str, Any] | MakePlan,
        check: Callable[[RunFolder], None] | None = None,
        left_open: Sequence[str] = (),
    ) -> RunFolder:
        """Create runs/name, or take up an unfinished one: its stored plan then replaces `plan`.

        plan: itself, or a function that makes it, called for a new folder only. root: a folder, or the address of one
        on object storage, see `storage.remote`. check: looks at a run that is taken up, and may refuse, before anything
        in it is replaced. left_open: keys of which a run that is taken up keeps its own value. Raises ConfigError when the folder holds another configuration or would
        lie outside the root, StorageError when another process writes to it or its manifest is damaged.
        """
        mirror = Mirror(str(root), name) if is_address(str(root)) else None
        root = local_root(str(root)) if mirror else Path(root)
        path = root / name
        if mirror is None and (address := address_of(path)) is not None:
            mirror = Mirror(address.rpartition("/")[0], name, take_over=False)
        try:
            if root.resolve() not in path.resolve().parents:
                raise ConfigError(f"name {name!r}: the run folder {path} would lie outside {root}; choose another name")
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, locked(path / "run.lock"), mirror)
        except RuntimeError as error:  # of a link to itself
            raise unreadable(path, OSError(errno.ELOOP, str(error)), "used as a run folder") from error
        except OSError as error:
            raise unreadable(path, error, "used as a run folder") from error
        try:
            if mirror:
                mirror.fetch(path)
            folder._take_up(config, plan, check, left_open)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """A finished or unfinished run, for reading. Raises StorageError when there is none."""
        if not is_file(path / MANIFEST):
            raise no_run(path)
        folder = cls(path)
        folder._load_manifest()
        if not folder.has(CONFIG):
            raise StorageError(f"{path}: nothing has been trained here yet; start its `ensemble train` first")
        return folder

    def _take_up(
        self,
        config: dict[str, Any],
        plan: dict[str, Any] | MakePlan,
        check: Callable[[RunFolder], None] | None,
        left_open: Sequence[str],
    ) -> None:
        remove_leftovers(self.path)
        if is_file(self.path / MANIFEST):
            self._load_manifest(go_on=True)
            self._settle_replacements()
        elif has_entries(self.path / "members"):
            raise StorageError(
                f"{self.path / MANIFEST}: missing, though members lie in this folder; restore it from a copy, or remove the folder to train anew"
            )
        if not self.has(CONFIG):  # nothing was begun, or only a plan was made, as earlier versions could leave it
            self._files = {}
            self._forget_notes()
            made = plan() if callable(plan) else plan
            self.write_all({PLAN: json_bytes(made), CONFIG: _yaml(config)})
            return
        stored = self.config()
        config = as_begun(stored, config, left_open)
        changed = differences(stored, config, self.plan().get("device"))
        if changed:
            listed = "\n".join(f"  {line}" for line in changed)
            raise ConfigError(
                f"{self.path} holds a run with another configuration:\n{listed}\nGive this one another name=..., or remove that folder"
            )
        if check is not None:
            check(self)
        if stored != _plain(config):  # what may differ between starts: keep what holds now
            self.write(CONFIG, _yaml(config))

    def damaged_files(self) -> list[Damaged]:
        """All listed files that are missing or not what the manifest says, and members' files that are another's."""
        found = super().damaged_files()
        hit = {error.name for error in found}
        for index in sorted(self.finished()):
            if f"{member_folder(index)}/{MEMBER}" not in hit:
                found += self._foreign_files(member_folder(index), self._member(index), hit)
        for which, place in BESIDE.items():
            if self.has_beside(which) and f"{place}{MEMBER}" not in hit:
                found += self._foreign_files(place.rstrip("/"), self._beside(which), hit)
        return found

    def _foreign_files(self, folder: str, facts: MemberFile, hit: set[str]) -> list[Damaged]:
        """Files of a member that the manifest lists, but that are not those it was stored with."""
        found = []
        for file, digest in facts.files_sha256.items():
            name = f"{folder}/{file}"
            if name not in hit and name in self._files and self._files[name].sha256 != digest:
                found.append(
                    Damaged(
                        name,
                        f"{self.path / name}: damaged: not the file that member {facts.index} was stored with; {what_to_do(name)}",
                    )
                )
        return found

    # What a run is made of

    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run, as plain values."""
        return yaml_mapping(self.read_bytes(CONFIG), self.path / CONFIG)

    def judged_config(self) -> JudgedConfig:
        """What judging needs of the configuration."""
        return checked(self.config(), self.path / CONFIG, JudgedConfig)

    def plan(self) -> dict[str, Any]:
        """The stored plan."""
        values = json_object(self.read_bytes(PLAN), self.path / PLAN)
        checked(values, self.path / PLAN, PlanFacts)
        return values

    def dataset(self) -> DatasetFacts:
        """What the members were trained on. Raises StorageError when nothing has been trained yet."""
        if not self.has(DATASET):
            raise StorageError(f"{self.path}: nothing has been trained here yet; start its `ensemble train` first")
        return json_model(self.read_bytes(DATASET), self.path / DATASET, DatasetFacts)

    def method(self) -> MethodFacts:
        """What the method left: weights of the vote, members that do not vote. Nothing before the run was judged."""
        if not self.has(METHOD):
            return MethodFacts()
        return json_model(self.read_bytes(METHOD), self.path / METHOD, MethodFacts)

    def events(self) -> list[tuple[float, Event]]:
        """The events so far, each with its time in unix seconds; none where there is no log yet."""
        path = self.path / EVENTS
        if self.has(EVENTS):
            content = self.read_bytes(EVENTS)
        else:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return []
            except OSError as error:
                raise unreadable(path, error) from error
        return list(parse_events(io.BytesIO(content), path))

    def save_labels(self, labels: Labels) -> None:
        """Store split and labels. Raises StorageError when the folder holds others: the data changed underneath."""
        if self.has(LABELS):
            if not same_labels(self.load_labels(), labels):
                raise StorageError(
                    f"{self.path}: the data set's labels or split are not those this run began with; give the run another name=..."
                )
            return
        self.write(LABELS, labels_bytes(labels))

    def load_labels(self) -> Labels:
        """Split and labels of the run."""
        known = self.dataset() if self.has(DATASET) else None
        path = self.path / LABELS
        labels = parse_labels(self.read_bytes(LABELS), path, len(known.class_names) if known else None)
        if known and known.labels_sha256 not in (None, labels_digest(labels)):
            raise StorageError(f"{path}: damaged: not the labels that {DATASET} belongs to; {what_to_do(LABELS)}")
        return labels

    def _expectation(self) -> Expected:
        """What votes must be like, read once as long as the files behind it stay the same."""
        behind = tuple(self._files[name].sha256 for name in (LABELS, DATASET) if name in self._files)
        if self._expected is None or self._expected[0] != behind:
            classes = len(self.dataset().class_names) if self.has(DATASET) else None
            self._expected = (behind, Expected(self.load_labels() if self.has(LABELS) else None, classes))
        return self._expected[1]

    # Members

    def save_members(self, results: Sequence[MemberResult]) -> None:
        """Store all that finished members left; from then on all of them count as finished."""
        self.write_all({
            f"{member_folder(result.index)}/{file}": content
            for result in results
            for file, content in member_contents(result).items()
        })  # fmt: skip

    def drop_member(self, index: int) -> None:
        """Forget a member, so that it is trained again."""
        self.forget([f"{member_folder(index)}/{file}" for file in MEMBER_FILES])

    def finished(self) -> set[int]:
        """Indices of the members that are stored whole."""
        return set(self._index.members)

    def has_member(self, index: int) -> bool:
        """Whether a member is stored whole."""
        return index in self._index.members

    @property
    def _index(self) -> FolderIndex:
        if self._known is None:
            self._known = FolderIndex(self._files)
        return self._known

    def _note(self, listed: Mapping[str, Entry], removed: Sequence[str]) -> None:
        if self._known is not None:
            self._known.note(listed, removed)

    def _forget_notes(self) -> None:
        self._known = None

    def load_member(self, index: int, weights: bool = False) -> MemberResult:
        """A stored member; its weights only on request. Raises StorageError when damaged or not of this run."""
        return self._result(member_folder(index), self._member(index), weights)

    def _result(self, folder: str, facts: MemberFile, weights: bool) -> MemberResult:
        votes_file, votes = self._own(folder, facts, VOTES)
        history_file, history = self._own(folder, facts, HISTORY)
        return MemberResult(
            index=facts.index,
            recipe=facts.recipe,
            votes=parse_votes(votes, votes_file, self._expectation()),
            weights=self._weights(folder, facts) if weights else {},
            history=parse_history(history, history_file),
            num_parameters=facts.num_parameters,
            train_seconds=facts.train_seconds,
            kept_epoch=facts.kept_epoch,
            stack_size=facts.stack_size,
            facts=facts.facts,
            device=facts.device,
            shared_parameters=facts.shared_parameters,
        )

    def recipe(self, index: int) -> str:
        """The name of the group that a member is of."""
        return self._member(index).recipe

    def load_weights(self, index: int, shared: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """A member's tensors as numpy arrays, named as in its network's state_dict.

        shared: what was read before of the tensors that the members of a recipe share, by recipe; completed here, and not copied.
        """
        return self._weights(member_folder(index), self._member(index), shared)

    # The networks that do not vote: "baseline", "longer", "wider" (`names.BESIDE`)

    def save_beside(self, which: str, result: MemberResult) -> None:
        """Store all that such a network left."""
        self.write_all({f"{BESIDE[which]}{file}": content for file, content in member_contents(result).items()})

    def drop_beside(self, which: str) -> None:
        """Forget it, so that it is trained again."""
        self.forget([f"{BESIDE[which]}{file}" for file in MEMBER_FILES])

    def has_beside(self, which: str) -> bool:
        """Whether it is stored."""
        return self.has(f"{BESIDE[which]}{MEMBER}")

    def load_beside(self, which: str, weights: bool = False) -> MemberResult | None:
        """A stored one, None without it. Raises StorageError when damaged or not of this run."""
        return self._result(BESIDE[which].rstrip("/"), self._beside(which), weights) if self.has_beside(which) else None

    def load_baseline(self, weights: bool = False) -> MemberResult | None:
        """The stored network of the members' recipe on all training rows, None without it."""
        return self.load_beside("baseline", weights)

    def _beside(self, which: str) -> MemberFile:
        name = f"{BESIDE[which]}{MEMBER}"
        return parse_member(self.read_bytes(name), self.path / name, None)

    def _member(self, index: int) -> MemberFile:
        name = f"{member_folder(index)}/{MEMBER}"
        return parse_member(self.read_bytes(name), self.path / name, index)

    def _weights(
        self, folder: str, facts: MemberFile, known: dict[str, dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        path, content = self._own(folder, facts, WEIGHTS)
        name, known = shared_weights(facts.recipe), {} if known is None else known
        if facts.recipe not in known:
            known[facts.recipe] = parse_weights(self.read_bytes(name), self.path / name) if self.has(name) else {}
        return {**known[facts.recipe], **parse_weights(content, path)}

    def _own(self, folder: str, facts: MemberFile, file: str) -> tuple[Path, bytes]:
        """Path and content of one of a member's files, which must be the one it was stored with."""
        name = f"{folder}/{file}"
        content = self.read_bytes(name)
        require_own(facts, file, content, self.path / name)
        return self.path / name, content

    # Checkpoints of unfinished tasks, two generations each: a damaged one costs one interval more, not the task

    def save_checkpoint(self, task: str, content: bytes) -> None:
        """Keep the state of a task in mid-training, and the one before it."""
        older = self._index.checkpoints(task)
        number = int(older[-1].split(".")[-2]) + 1 if older else 0
        self.write(f"checkpoints/{task}.{number:06d}.safetensors", content)
        self.forget(older[:-1])

    def load_checkpoint(self, task: str) -> bytes | None:
        """The newest undamaged state of a task; None when there is none."""
        for name in reversed(self._index.checkpoints(task)):
            with contextlib.suppress(Damaged):
                return self.read_bytes(name)
        return None

    def drop_checkpoints(self, task: str) -> None:
        """Remove the states of a finished task."""
        self.forget(self._index.checkpoints(task))

    def drop_all_checkpoints(self) -> None:
        """Remove the states of all tasks, once no task is unfinished."""
        self.forget([name for name in self.files() if name.startswith("checkpoints/")])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _yaml(config: dict[str, Any]) -> bytes:
    return yaml.safe_dump(_plain(config), sort_keys=False).encode()
