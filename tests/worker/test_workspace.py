import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from app.contracts.failure import SlimlineError
from app.settings import Settings
from worker.workspace import Workspaces


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data")


@pytest.fixture
def workspaces(settings: Settings) -> Workspaces:
    return Workspaces.open(settings)


def test_round_trip(workspaces: Workspaces, settings: Settings) -> None:
    with workspaces.make("job_1") as workspace:
        (workspace.folder / "made").write_bytes(b"content")
        blob = workspace.keep("made")
    assert blob.size_bytes == 7
    with workspaces.make("job_1") as workspace:
        name = workspace.fetch(blob.sha256, "input.onnx")
        path = workspace.folder / name
        assert path.read_bytes() == b"content"
        assert path.stat().st_mode & 0o777 == 0o400
    assert list(settings.workspaces.iterdir()) == []


def test_removed_after_an_error(workspaces: Workspaces, settings: Settings) -> None:
    with suppress(RuntimeError), workspaces.make("job_1") as workspace:
        (workspace.folder / "half").write_bytes(b"x")
        raise RuntimeError
    assert list(settings.workspaces.iterdir()) == []


def test_a_missing_blob_is_told(workspaces: Workspaces) -> None:
    with workspaces.make("job_1") as workspace, pytest.raises(SlimlineError) as raised:
        workspace.fetch("0" * 64, "input")
    assert raised.value.failure.code == "BLOB_MISSING"


@pytest.mark.parametrize("name", ["../outside", "link", "hard", "absent", "folder", "folder/../../outside"])
def test_only_files_that_the_child_made_are_kept(workspaces: Workspaces, settings: Settings, name: str) -> None:
    outside = settings.workspaces / "outside"
    outside.write_bytes(b"secret")
    with workspaces.make("job_1") as workspace:
        (workspace.folder / "link").symlink_to(outside)
        (workspace.folder / "hard").hardlink_to(outside)
        (workspace.folder / "folder").mkdir()
        with pytest.raises(SlimlineError) as raised:
            workspace.keep(name)
        assert raised.value.failure.code == "ENGINE_DEFECT"


ABANDON = """
import sys, time
from app.settings import Settings
from worker.workspace import Workspaces
with Workspaces.open(Settings(data=sys.argv[1])).make("job_dead") as workspace:
    (workspace.folder / "half").write_bytes(b"x")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_workspaces_of_the_dead_are_removed_and_those_of_the_living_are_not(
    workspaces: Workspaces, settings: Settings
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", ABANDON, str(settings.data)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert other.stdout.readline() == b"ready\n"
    with workspaces.make("job_mine") as mine:
        workspaces.remove_abandoned()
        assert len(list(settings.workspaces.iterdir())) == 2
        other.kill()
        other.wait()
        other.stdout.close()
        workspaces.remove_abandoned()
        assert list(settings.workspaces.iterdir()) == [mine.folder]
