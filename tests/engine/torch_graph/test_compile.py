"""Graphs under torch.compile and torch.export: one graph without breaks, right at sizes that were never traced."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from benchmarks.zoo.entry import Entry, Exported
from benchmarks.zoo.judge import backward, distance
from worker.engine import Graph, TorchGraph

NEAR = 1e-5
BATCHES = (1, 3, 5)
MOST = 64
"""Largest size an exported program is asked to take."""
FIXED_BY_TORCH = {"lstm": "length"}
"""Dimensions that torch.export fixes in the native module too."""


def _named(*names: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"zoo-{name}")) for name in names]


@pytest.fixture(autouse=True)
def _forget_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def _examples(entry: Entry) -> list[tuple[Tensor, ...]]:
    examples = [entry.example(batch) for batch in BATCHES]
    if entry.name not in FIXED_BY_TORCH:
        examples += [entry.example(2, extent) for extent in entry.other_extents]
    return [tuple(each.values()) for each in examples]


def _expect_equal(compiled: Callable[..., Any], module: TorchGraph, examples: Sequence[tuple[Tensor, ...]]) -> None:
    with torch.no_grad():
        for inputs in examples:
            assert distance(compiled(*inputs), module(*inputs)) < NEAR


@pytest.mark.parametrize("exported", _named("resnet", "unet", "lstm", "gru", "bert", "vit", "llama"), indirect=True)
def test_one_graph_serves_every_size(exported: Exported) -> None:
    module = TorchGraph(Graph.load(exported.optimized))
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        compiled(*exported.entry.example().values())
        with torch.compiler.set_stance("fail_on_recompile"):
            for inputs in (exported.entry.example(batch) for batch in BATCHES[1:]):
                assert distance(compiled(*inputs.values()), module(*inputs.values())) < NEAR
    _expect_equal(compiled, module, _examples(exported.entry))


@pytest.mark.parametrize("exported", _named("mobilenet"), indirect=True)
def test_gradients_of_a_compiled_graph(exported: Exported) -> None:
    module = TorchGraph(Graph.load(exported.plain)).train()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    gradients = []
    for runner in (module, compiled):
        module.zero_grad()
        backward(runner(*exported.entry.example(3).values()))
        gradients.append([each.grad for each in module.parameters() if each.grad is not None])
    assert len(gradients[0]) > 10
    assert distance(gradients[1], gradients[0]) < NEAR


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("exported", _named("shufflenet", "bert"), indirect=True)
def test_inductor(exported: Exported) -> None:
    module = TorchGraph(Graph.load(exported.optimized))
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    _expect_equal(compiled, module, _examples(exported.entry))


@pytest.mark.parametrize(
    "exported", _named("resnet", "unet", "lstm", "bert", "vit", "llama", "t5", "segformer"), indirect=True
)
def test_an_exported_program_takes_every_size(exported: Exported) -> None:
    entry, module = exported.entry, TorchGraph(Graph.load(exported.optimized))
    example = tuple(entry.example().values())
    dims = {"batch": Dim("batch", min=1, max=MOST)}
    fixed = FIXED_BY_TORCH.get(entry.name)
    shapes = tuple(
        {axis: dims.get(name, Dim.AUTO) for axis, name in entry.dynamic[each].items() if name != fixed}
        for each in entry.example()
    )
    program = torch.export.export(module, example, dynamic_shapes=(shapes,))
    _expect_equal(program.module(), module, _examples(entry))


@pytest.mark.slow
def test_shared_exports_compile_into_one_graph(shared: Path) -> None:
    far = {}
    for path in sorted((shared / "models" / "exports").glob("*.onnx")):
        torch.compiler.reset()
        graph = Graph.load(path)
        module = TorchGraph(graph)
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
        with torch.no_grad():
            for batch in (2, 3):
                inputs = _random_inputs(graph, batch)
                off = distance(compiled(*inputs), module(*inputs))
                if not off < NEAR:
                    far[path.stem, batch] = off
    assert not far


def _random_inputs(graph: Graph, batch: int) -> list[Tensor]:
    inputs = []
    for each in graph.inputs:
        shape = [size if isinstance(size, int) else batch for size in each.shape]
        inputs.append(torch.randn(shape) if each.dtype == "float" else torch.randint(0, 5, shape))
    return inputs
