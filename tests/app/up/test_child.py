"""A part as a child: leash, restarts, output, stopping. Real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.up.child import Child, describe_end
from app.up.parts import Part

PARENT = """
import subprocess, sys, time
from app.up.leash import leashed
print(subprocess.Popen(leashed(["sleep", "60"])).pid, flush=True)
time.sleep(60)
"""


def make_child(script: str, grace_s: float = 5, **environment: str) -> Child:
    return Child(Part("part", (sys.executable, "-c", script), grace_s), {**os.environ, **environment})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


def test_leash_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 20
    while child.name() != "sleep":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.communicate()
    assert not psutil.wait_procs([child], timeout=10)[1]


def test_leash_refuses_a_parent_that_is_gone() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app.up.leash", "1", "sleep", "60"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "gone" in ended.stderr


def test_dead_child_is_started_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = f"print('hello', flush=True); open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(7)"

    async def scenario() -> None:
        child = make_child(script)
        child.start()
        await until(lambda: child.failures >= 2)
        await child.stop()

    asyncio.run(scenario())
    assert (tmp_path / "starts").read_text() == "xx"
    log = capsys.readouterr().err.splitlines()
    assert log[:4] == [
        "part   | hello",
        "part   | ended with status 7; started again in 0.5 s",
        "part   | hello",
        "part   | ended with status 7; started again in 1 s",
    ]


@pytest.mark.parametrize(("deaf", "status"), [(False, -signal.SIGTERM), (True, -signal.SIGKILL)])
def test_stop_asks_then_kills(deaf: bool, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if deaf else ""
    script = f"import pathlib, signal, time; {ignore}\npathlib.Path({str(tmp_path / 'up')!r}).touch()\ntime.sleep(60)"

    async def scenario() -> int | None:
        child = make_child(script, grace_s=0.5)
        child.start()
        await until((tmp_path / "up").exists)
        await child.stop()
        assert child._process
        return child._process.returncode

    assert asyncio.run(scenario()) == status
    assert ("killed" in capsys.readouterr().err) is deaf


def test_endless_line_does_not_block_the_child(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> int:
        return await make_child("print('x' * 1_000_000); print('end')").run_once()

    assert asyncio.run(scenario()) == 0
    log = capsys.readouterr().err
    assert log.count("x") == 1_000_000
    assert log.endswith("part   | end\n")


def test_ends_in_words() -> None:
    assert [describe_end(status) for status in (0, 3, -9)] == [
        "ended with status 0",
        "ended with status 3",
        "killed by SIGKILL",
    ]
