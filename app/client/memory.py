"""Which upload a file went into, noted in the user's cache folder: another process goes on with it. No network here."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path


class UploadMemory:
    """One file on its way to one server, known by its path, size and time. A file that changed is another."""

    def __init__(self, server: str, path: Path, stat: os.stat_result) -> None:
        known_by = (server, str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns))
        digest = hashlib.sha256("\0".join(known_by).encode("utf-8", "surrogateescape")).hexdigest()
        self._note = _cache() / "slimline" / "uploads" / digest

    def recall(self) -> str | None:
        """The path of the upload on the server, if one was begun."""
        try:
            return self._note.read_text() or None
        except OSError:
            return None

    def keep(self, upload: str) -> None:
        """Remember. Where that cannot be, the upload works all the same, but only this process can go on with it."""
        with suppress(OSError):
            self._note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._note.write_text(upload)

    def forget(self) -> None:
        """It is done, or of no use any more."""
        with suppress(OSError):
            self._note.unlink(missing_ok=True)


def _cache() -> Path:
    """As the XDG base directories have it."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
