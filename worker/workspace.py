"""Workspaces: the folder a child works in, what is fetched into it and what is kept of it. The only way to storage."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from app.contracts.events import ArtifactFile
from app.contracts.failure import FaultKind, SlimlineError
from app.settings import Settings
from app.storage import Blob, BlobStore, open_store

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
    def make(self, id_: str) -> Iterator["Workspace"]:
        """A workspace for the row `id_`, removed at the end whatever happens."""
        with _locked(self._root):
            folder = Path(tempfile.mkdtemp(prefix=f"{id_}-", dir=self._root))
            # Held by this process alone: the kernel lets go of it when we die, which is how `remove_abandoned` knows.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield Workspace(folder, self._store)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def discard(self, sha256: str) -> None:
        """Remove a blob that no row refers to any more."""
        _discard(self._store, sha256)

    def remove_abandoned(self) -> None:
        """Remove the workspaces of dead workers."""
        with _locked(self._root):
            for folder in self._root.iterdir():
                with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_NB):
                    shutil.rmtree(folder, ignore_errors=True)


class Workspace:
    """One folder. Every path that a child names is taken to be inside it, and is checked to be."""

    def __init__(self, folder: Path, store: BlobStore) -> None:
        self.folder = folder
        self._store = store

    def fetch(self, sha256: str, name: str) -> str:
        """Put a blob into the folder, read-only, as `name`; gives `name`. Raises what the store raises."""
        path = self.folder / name
        self._store.fetch(sha256, path)
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
        return self._store.put_file(path)

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
