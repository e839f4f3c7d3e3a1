"""Workspaces: the folder a child works in, what is fetched into it and what is kept of it. The only way to storage."""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import structlog

from app.contracts.events import ArtifactFile
from app.contracts.failure import FaultKind, SlimlineError
from app.settings import Settings
from app.storage import Blob, BlobStore, Stored, open_store

STORAGE_PATIENCE_S = 300.0
"""How long a job waits where it is, its lease kept, for a store that is away. Then it goes back to the queue."""
_PAUSE_S = 1.0
_PASSES = {"STORAGE_UNREACHABLE", "STORAGE_FULL"}

Result = TypeVar("Result")
_log = structlog.get_logger(__name__)


class Workspaces:
    """Makes workspaces under one folder, which workers of this machine may share."""

    def __init__(self, root: Path, store: BlobStore) -> None:
        self._root = root
        self._store = store

    @classmethod
    def open(cls, settings: Settings) -> "Workspaces":
        """With the folder and the store that the settings name."""
        settings.workspaces.mkdir(parents=True, exist_ok=True)
        return cls(settings.workspaces, open_store(settings))

    @contextmanager
    def make(self, id_: str, require_wanted: Callable[[], None] = lambda: None) -> Iterator["Workspace"]:
        """A workspace for the row `id_`, removed at the end whatever happens.

        `require_wanted` is asked while a store is waited for, and raises what is to end the wait.
        """
        with _locked(self._root):
            folder = Path(tempfile.mkdtemp(prefix=f"{id_}-", dir=self._root))
            # Held by this process alone: the kernel lets go of it when we die, which is how `remove_abandoned` knows.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield Workspace(folder, self._store, require_wanted)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def remove_abandoned(self) -> None:
        """Remove the workspaces of dead workers."""
        with _locked(self._root):
            for folder in self._root.iterdir():
                with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_NB):
                    shutil.rmtree(folder, ignore_errors=True)


class Workspace:
    """One folder. Every path that a child names is taken to be inside it, and is checked to be.

    Fetching and keeping wait for a store that is away.
    """

    def __init__(self, folder: Path, store: BlobStore, require_wanted: Callable[[], None]) -> None:
        self.folder = folder
        self._store = store
        self._require_wanted = require_wanted

    def fetch(self, sha256: str, name: str) -> str:
        """Put a blob into the folder, read-only, as `name`; gives `name`. Raises what the store raises."""
        path = self.folder / name
        self._patiently(lambda: self._store.fetch(sha256, path))
        path.chmod(0o400)
        return name

    def keep(self, name: str) -> Blob:
        """Store the file that a child left as `name`. Raises SlimlineError ENGINE_DEFECT, GRAPH_TOO_LARGE."""
        path = self.folder / name
        if not _is_own_file(path, self.folder):
            raise _defect("the engine named a file that it did not write", name)
        if self.is_in_parts(name):
            raise SlimlineError(
                "GRAPH_TOO_LARGE",
                "the graph takes more than 1.9 GB, and Slimline keeps a graph as one file",
                hint="send a smaller model, or use the library: python -m worker.engine compress",
            )
        return self._patiently(lambda: self._store.put_file(path))

    def keep_if_there(self, name: str) -> Blob | None:
        """`keep`; None where the child has removed the file since, for one newer."""
        try:
            return self.keep(name)
        except (SlimlineError, FileNotFoundError):
            if os.path.lexists(self.folder / name):
                raise
            return None

    def discard(self, sha256: str) -> None:
        """Remove a blob that no row refers to any more."""
        _discard(self._store, sha256)

    def keep_artifact(self, file: ArtifactFile) -> None:
        """Store an artifact. Raises SlimlineError ENGINE_DEFECT when it is not the one that was measured."""
        if self.keep(file.path).sha256 != file.sha256:
            raise _defect("the artifact changed after it was measured", file.path)

    def is_in_parts(self, name: str) -> bool:
        """Whether the graph `name` has its large tensors in a file beside it."""
        return (self.folder / f"{name}.data").exists()

    def _patiently(self, act: Callable[[], Result]) -> Result:
        give_up_at = time.monotonic() + STORAGE_PATIENCE_S
        while True:
            try:
                return act()
            except SlimlineError as error:
                if error.failure.code not in _PASSES or time.monotonic() >= give_up_at:
                    raise
                _log.warning("waiting for storage", reason=error.failure.message)
            self._require_wanted()
            time.sleep(_PAUSE_S)


class Stock:
    """All that is stored, for who removes what nothing needs. Raises what the store raises."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    @classmethod
    def open(cls, settings: Settings) -> "Stock":
        """Of the store that the settings name."""
        return cls(open_store(settings))

    def find_old(self, age_s: float) -> Iterator[Stored]:
        """Blobs whose content was put at least so long ago."""
        put_before = self._store.clock() - age_s
        return (blob for blob in self._store.listing() if blob.stored_at <= put_before)

    def remove(self, blob: Stored) -> bool:
        """Remove a blob that was found; False: its content was put again since, or it is gone."""
        return self._store.delete_listed(blob)

    def remove_abandoned(self) -> None:
        """Remove what dead writers left half written on this machine."""
        self._store.remove_abandoned()


def _discard(store: BlobStore, sha256: str) -> None:
    try:
        store.delete(sha256)
    except SlimlineError as error:  # it takes room, and does no other harm
        _log.warning("a blob that nothing needs could not be removed", sha256=sha256, reason=str(error))


def _defect(message: str, name: str) -> SlimlineError:
    return SlimlineError("ENGINE_DEFECT", message, kind=FaultKind.OURS, node=name)


def _is_own_file(path: Path, folder: Path) -> bool:
    """Whether `path` is a plain file inside `folder`, no link on the way to it or at its end."""
    return (
        path.resolve() == Path(os.path.normpath(path)).absolute()
        and path.resolve().is_relative_to(folder.resolve())
        and path.exists()
        and stat.S_ISREG(path.lstat().st_mode)
        and path.lstat().st_nlink == 1
    )


@contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError under LOCK_NB when another process holds it."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(lock)
