"""Where the storm is let loose: on the parts of a deployment, or on `slimline up` as one tree; and who is killed."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil

from benchmarks.faults.backends import Postgres, Valkey
from benchmarks.faults.house import QUICK_TO_NOTICE, House, Restarts, find_children
from benchmarks.faults.program import Program, wait_until
from benchmarks.faults.storm import Kill, Plan

Chosen = Callable[..., Plan]

MEASURING_S = 3.0
"""How long who kills measuring processes looks out for one."""


@contextmanager
def deployment(folder: Path) -> Iterator[Chosen]:
    """API, two workers, beat, Valkey and PostgreSQL as processes of their own, each started again when it ends."""
    valkey, postgres = Valkey(folder / "valkey").open(), Postgres(folder / "postgres").open()
    blobs = folder / "blobs"
    urls = {"DATABASE_URL": postgres.url, "BROKER_URL": valkey.url, "STORAGE_URL": str(blobs)}
    settings = {**QUICK_TO_NOTICE, **{f"SLIMLINE_{name}": value for name, value in urls.items()}}
    house = House(folder / "house", settings, workers=2)
    kills: dict[str, Kill] = {
        "worker": lambda rng: _kill(rng.choice(house.workers)),
        "child": lambda rng: _kill_child(rng.choice(house.workers)),
        "measuring process": lambda rng: _kill_measuring(rng.choice(house.workers)),
        "api": lambda _: _kill(house.api),
        "beat": lambda _: _kill(house.beat),
        "valkey": lambda _: _kill(valkey),
        "postgresql": lambda _: _kill(postgres, with_all=True),
    }
    tend = Restarts([valkey, postgres, *house.programs])
    try:
        house.open()
        yield partial(Plan, url=house.url, database_url=postgres.url, blobs=blobs, kills=kills, tend=tend)
    finally:
        house.close()
        for program in (valkey, postgres):
            program.kill_all()


@contextmanager
def tree(folder: Path) -> Iterator[Chosen]:
    """`slimline up`: any process of it is killed, and now and then the whole tree, which is then started again."""
    data = folder / "data"
    command = [sys.executable, "-m", "app.cli", "up", "--data", str(data), "--workers", "2", "--port"]
    up = Program("up", [*command, "0"], folder / "up.log", {**QUICK_TO_NOTICE, "OMP_NUM_THREADS": "1"})
    up.start()
    wait_until(lambda: re.search(r"http://\S+", up.tail()), "`slimline up` says no address")
    found = re.search(r"http://\S+:(\d+)", up.tail())
    assert found
    up.command = [*command, found[1]]
    kills: dict[str, Kill] = {"one of the tree": partial(_kill_one, up), "the whole tree": partial(_kill_rarely, up)}
    try:
        wait_until(lambda: _is_ready(found[0]), "`slimline up` is not ready")
        database = f"sqlite:///{data / 'slimline.db'}"
        yield partial(Plan, url=found[0], database_url=database, blobs=data / "blobs", kills=kills, tend=Restarts([up]))
    finally:
        with suppress(psutil.NoSuchProcess, subprocess.TimeoutExpired):
            up.stop()


SCENES = {"deployment": deployment, "up": tree}


def _kill(program: Program, *, with_all: bool = False) -> bool:
    is_there = program.is_running
    program.kill_all() if with_all else program.kill()
    return is_there


def _kill_child(worker: Program) -> bool:
    return worker.is_running and _kill_any(find_children(worker)[:1])


def _kill_measuring(worker: Program) -> bool:
    """Wait for a child to measure in a process of its own, which takes it a moment only."""
    give_up_at = time.monotonic() + MEASURING_S
    while worker.is_running and time.monotonic() < give_up_at:
        with suppress(psutil.NoSuchProcess):
            if _kill_any([own for child in find_children(worker) for own in child.children()]):
                return True
        time.sleep(0.01)
    return False


def _kill_one(up: Program, rng: random.Random) -> bool:
    family = up.family()
    return bool(family) and _kill_any([rng.choice(family)])


def _kill_rarely(up: Program, rng: random.Random) -> bool:
    return rng.random() < 0.2 and _kill(up)  # what is left of it must die by itself


def _kill_any(processes: list[psutil.Process]) -> bool:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


def _is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    return False
