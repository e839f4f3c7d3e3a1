"""docker-compose.yml as data, and its services as processes of this machine, started by its own commands."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECRETS = {
    "POSTGRES_PASSWORD": "pg-secret",
    "VALKEY_PASSWORD": "valkey-secret",
    "S3_ACCESS_KEY": "test-key",
    "S3_SECRET_KEY": "test-secret",
}


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """What compose makes of `${NAME:?reason}` in a value, anywhere inside it."""
    match value:
        case str():
            return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: variables[found[1]], value)
        case list():
            return [interpolate(item, variables) for item in value]
        case dict():
            return {name: interpolate(item, variables) for name, item in value.items()}
        case _:
            return value


@pytest.fixture(scope="session")
def compose_text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="session")
def compose(compose_text: str) -> Any:
    """The file as it is written."""
    return yaml.safe_load(compose_text)


@pytest.fixture(scope="session")
def configured(compose: Any) -> Any:
    """The file with every secret filled in."""
    return interpolate(compose, SECRETS)


class Machine:
    """Runs commands of services; `addresses` says where each `host:port` of the file is on this machine."""

    def __init__(self, folder: Path, addresses: Mapping[str, str]) -> None:
        self.folder = folder
        self._addresses = addresses
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._programs = folder / "bin"
        self._programs.mkdir()
        for name in ("slimline", "weed", "python"):
            (self._programs / name).symlink_to(Path(sysconfig.get_path("scripts")) / name)

    def localize(self, text: str) -> str:
        for remote, here in self._addresses.items():
            text = text.replace(remote, here)
        return text

    def run(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        """To its end, which must be a good one."""
        done = subprocess.run(
            [self.localize(word) for word in command],
            **self._around(environment or {}),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.started[name] = subprocess.Popen(
                [self.localize(word) for word in command], **self._around(environment or {}), stdout=log, stderr=log
            )

    def stop(self, name: str) -> int:
        """Asked as a container is asked; the exit status."""
        process = self.started.pop(name)
        process.terminate()
        return process.wait(30)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _around(self, environment: Mapping[str, str]) -> dict[str, Any]:
        theirs = {name: self.localize(value) for name, value in environment.items()}
        path = f"{self._programs}:{os.environ['PATH']}"
        return {"cwd": self.folder, "env": {**os.environ, "PATH": path, "SLIMLINE_DATA": str(self.folder), **theirs}}


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[Any]:
    """A machine for given addresses; what still runs on it at the end is killed."""
    made: list[Machine] = []

    def make(addresses: Mapping[str, str]) -> Machine:
        made.append(Machine(tmp_path, addresses))
        return made[-1]

    yield make
    for machine in made:
        for process in machine.started.values():
            process.kill()
            process.wait()
