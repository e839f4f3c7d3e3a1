"""The one way archives are opened: nothing outside, no links, no bombs. What is inside is the reader's concern."""

import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from app.contracts.failure import SlimlineError

_CHUNK = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
_PLAIN = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_LONGEST_PART = 255
_LONGEST_REASON = 200
"""It may quote the archive."""
_HIDDEN = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold. The ratio of unpacked to packed bytes counts only above `free_bytes`."""

    bytes: int = 64 << 30
    members: int = 2_000_000
    ratio: int = 200
    free_bytes: int = 256 << 20
    name_length: int = 1024


class Archive:
    """A zip whose member names were checked; sizes are checked on the bytes that really come out, headers may lie.

    Raises SlimlineError ARCHIVE_BROKEN, ARCHIVE_ENCRYPTED, ARCHIVE_LINK, ARCHIVE_PATH_UNSAFE, ARCHIVE_DUPLICATE,
    ARCHIVE_TOO_LARGE or ARCHIVE_COMPRESSION.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._budget = min(self.limits.bytes, max(self.limits.free_bytes, self.limits.ratio * path.stat().st_size))
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise _broken(path.name, error) from error
        try:
            self._members = self._checked()
        except SlimlineError:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """Files inside, in stored order, without folders and hidden files such as .DS_Store and __MACOSX."""
        return list(self._members)

    @property
    def folders(self) -> list[str]:
        """Folders stored as such, hidden ones apart; a folder that only appears in a file's name is not among them."""
        return [info.filename.rstrip("/") for info in self._zip.infolist() if info.is_dir() and not _is_hidden(info)]

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one member, a piece at a time; what all calls gave together stays within the limits."""
        try:
            with self._zip.open(self._members[name]) as member:
                while chunk := member.read(_CHUNK):
                    self._spend(len(chunk), name)
                    yield chunk
        except _BROKEN as error:
            raise _broken(name, error) from error

    def read(self, name: str, largest: int) -> bytes:
        """One member of at most `largest` bytes. Does not count against the limits: the caller drops it again."""
        try:
            with self._zip.open(self._members[name]) as member:
                content = member.read(largest + 1)
        except _BROKEN as error:
            raise _broken(name, error) from error
        if len(content) > largest:
            raise _too_large(name, f"more than {largest:,} bytes")
        return content

    def unpack(self, folder: Path) -> list[Path]:
        """Write every member under `folder`, which must be empty; gives their paths in stored order."""
        written = []
        for name in self.names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for chunk in self.chunks(name):
                    file.write(chunk)
            written.append(target)
        return written

    def close(self) -> None:
        """Close the file; members can no longer be read."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > self.limits.members:
            raise _too_large(str(self._zip.filename), f"{len(infos):,} members")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            _refuse_unsafe(info, self.limits.name_length)
            path = PurePosixPath(info.filename)
            if info.is_dir() or _is_hidden(info):
                continue
            if str(path) in members:
                raise _refusal("ARCHIVE_DUPLICATE", str(path), "is in the archive twice")
            members[str(path)] = info
        self._refuse_declared(members)
        for name in members:
            if any(str(folder) in members for folder in PurePosixPath(name).parents):
                raise _refusal("ARCHIVE_DUPLICATE", name, "lies in what is also stored as a file")
        return members

    def _refuse_declared(self, members: Mapping[str, zipfile.ZipInfo]) -> None:
        """What says itself that it is too large need not be unpacked; what lies is found out by `_spend`."""
        if sum(info.file_size for info in members.values()) > self._budget:
            name, info = max(members.items(), key=lambda item: item[1].file_size)
            raise _too_large(name, f"{info.file_size:,} bytes, far more than its packed size can honestly hold")

    def _spend(self, count: int, name: str) -> None:
        self._budget -= count
        if self._budget < 0:
            raise _too_large(name, "far more bytes than its packed size can honestly hold")


def _is_hidden(info: zipfile.ZipInfo) -> bool:
    return any(part in _HIDDEN or part.startswith(".") for part in PurePosixPath(info.filename).parts)


def _refuse_unsafe(info: zipfile.ZipInfo, name_length: int) -> None:
    name, path = info.filename, PurePosixPath(info.filename)
    mode = info.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in info.orig_filename:
        raise _refusal("ARCHIVE_PATH_UNSAFE", name, "points outside the archive")
    if len(name) > name_length or not path.parts or any(len(part.encode()) > _LONGEST_PART for part in path.parts):
        raise _refusal("ARCHIVE_PATH_UNSAFE", name[:80], "has an unusable name")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refusal("ARCHIVE_LINK", name, "is a link or a special file")
    if info.flag_bits & _ENCRYPTED:
        raise _refusal("ARCHIVE_ENCRYPTED", name, "is encrypted")
    if info.compress_type not in _PLAIN:
        raise _refusal("ARCHIVE_COMPRESSION", name, "is packed by a method other than stored or deflate")


def _refusal(code: str, name: str, what: str) -> SlimlineError:
    return SlimlineError(
        code, f"{name!r} {what}", node=name, hint="pack plain files with relative names, stored or deflated, once each"
    )


def _too_large(name: str, what: str) -> SlimlineError:
    return SlimlineError(
        "ARCHIVE_TOO_LARGE",
        f"{name!r} unpacks to {what}",
        node=name,
        hint="split the data, or send it less tightly packed if it really is that repetitive",
    )


def _broken(name: str, error: Exception) -> SlimlineError:
    return SlimlineError(
        "ARCHIVE_BROKEN",
        f"{name!r} cannot be unpacked: {str(error)[:_LONGEST_REASON]}",
        node=name,
        hint="the upload may have been cut off: compare its size and checksum with the original, then send it again",
    )
