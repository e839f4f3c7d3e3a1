"""One `up` per data folder, and no lock that outlives its holder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.contracts.failure import SlimlineError
from app.up.lock import claim

HOLD = """
import pathlib, sys
from app.up.lock import claim
with claim(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_held_folder_is_refused_until_its_holder_is_dead(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(SlimlineError, match=f"process {holder.pid}") as refused, claim(tmp_path / "data"):
        pass
    assert refused.value.failure.code == "DATA_FOLDER_IN_USE"
    holder.kill()
    holder.communicate()
    with claim(tmp_path / "data"):
        assert (tmp_path / "data/up.lock").read_text() == f"{os.getpid()}\n"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlimlineError) as refused, claim(tmp_path / "file" / "data"):
        pass
    assert refused.value.failure.code == "DATA_FOLDER_UNUSABLE"
