"""Archives: what comes out of good ones, and what is refused before it can do harm."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from app.contracts.failure import SlimlineError
from worker.engine.ingest.archive import Archive, Limits

DEFLATED = zipfile.ZIP_DEFLATED


def write(path: Path, members: dict[str, bytes], compression: int = DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refusal_of(path: Path, limits: Limits | None = None) -> tuple[str, str | None]:
    """The code and the member it is about; nothing may be written outside the folder given."""
    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    with pytest.raises(SlimlineError) as refusal, Archive(path, limits) as archive:
        archive.unpack(folder)
    return refusal.value.failure.code, refusal.value.failure.node


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    members = {
        "a/b.txt": b"one",
        "c.bin": bytes(3 << 20),
        "__MACOSX/a/b.txt": b"",
        ".DS_Store": b"x",
        "a/.hidden": b"x",
    }
    with Archive(write(tmp_path / "z.zip", members)) as archive:
        assert archive.names == ["a/b.txt", "c.bin"]
        paths = archive.unpack(tmp_path / "out")
        assert archive.read("a/b.txt", 3) == b"one"
    assert [path.read_bytes() for path in paths] == [b"one", bytes(3 << 20)]


@pytest.mark.parametrize(
    "name", ["../up.txt", "a/../../up.txt", "/etc/up.txt", "a\\..\\..\\up.txt", "C:up.txt", "..", "x" * 300]
)
def test_paths_that_lead_out(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "z.zip", {name: b"x"})
    assert refusal_of(path)[0] == "ARCHIVE_PATH_UNSAFE"
    assert not list(tmp_path.parent.glob("up.txt"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("weights.bin")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert refusal_of(tmp_path / "z.zip") == ("ARCHIVE_LINK", "weights.bin")


def test_a_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.txt", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", "2")
    assert refusal_of(tmp_path / "z.zip") == ("ARCHIVE_DUPLICATE", "a.txt")


def test_a_file_that_is_also_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {"a": b"1", "a/b": b"2"})
    assert refusal_of(path)[0] == "ARCHIVE_DUPLICATE"


def test_encrypted(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {"a.txt": b"x"})
    packed = bytearray(path.read_bytes())
    packed[packed.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(packed)
    assert refusal_of(path) == ("ARCHIVE_ENCRYPTED", "a.txt")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {f"{i}.bin": bytes((1 << 20) + i) for i in range(8)})
    code, node = refusal_of(path, Limits(free_bytes=2 << 20))
    assert (code, node) == ("ARCHIVE_TOO_LARGE", "7.bin")
    assert not list(tmp_path.glob("out/*"))


def test_reading_the_same_member_again_and_again_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {"a.bin": bytes(1 << 20)})
    with Archive(path, Limits(free_bytes=2 << 20)) as archive:
        assert [sum(map(len, archive.chunks("a.bin"))) for _ in range(2)] == [1 << 20] * 2
        with pytest.raises(SlimlineError) as caught:
            list(archive.chunks("a.bin"))
    assert caught.value.failure.code == "ARCHIVE_TOO_LARGE"


def test_the_same_bytes_named_many_times_are_counted_every_time(tmp_path: Path) -> None:
    """Overlapping members: the central directory names one packed stream again and again."""
    path = write(tmp_path / "z.zip", {"aa": bytes(1 << 20)})
    packed = path.read_bytes()
    start, end = packed.index(b"PK\x01\x02"), packed.index(b"PK\x05\x06")
    entry, copies = packed[start:end], 100
    directory = b"".join(entry.replace(b"aa", f"{i:02}".encode()) for i in range(copies))
    tail = packed[end : end + 8] + struct.pack("<HHLLH", copies, copies, len(directory), start, 0)
    path.write_bytes(packed[:start] + directory + tail)
    assert refusal_of(path, Limits(free_bytes=4 << 20))[0] in ("ARCHIVE_BROKEN", "ARCHIVE_TOO_LARGE")


def test_a_lying_header(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {"a.bin": bytes(1 << 20)})
    packed = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        where = packed.index(mark) + at
        packed[where : where + 4] = struct.pack("<L", 10)
    path.write_bytes(packed)
    assert refusal_of(path) == ("ARCHIVE_BROKEN", "a.bin")


def test_too_many_members(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {f"{i}": b"" for i in range(5)})
    assert refusal_of(path, Limits(members=4))[0] == "ARCHIVE_TOO_LARGE"


def test_one_member_larger_than_asked_for(tmp_path: Path) -> None:
    with Archive(write(tmp_path / "z.zip", {"a": bytes(100)})) as archive, pytest.raises(SlimlineError) as refusal:
        archive.read("a", 99)
    assert refusal.value.failure.code == "ARCHIVE_TOO_LARGE"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_of_compression_that_nobody_needs(tmp_path: Path, compression: int) -> None:
    path = write(tmp_path / "z.zip", {"a": bytes(100)}, compression)
    assert refusal_of(path) == ("ARCHIVE_COMPRESSION", "a")


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "z.zip", {"a": bytes(range(256)) * 64})
    packed = path.read_bytes()
    path.write_bytes(packed[: int(keep * len(packed)) if 0 < keep < 1 else int(keep)])
    assert refusal_of(path)[0] == "ARCHIVE_BROKEN"


def test_damaged_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "z.zip", {"a": bytes(range(256)) * 64}, zipfile.ZIP_STORED)
    packed = bytearray(path.read_bytes())
    packed[5000] ^= 0xFF
    path.write_bytes(packed)
    assert refusal_of(path) == ("ARCHIVE_BROKEN", "a")


def test_plain_text_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(b"plain text")
    assert refusal_of(tmp_path / "z.zip")[0] == "ARCHIVE_BROKEN"
