"""The embedded broker: the real Valkey, its socket, its data."""

import asyncio
import subprocess
from pathlib import Path

import redis

from app.up.valkey import SOCKET_PATH_MAX, place_socket, server_command, wait_until_open


def start(folder: Path, socket: Path) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(server_command(folder, socket))
    asyncio.run(asyncio.wait_for(wait_until_open(socket), 20))
    return server


def test_data_outlives_a_kill(tmp_path: Path) -> None:
    socket = place_socket(tmp_path)
    server = start(tmp_path, socket)
    with redis.Redis(unix_socket_path=str(socket)) as client:
        client.lpush("queue", "message")
    server.kill()
    server.wait(10)
    server = start(tmp_path, socket)
    with redis.Redis(unix_socket_path=str(socket)) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]
    server.terminate()
    assert server.wait(10) == 0


def test_only_its_user_may_connect(tmp_path: Path) -> None:
    socket = place_socket(tmp_path)
    server = start(tmp_path, socket)
    assert socket.stat().st_mode & 0o777 == 0o700
    server.terminate()
    server.wait(10)


def test_socket_of_a_deep_folder_goes_to_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * SOCKET_PATH_MAX)
    deep.mkdir()
    socket = place_socket(deep)
    assert deep not in socket.parents
    assert len(str(socket)) <= SOCKET_PATH_MAX
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    server = start(deep, socket)
    server.terminate()
    server.wait(10)
    socket.parent.rmdir()
