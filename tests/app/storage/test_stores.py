"""What every store keeps, tried on a folder and on S3."""

import hashlib
import os
from pathlib import Path

import obstore
import pytest

from app.contracts.failure import FaultKind, SlimlineError
from app.settings import Settings
from app.storage import Blob, BlobStore, open_store

MIB = 1024**2


def put(store: BlobStore, *chunks: bytes) -> Blob:
    with store.receive() as incoming:
        for chunk in chunks:
            incoming.write(chunk)
        return incoming.commit()


def read(store: BlobStore, sha256: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(store.read(sha256, start, stop))


def temporary_files(settings: Settings) -> list[Path]:
    return [path for path in settings.data.rglob("*") if path.is_file() and path.parent.name in {"incoming", "spool"}]


def stored_objects(store: BlobStore, settings: Settings) -> list[str]:
    if settings.storage.startswith("s3://"):
        return [meta["path"] for page in obstore.list(store._objects) for meta in page]
    return [path.name for path in Path(settings.storage).rglob("*") if path.is_file()]


def damage(store: BlobStore, settings: Settings, sha256: str, content: bytes) -> None:
    if settings.storage.startswith("s3://"):
        obstore.put(store._objects, f"{sha256[:2]}/{sha256}", content)
    else:
        path = Path(settings.storage) / sha256[:2] / sha256
        path.chmod(0o600)
        path.write_bytes(content)


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 9 * MIB + 3])
def test_what_goes_in_comes_out(store: BlobStore, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    blob = put(store, content[: size // 3], content[size // 3 :])
    assert blob == Blob(hashlib.sha256(content).hexdigest(), size)
    assert read(store, blob.sha256) == content
    assert store.size(blob.sha256) == size
    store.fetch(blob.sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_a_multipart_upload_arrives_whole(store: BlobStore, tmp_path: Path) -> None:
    content = os.urandom(MIB) * 20
    (tmp_path / "file").write_bytes(content)
    blob = store.put_file(tmp_path / "file")
    assert read(store, blob.sha256) == content


def test_same_content_is_one_blob(store: BlobStore, store_settings: Settings) -> None:
    assert put(store, b"twice") == put(store, b"twi", b"ce")
    assert len(stored_objects(store, store_settings)) == 1


def test_leaving_without_commit_leaves_nothing(store: BlobStore, store_settings: Settings) -> None:
    with store.receive() as incoming:
        incoming.write(b"half of")
        assert temporary_files(store_settings)
    assert temporary_files(store_settings) == []
    assert stored_objects(store, store_settings) == []


def test_commit_leaves_no_temporary_file(store: BlobStore, store_settings: Settings) -> None:
    put(store, b"content")
    assert temporary_files(store_settings) == []


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (5, 6), (4 * MIB - 1, 4 * MIB + 1), (5 * MIB, None), (7, 99 * MIB)]
)
def test_parts(store: BlobStore, start: int, stop: int | None) -> None:
    content = os.urandom(5 * MIB + 11)
    blob = put(store, content)
    assert read(store, blob.sha256, start, stop) == content[start:stop]


def test_a_damaged_blob_is_never_read_to_its_end(store: BlobStore, store_settings: Settings, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    sha256 = put(store, content).sha256
    damage(store, store_settings, sha256, content[:-1] + bytes([content[-1] ^ 1]))
    got: list[bytes] = []
    with pytest.raises(SlimlineError) as caught:
        got.extend(store.read(sha256))
    assert (caught.value.failure.code, caught.value.failure.kind) == ("BLOB_CORRUPT", FaultKind.OURS)
    assert len(b"".join(got)) < len(content)
    with pytest.raises(SlimlineError):
        store.fetch(sha256, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_not_one_byte_of_a_damaged_part(store: BlobStore, store_settings: Settings) -> None:
    sha256 = put(store, bytes(2 * MIB)).sha256
    damage(store, store_settings, sha256, bytes(2 * MIB - 1) + b"x")
    with pytest.raises(SlimlineError) as caught:
        next(store.read(sha256, 0, 10))
    assert caught.value.failure.code == "BLOB_CORRUPT"


def test_putting_the_content_again_heals(store: BlobStore, store_settings: Settings) -> None:
    sha256 = put(store, b"precious").sha256
    damage(store, store_settings, sha256, b"rubbish!")
    put(store, b"precious")
    assert read(store, sha256) == b"precious"


def test_an_unknown_blob_is_missing(store: BlobStore, tmp_path: Path) -> None:
    unknown = hashlib.sha256(b"never stored").hexdigest()
    for use in (
        lambda: store.size(unknown),
        lambda: read(store, unknown),
        lambda: read(store, unknown, 3, 4),
        lambda: store.fetch(unknown, tmp_path / "copy"),
    ):
        with pytest.raises(SlimlineError) as caught:
            use()
        assert caught.value.failure.code == "BLOB_MISSING"
    assert not (tmp_path / "copy").exists()


def test_delete(store: BlobStore) -> None:
    sha256 = put(store, b"gone soon").sha256
    store.delete(sha256)
    store.delete(sha256)
    with pytest.raises(SlimlineError):
        store.size(sha256)


def test_a_second_process_sees_the_blob(store: BlobStore, store_settings: Settings) -> None:
    sha256 = put(store, b"for the worker").sha256
    assert read(open_store(store_settings), sha256, 4, 7) == b"the"


def test_check_passes(store: BlobStore, store_settings: Settings) -> None:
    store.check()
    assert temporary_files(store_settings) == []
