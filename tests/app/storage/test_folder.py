"""What only a folder must keep: dead writers' files, private copies, a disk that refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.contracts.failure import FaultKind, SlimlineError
from app.storage.folder import FolderStore

DIE_WHILE_WRITING = """
import os, sys, pathlib
from app.storage.folder import FolderStore
with FolderStore(pathlib.Path(sys.argv[1])).receive() as incoming:
    incoming.write(b"half")
    os._exit(9)
"""


def age(path: Path) -> None:
    os.utime(path, (0, 0))


def test_files_of_dead_writers_go_at_the_next_start(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(tmp_path)], check=False)
    (left,) = (tmp_path / "incoming").iterdir()
    assert left.read_bytes() == b"half"
    age(left)
    FolderStore(tmp_path)
    assert not left.exists()


def test_files_of_living_writers_stay(tmp_path: Path) -> None:
    with FolderStore(tmp_path).receive() as incoming:
        incoming.write(b"still coming")
        (writing,) = (tmp_path / "incoming").iterdir()
        age(writing)
        FolderStore(tmp_path)
        assert writing.exists()
        incoming.commit()


def test_who_fetches_cannot_reach_the_stored_bytes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "blobs")
    with store.receive() as incoming:
        incoming.write(b"original")
        blob = incoming.commit()
    store.fetch(blob.sha256, tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"tampered")
    assert b"".join(store.read(blob.sha256)) == b"original"


def test_a_folder_that_cannot_be_written_is_not_ready(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "blobs")
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(SlimlineError) as caught:
        store.check()
    assert (caught.value.failure.code, caught.value.failure.kind) == ("STORAGE_UNREACHABLE", FaultKind.TRANSIENT)


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    with FolderStore(tmp_path).receive() as incoming:
        os.dup2(os.open("/dev/full", os.O_WRONLY), incoming.file.fileno())
        with pytest.raises(SlimlineError) as caught:
            incoming.write(b"no room")
    assert (caught.value.failure.code, caught.value.failure.kind) == ("STORAGE_FULL", FaultKind.TRANSIENT)
    assert list((tmp_path / "incoming").iterdir()) == []
