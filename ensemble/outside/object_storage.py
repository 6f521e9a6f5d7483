"""Objects under an address such as s3://bucket/runs: read, written, listed and removed, with patience.

    storage = ObjectStorage("s3://bucket/runs", "output_dir: s3://bucket/runs")
    storage.write("a.txt", b"x")
    storage.read("a.txt")            # None where there is no such object

Any address works for which fsspec has a package. A request that fails is tried again after short random waits, which is said
once; one that is refused is not. A bucket is never made. Requests of several objects go out side by side.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ensemble.errors import ConfigError, StorageError
from ensemble.outside.whole_file import replace_file

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 8  # requests side by side
REFUSED = (
    "the storage refuses these credentials: they are missing, wrong, expired, or may not do that (a run needs to read, write, list "
    "and delete objects); renew them (for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE), then start again"
)
AWAY = "check the network and the address (for s3: also AWS_ENDPOINT_URL), then start again"


def is_address(place: str) -> bool:
    """True for an address such as s3://bucket/runs, False for a path."""
    return "://" in place


class Unreachable(StorageError):
    """The storage does not answer, or refuses; another time it may not. refused: it did answer."""

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a listing says of an object. identity: a text that changes with the content, such as S3's ETag."""

    size: int
    identity: str


class ObjectStorage:
    """The objects under one address, by names relative to it."""

    def __init__(self, address: str, given: str, when_away: str = AWAY) -> None:
        """given: what was written where, and when_away: what to do where nothing answers, for messages.

        Raises ConfigError where its package is missing, or nobody knows it.
        """
        import fsspec

        self.address = address.rstrip("/")
        protocol = address.partition("://")[0]
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address, **_OPTIONS.get(protocol, {}))
        except (ValueError, ImportError) as error:
            package = _PACKAGES.get(protocol)
            remedy = (
                f"{protocol}:// needs the package {package}: pip install {package}"
                + (" (or ensemble-trainer[s3])" if package == "s3fs" else "")
                if package
                else "expected a path, or an address that an fsspec package knows, such as s3://bucket/folder"
            )
            raise ConfigError(f"{given}: {' '.join(str(error).split())}; {remedy}") from error
        if protocol in _OPTIONS:
            self._files.retries = 1  # trying again is done here, so that it ends
        self._has_folders = protocol in _WITH_FOLDERS
        self._on_this_disk = protocol in ("file", "local")
        self._when_away = when_away
        self._answers = True  # it did when it was last asked
        self._said = False

    def read(self, name: str, part: tuple[int, int] | None = None) -> bytes | None:
        """The content of an object, or the bytes from the first place of `part` up to the second; None where there is none.

        Raises Unreachable.
        """
        start, end = part or (None, None)

        def read() -> bytes:
            content: bytes = self._files.cat_file(self._place(name), start=start, end=end)
            return content

        try:
            return self._request(name, "read", read)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, whole or not at all. Raises Unreachable, StorageError where there is no such bucket."""

        def write() -> None:
            place = self._place(name)
            if self._has_folders:
                self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            if self._on_this_disk:  # where a kill in the middle of writing would leave the beginning of the object
                replace_file(Path(place), content)
            else:
                self._files.pipe_file(place, content)

        try:
            self._request(name, "written", write)
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects, with one request where the storage can. What is gone already is no error. Raises Unreachable."""
        places = [self._place(name) for name in names]
        if not places:
            return
        try:
            self._request(names[0], "removed", lambda: self._files.rm(places))
        except FileNotFoundError:
            for name in names:
                self._remove_one(name)

    def listing(self, below: str = "") -> dict[str, ObjectFacts]:
        """Every object below a folder, by name. Raises Unreachable, StorageError where there is no such bucket."""
        place = self._place(below) if below else self._root

        def find() -> dict[str, dict[str, Any]]:
            self._files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._files.find(place, detail=True)
            return found

        try:
            found = self._request(below or "its objects", "listed", find)
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error
        start = self._root.rstrip("/") + "/"
        return {
            path.removeprefix(start): ObjectFacts(int(facts.get("size") or 0), _identity(facts))
            for path, facts in found.items()
            if path.startswith(start) and facts.get("type") != "directory" and not path.endswith("/")
        }

    def folders(self, below: str = "") -> list[str]:
        """The names of the folders in a folder. Raises Unreachable, StorageError where there is no such folder or bucket."""
        place = self._place(below) if below else self._root

        def find() -> list[dict[str, Any]]:
            self._files.invalidate_cache()
            found: list[dict[str, Any]] = self._files.ls(place, detail=True)
            return found

        try:
            entries = self._request(below or "its folders", "listed", find)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(f"{self.address}: no such folder or bucket; give one that holds runs") from error
        names = [str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        return sorted(name for name in names if name)

    def size(self, name: str) -> int | None:
        """How many bytes an object has; None where there is none. Raises Unreachable."""

        def look() -> int:
            self._files.invalidate_cache()
            return int(self._files.info(self._place(name))["size"])

        try:
            return self._request(name, "looked at", look)
        except FileNotFoundError:
            return None

    def facts(self, name: str) -> ObjectFacts | None:
        """What a listing would say of an object; None where there is none. Raises Unreachable."""

        def look() -> ObjectFacts:
            self._files.invalidate_cache()
            found: dict[str, Any] = self._files.info(self._place(name))
            if found.get("type") == "directory":
                raise FileNotFoundError(name)
            return ObjectFacts(int(found.get("size") or 0), _identity(found))

        try:
            return self._request(name, "read", look)
        except FileNotFoundError:
            return None

    def remove_empty_folders(self, names: Iterable[str]) -> None:
        """Remove folders that hold nothing any more, deepest first. Object storage has none; a folder that holds more stays."""
        for name in sorted(names, key=lambda name: (-name.count("/"), name == "")):
            try:
                self._files.rmdir(f"{self._root}/{name}".rstrip("/"))
            except Exception:  # noqa: S112  # whatever it is, what is left has no files of the run
                continue

    def side_by_side(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The function of every item, several at a time; results in their order. The first error is raised once all have ended."""
        items = list(items)
        if len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(AT_ONCE, len(items)), "object-storage") as threads:
            return [done.result() for done in [threads.submit(function, item) for item in items]]

    def _remove_one(self, name: str) -> None:
        try:
            self._request(name, "removed", lambda: self._files.rm_file(self._place(name)))
        except FileNotFoundError:
            return

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _request(self, name: str, what: str, send: Callable[[], R]) -> R:
        """What the request gives, after as many tries as it takes and patience allows. Raises FileNotFoundError, Unreachable."""
        waits = WAITS_S if self._answers else WAITS_S[:1]  # who did not answer before is not asked as long
        started = time.monotonic()
        for tried in range(len(waits) + 1):
            try:
                result = send()
            except FileNotFoundError:
                self._answers = True
                raise
            except Exception as error:  # every storage has errors of its own
                refused = _is_refusal(error)
                if refused or tried == len(waits) or time.monotonic() - started > PATIENCE_S:
                    self._answers = refused
                    raise self._unreachable(name, what, error, refused) from error
                self._say_once(error)
            else:
                self._answers = True
                return result
            time.sleep(waits[tried] * _JITTER.uniform(0.5, 1.0))
        raise AssertionError("the last try returns or raises")

    def _say_once(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            log.warning("%s: requests fail and are tried again, which is said once: %s", self.address, _words(error))

    def _unreachable(self, name: str, what: str, error: Exception, refused: bool) -> Unreachable:
        advice = REFUSED if refused else self._when_away
        return Unreachable(f"{self.address}/{name}: cannot be {what}: {_words(error)}; {advice}", refused)

    def _no_bucket(self, error: Exception) -> StorageError:
        return StorageError(
            f"{self.address}: there is no such bucket ({error}); correct the address, or create the bucket: that is not done here"
        )


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError) or _REFUSAL.search(_words(error)) is not None


def _identity(facts: Mapping[str, Any]) -> str:
    """The strongest thing a listing knows of a content: a checksum, else a version, else the time of writing."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified", "created"):
        if facts.get(key) is not None:
            return f"{key} {facts[key]}"
    return ""


WAITS_S = (0.25, 0.5, 1.0, 2.0, 4.0, 4.0)  # before each further try, at most
PATIENCE_S = 20.0  # after which no further try begins
_JITTER = random.SystemRandom()  # when a request is tried again changes no result
# Protocols whose folders must be made before a file can lie in them; others have buckets, which are not made.
_WITH_FOLDERS = frozenset({"file", "local", "memory", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs", "arrow_hdfs"})
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
}
_QUICK = {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
# max_concurrency: of the requests for one object. With more, s3fs asks for the size of each before it is read.
_S3 = {"config_kwargs": _QUICK, "use_listings_cache": False, "max_concurrency": 1}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}
_REFUSAL = re.compile(
    r"\b40[13]\b|AccessDenied|Forbidden|ExpiredToken|InvalidAccessKeyId|NoCredentials|PartialCredentials|SignatureDoesNotMatch"
)
