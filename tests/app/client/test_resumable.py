"""Large files over lines that break, damage and forget: they arrive whole, once, and little is sent twice."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.client import ApiError, Client, FileChangedError, resumable
from app.client import client as client_module

SIZE = 5_000_000
PIECE = 1_000_000


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client_module, "RESUMABLE_FROM_BYTES", SIZE)
    monkeypatch.setattr(resumable, "PIECE_BYTES", PIECE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "größe.onnx"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the client remembers what it had begun."""
    return tmp_path / "cache" / "slimline" / "uploads"


@pytest.fixture
def over_bad_line(bad_line: Any) -> Iterator[Client]:
    with Client(bad_line.url) as made:
        yield made


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_large_file_goes_in_pieces(client: Client, file: Path, notes: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = client.upload("datasets", file, name="d", preprocess={"scale": 0.5}, on_bytes=lambda *at: seen.append(at))
    assert (made["sha256"], made["size_bytes"], made["filename"]) == (sha256(file), SIZE, file.name)
    assert (made["name"], made["preprocess"]["scale"]) == ("d", 0.5)
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)
    assert len(seen) > 2 * SIZE // PIECE
    assert list(notes.iterdir()) == []


def test_a_line_that_breaks_again_and_again(over_bad_line: Client, bad_line: Any, file: Path) -> None:
    bad_line.harm = lambda _number, before, data: data if before < 700_000 else None  # within every piece at first
    assert over_bad_line.upload("models", file)["sha256"] == sha256(file)
    assert bad_line.connections > SIZE // 700_000


def test_a_damaged_piece_is_sent_again(over_bad_line: Client, bad_line: Any, file: Path) -> None:
    harmed: list[int] = []

    def flip(number: int, before: int, data: bytes) -> bytes:
        if before > 500_000 and not harmed:
            harmed.append(number)
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    bad_line.harm = flip
    assert over_bad_line.upload("models", file)["sha256"] == sha256(file)
    assert harmed


def test_another_process_goes_on(client: Client, file: Path, notes: Path) -> None:
    class Interrupted(Exception):  # noqa: N818 - as KeyboardInterrupt
        pass

    def stop(done: int, _total: int) -> None:
        if done > 3 * PIECE:
            raise Interrupted

    with pytest.raises(Interrupted):
        client.upload("models", file, on_bytes=stop)
    assert len(list(notes.iterdir())) == 1
    seen: list[int] = []
    with Client(client.url) as other:
        made = other.upload("models", file, on_bytes=lambda done, _total: seen.append(done))
    assert made["sha256"] == sha256(file)
    assert seen[0] == 3 * PIECE
    assert list(notes.iterdir()) == []


def test_another_content_under_the_same_name_begins_anew(client: Client, file: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done > 3 * PIECE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.upload("models", file, on_bytes=stop)
    file.write_bytes(os.urandom(SIZE))
    seen: list[int] = []
    made = client.upload("models", file, on_bytes=lambda done, _total: seen.append(done))
    assert made["sha256"] == sha256(file)
    assert seen[0] == 0


def test_an_upload_the_server_forgot_begins_anew(client: Client, file: Path, notes: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done > 3 * PIECE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.upload("models", file, on_bytes=stop)
    [note] = notes.iterdir()
    client._line.send("DELETE", note.read_text(), headers={"tus-resumable": "1.0.0"})
    assert client.upload("models", file)["sha256"] == sha256(file)


def test_a_file_that_changes_meanwhile_is_not_sent(client: Client, file: Path) -> None:
    def write(done: int, _total: int) -> None:
        if done == 2 * PIECE:
            os.utime(file, (1, 1))

    with pytest.raises(FileChangedError, match="changed"):
        client.upload("models", file, on_bytes=write)


def test_too_large_is_told_before_a_byte_is_sent(client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1024**3)
    with pytest.raises(ApiError) as refused:
        client.upload("models", large)
    assert (refused.value.status, refused.value.code) == (413, "BODY_TOO_LARGE")


def test_no_cache_folder_is_no_obstacle(client: Client, file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert client.upload("models", file)["sha256"] == sha256(file)


def test_a_post_whose_answer_was_lost_is_done_once(over_bad_line: Client, bad_line: Any, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    small.write_bytes(b"not checked here")
    over_bad_line.get("/v1/methods")
    before = {model["id"] for model in over_bad_line.list("/v1/models", limit=1000)}
    bad_line.deaf = {bad_line.connections, bad_line.connections + 1}
    made = over_bad_line.upload("models", small)
    after = {model["id"] for model in over_bad_line.list("/v1/models", limit=1000)}
    assert after - before == {made["id"]}


def test_the_server_is_killed_meanwhile_and_comes_back(api_process: Any, file: Path) -> None:
    killed: list[int] = []
    seen: list[int] = []
    back = threading.Thread(target=api_process.start)

    def kill(done: int, _total: int) -> None:
        seen.append(done)
        if done > 2.5 * PIECE and not killed:
            killed.append(done)
            api_process.kill()
            back.start()

    with Client(api_process.url) as client:
        made = client.upload("models", file, on_bytes=kill)
    back.join()
    assert made["sha256"] == sha256(file)
    assert killed
    asked = seen[seen.index(killed[0]) + 1 :]
    assert asked[0] >= 2 * PIECE  # not from the start
