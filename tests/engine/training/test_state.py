"""What is written of a training comes back as it was, to the last bit, and without pickles."""

import zipfile
from pathlib import Path

import pytest
import torch

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.training.state import read_state, write_state


def test_everything_comes_back(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "update": 7,
        "rate": 0.1,
        "name": "größe",
        "none": None,
        "graph": b"\x00\x01PK",
        "flags": [True, False],
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "param_groups": [{"betas": (0.9, 0.99)}]},
        "half": torch.randn(3, 2, generator=generator).to(torch.bfloat16),
        "float16": torch.randn(3, generator=generator).half(),
        "empty": torch.zeros(0, 4),
        "view": torch.arange(12).reshape(3, 4).T,
        "nan": torch.tensor([float("nan"), -0.0]),
    }
    write_state(tmp_path / "s.npz", state)
    back = read_state(tmp_path / "s.npz")
    assert back["optimizer"]["param_groups"] == [{"betas": [0.9, 0.99]}]
    assert list(back["optimizer"]["state"]) == [0, 1]
    for name in ("update", "rate", "name", "none", "graph", "flags"):
        assert back[name] == state[name]
    for name in ("half", "float16", "empty", "view"):
        assert back[name].dtype == state[name].dtype
        assert torch.equal(back[name], state[name])
    assert back["nan"].view(torch.int32).tolist() == state["nan"].view(torch.int32).tolist()


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_state(tmp_path / "s.npz", {"model": torch.nn.Linear(1, 1)})


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_broken_file_is_told_as_one(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.npz"
    write_state(path, {"a": torch.zeros(100)})
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:200])
        case "other":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.npy", b"no array")
        case _:
            path.write_bytes(b"")
    with pytest.raises(SlimlineError) as caught:
        read_state(path)
    assert (caught.value.failure.code, caught.value.failure.kind) == ("CHECKPOINT_BROKEN", FaultKind.TRANSIENT)
