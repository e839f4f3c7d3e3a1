"""The sample models beside the checkout, against ONNX Runtime: outputs, gradients, and training written back."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.zoo.judge import backward, distance, onnx_outputs, open_session
from worker.engine import Graph, TorchGraph

NEAR = 1e-5
REACHED = 0.8
"""Share of the trainable parameters that a gradient must reach."""
STEPS = 5
FOLDERS = ("models", "models/exports")
SIZES: Mapping[str, Mapping[str, tuple[int, ...]]] = {"silero_vad": {"input": (1, 576), "state": (2, 1, 128)}}
"""Shapes of inputs whose open dimensions are no batch."""
NUMBERS: Mapping[str, int] = {"sr": 16_000}
"""Inputs that mean something."""


@pytest.fixture(params=FOLDERS)
def paths(request: pytest.FixtureRequest, shared: Path) -> list[Path]:
    found = sorted((shared / request.param).glob("*.onnx"))
    assert found
    return found


def _feed(path: Path, batch: int) -> list[torch.Tensor]:
    """Random inputs with every open dimension `batch`; whole numbers are small, masks all ones."""
    rng = np.random.default_rng(batch)
    return [torch.as_tensor(_array(path, each, rng, batch)) for each in open_session(path).get_inputs()]


def _array(path: Path, declared: onnxruntime.NodeArg, rng: np.random.Generator, batch: int) -> np.ndarray:
    open_shape = tuple(size if isinstance(size, int) and size > 0 else batch for size in declared.shape)
    shape = SIZES.get(path.stem, {}).get(declared.name, open_shape)
    match declared.type:
        case "tensor(float)":
            return rng.standard_normal(shape).astype(np.float32)
        case "tensor(bool)":
            return np.ones(shape, np.bool_)
        case _ if declared.name in NUMBERS:
            return np.full(shape, NUMBERS[declared.name])
        case _:
            return np.ones(shape, np.int64) if "mask" in declared.name else rng.integers(0, 5, shape)


def _batches(path: Path) -> Iterator[int]:
    """Sizes for the open dimensions: one where all are fixed, or mean something else."""
    is_open = any(not isinstance(size, int) for each in open_session(path).get_inputs() for size in each.shape)
    return iter((1, 2, 3) if is_open and path.stem not in SIZES else (1,))


def test_outputs_are_those_of_onnx_runtime(paths: list[Path]) -> None:
    far = {}
    for path in paths:
        module = TorchGraph(Graph.load(path))
        for batch in _batches(path):
            inputs = _feed(path, batch)
            with torch.no_grad():
                off = distance(module(*inputs), onnx_outputs(path, inputs))
            if not off < NEAR:
                far[path.stem, batch] = off
    assert not far


def test_gradients_reach_the_parameters(paths: list[Path]) -> None:
    unreached = {}
    for path in paths:
        module = TorchGraph(Graph.load(path))
        backward(module(*_feed(path, 2)))
        trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
        missed = [name for name, each in trained.items() if each.grad is None]
        if len(missed) > (1 - REACHED) * len(trained):
            unreached[path.stem] = missed
    assert not unreached


def test_what_was_trained_is_written_back(paths: list[Path], tmp_path: Path) -> None:
    far = {}
    for path in paths:
        graph = Graph.load(path)
        module, inputs = TorchGraph(graph), _feed(path, 2)
        with torch.no_grad():
            before = module(*inputs)
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
        for _ in range(STEPS):
            optimizer.zero_grad()
            backward(module(*inputs))
            optimizer.step()
        module.write_back()
        graph.save(tmp_path / "trained.onnx")
        with torch.no_grad():
            trained = module(*inputs)
        assert distance(trained, before) > 10 * NEAR, "nothing was trained"
        off = distance(trained, onnx_outputs(tmp_path / "trained.onnx", inputs))
        if not off < NEAR:
            far[path.stem] = off
    assert not far
