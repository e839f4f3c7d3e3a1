"""Downloads over a line that breaks: what is kept, what is asked for again, what is refused."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import DownloadDamagedError
from app.client.transfer import download


def fetch(url: str, sha256: str, to: Path) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    with httpx.Client() as http:
        download(http, url, sha256, to, lambda done, total: seen.append((done, total)))
    return seen


@pytest.fixture
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_broken_line_is_taken_up_where_it_broke(
    breaking_server: Any, content: bytes, sha256: str, tmp_path: Path
) -> None:
    breaking_server.burst = len(content) // 3
    seen = fetch(breaking_server.url, sha256, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content
    starts = [0, *(int(wanted[6:-1]) for wanted in breaking_server.ranges[1:])]
    assert len(starts) > 2
    assert starts == sorted(starts)
    assert starts[-1] > 0
    assert seen[-1] == (len(content), len(content))


def test_another_process_goes_on(breaking_server: Any, content: bytes, sha256: str, tmp_path: Path) -> None:
    breaking_server.burst = len(content) // 10
    with pytest.raises(httpx.TransportError):
        fetch(breaking_server.url, sha256, tmp_path / "got")
    assert not (tmp_path / "got").exists()
    breaking_server.ranges.clear()
    breaking_server.burst = len(content)
    fetch(breaking_server.url, sha256, tmp_path / "got")
    assert breaking_server.ranges[0] != "bytes=0-"
    assert breaking_server.ranges[0] is not None
    assert (tmp_path / "got").read_bytes() == content


def test_whole_part_file_needs_no_bytes(breaking_server: Any, content: bytes, sha256: str, tmp_path: Path) -> None:
    (tmp_path / f".got.{sha256[:16]}.part").write_bytes(content)
    fetch(breaking_server.url, sha256, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content


def test_wrong_bytes_are_not_kept(breaking_server: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadDamagedError, match="sha256"):
        fetch(breaking_server.url, "0" * 64, tmp_path / "got")
    assert not list(tmp_path.iterdir())
