"""The whole service as a user runs it: what is deleted leaves the disk, what is needed does not."""

import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("e2e")


def blobs(up: Any) -> set[str]:
    return {path.name for path in Path(up.data / "blobs").glob("??/*")}


def test_a_deleted_file_leaves_the_disk(own_up: Any, tmp_path: Path) -> None:
    own_up.environment = {"SLIMLINE_COLLECT_S": "0.3", "SLIMLINE_COLLECT_AFTER_S": "5"}
    own_up.start()
    ids = {}
    for name in ("kept", "deleted"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
        ids[name] = own_up.upload("models", tmp_path / name)  # no model, but it is stored until it is deleted
    kept = own_up.ask(f"/v1/models/{ids['kept']}")["sha256"]
    assert len(blobs(own_up)) == 2
    assert own_up.run_cli("models", "delete", ids["deleted"]).returncode == 0
    deadline = time.monotonic() + 60
    while blobs(own_up) != {kept}:
        assert time.monotonic() < deadline, own_up.log.read_text()[-3000:]
        time.sleep(0.1)
    assert "blobs that no one needed were removed" in own_up.log.read_text()
