"""The service with each part on a machine of its own: API and sweeper, two workers, PostgreSQL, Valkey, S3."""

import os
import random
import re
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.faults.backends import Postgres, Valkey
from benchmarks.faults.house import House
from benchmarks.faults.network import Network
from benchmarks.faults.program import Program, wait_until

MACHINES = ("api", "worker-a", "worker-b", "postgres", "valkey", "s3")
HEARTBEAT_S, LEASE_S, SWEEP_S = 1.0, 4.0, 0.5
"""So short that PostgreSQL's client still sends what it could not deliver when the lease has run out."""
_PASSWORD, _KEY, _SECRET = "valkey-password", "s3-key", "s3-secret"


@dataclass
class Site:
    """Everything runs but `worker_a` and `worker_b`."""

    network: Network
    house: House
    postgres: Postgres
    broker_url: str
    worker_a: Program
    worker_b: Program

    def start_worker(self, worker: Program) -> None:
        """Return once it waits for messages."""
        worker.start()
        address = self.network.address(worker.name)
        wait_until(lambda: self._is_listening(address), f"{worker.name} does not listen, see {worker.log}")

    def find_writes(self, worker: Program, job: str, since: float) -> list[str]:
        """What the worker asked PostgreSQL to write of the job since that time: `UPDATE jobs`, `INSERT INTO ...`."""
        host = re.escape(self.network.address(worker.name))
        entry = (
            rf"^([\d.]+) {host} LOG: .*?((?:UPDATE|INSERT INTO|DELETE FROM) \w+)(.*\n(?:\t.*\n)*)\1 {host} DETAIL: (.*)"
        )
        found = re.finditer(entry, self.postgres.log.read_text(errors="replace"), re.MULTILINE)
        return [write[2] for write in found if float(write[1]) >= since and job in write[4]]

    def _is_listening(self, address: str) -> bool:
        with redis.Redis.from_url(self.broker_url) as valkey:
            return any(
                each["cmd"] == "brpop" and each["addr"].startswith(f"{address}:") for each in valkey.client_list()
            )


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """A site in an empty folder. Raises NoNetworkError."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(MACHINES))

        def place(program: Program, machine: str) -> Program:
            network.place(program, machine)
            stack.callback(lambda: program.process and program.kill_all())
            return program

        postgres = Postgres(folder / "postgres", host=network.address("postgres"))
        postgres.command = [*postgres.command, "-c", "log_statement=mod", "-c", "log_line_prefix=%n %h "]
        valkey = Valkey(folder / "valkey", host=network.address("valkey"))
        valkey.command = [*valkey.command, "--requirepass", _PASSWORD]
        place(postgres, "postgres")
        place(valkey, "valkey")
        # Its sockets in /tmp are named by port, and another site may be open beside this one.
        s3_port = random.randrange(20_000, 50_000, 10)
        place(_make_s3(folder / "s3", network.address("s3"), s3_port), "s3").start()
        postgres.open()
        valkey.open()
        broker_url = valkey.url.replace("redis://", f"redis://:{_PASSWORD}@")
        settings = _settings(postgres.url, broker_url, f"http://{network.address('s3')}:{s3_port}")
        house = House(folder, settings, workers=0, host=network.address("api"))
        for program in house.programs:
            place(program, "api")
        workers = [
            place(house.make_worker(name, SLIMLINE_DATA=str(folder / name)), name) for name in ("worker-a", "worker-b")
        ]
        house.open()
        yield Site(network, house, postgres, broker_url, *workers)


def _make_s3(folder: Path, address: str, port: int) -> Program:
    """SeaweedFS, on `port` and the next three. Buckets are made by the first write to them."""
    folder.mkdir()
    options = {"dir": folder, "ip": address, "ip.bind": address, "filer.localSocket": folder / "s"}
    options |= {f"{part}.port": port + place for place, part in enumerate(("s3", "master", "volume", "filer"))}
    quiet = {"master.telemetry": "false", "master.volumeSizeLimitMB": 64, "volume.max": 16}
    command = [f"-{name}={value}" for name, value in {**options, **quiet}.items()]
    weed = str(Path(sysconfig.get_path("scripts")) / "weed")
    keys = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET}
    return Program("s3", [weed, "server", "-s3", *command], folder.with_suffix(".log"), {**os.environ, **keys})


def _settings(database_url: str, broker_url: str, endpoint: str) -> dict[str, str]:
    chosen = {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "STORAGE_URL": "s3://machines/blobs",
        "STORAGE_ENDPOINT": endpoint,
        "STORAGE_ACCESS_KEY": _KEY,
        "STORAGE_SECRET_KEY": _SECRET,
        "HEARTBEAT_S": str(HEARTBEAT_S),
        "LEASE_S": str(LEASE_S),
        "SWEEP_S": str(SWEEP_S),
    }
    return {f"SLIMLINE_{name}": value for name, value in chosen.items()}
