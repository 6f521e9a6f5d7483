"""Folders under an address (s3://bucket/runs and whatever else fsspec knows) as somebody sees them who only looks, or removes.

    runs = RemoteFolder("s3://bucket/runs")
    for name in runs.folders():
        content = runs.below(name).read("manifest.json")

`remote.Mirror` is how a run is written there, and fetched whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ensemble.config.secrets import secret_in
from ensemble.errors import ConfigError, StorageError
from ensemble.storage.remote import file_system, is_refusal


class RemoteFolder:
    """One folder. Every call may raise StorageError where the storage does not answer, or refuses."""

    def __init__(self, address: str, what: str = "FOLDER") -> None:
        """what: where the address was given. Raises ConfigError for one that nobody can read, or that holds a password."""
        if remedy := secret_in(address):
            raise ConfigError(f"{what}: {remedy}")
        self.address = address.rstrip("/")
        self._files, self._root = file_system(self.address, f"{what}: {address}")

    @property
    def name(self) -> str:
        """Its own name."""
        return self.address.rpartition("/")[2]

    def below(self, name: str) -> RemoteFolder:
        """A folder in it."""
        return RemoteFolder(f"{self.address}/{name}")

    def folders(self) -> list[str]:
        """The names of the folders in it. Raises StorageError also where there is no such folder."""
        try:
            self._files.invalidate_cache()
            entries: list[dict[str, Any]] = self._files.ls(self._root, detail=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(f"{self.address}: no such folder or bucket; give one that holds runs") from error
        except Exception as error:  # every storage has errors of its own
            raise self._trouble("", "listed", error) from error
        names = [str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        return sorted(name for name in names if name)

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except Exception as error:  # as above
            raise self._trouble(name, "read", error) from error
        return content

    def size(self, name: str) -> int | None:
        """How many bytes a file has now; None where there is none."""
        try:
            self._files.invalidate_cache()
            found = self._files.info(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:  # as above
            raise self._trouble(name, "looked at", error) from error
        return int(found["size"])

    def remove(self, names: Iterable[str]) -> int:
        """Remove these files, in their order; returns how many bytes they had. Those that are not there are passed over."""
        freed = 0
        for name in names:
            freed += self.size(name) or 0
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                continue
            except Exception as error:  # as above
                raise self._trouble(name, "removed", error) from error
        return freed

    def remove_empty_folders(self, names: Iterable[str]) -> None:
        """Remove folders that hold nothing any more, deepest first. Object storage has none; a folder that holds more stays."""
        for name in sorted(names, key=lambda name: (-name.count("/"), name == "")):
            try:
                self._files.rmdir(f"{self._root}/{name}".rstrip("/"))
            except Exception:  # noqa: S112  # whatever it is, what is left has no files of the run
                continue

    @property
    def local_path(self) -> str | None:
        """Where it lies on this machine, for file:// and local://; None for any other address."""
        return self._root if self.address.partition("://")[0] in ("file", "local") else None

    def _trouble(self, name: str, what: str, error: Exception) -> StorageError:
        words = f"{type(error).__name__}: {error}"
        advice = "check the credentials (for s3: AWS_ACCESS_KEY_ID, AWS_PROFILE)" if is_refusal(error) else "try again"
        return StorageError(f"{self.address}{'/' if name else ''}{name}: cannot be {what}: {words}; {advice}")
