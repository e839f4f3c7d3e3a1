"""BatchNormalization while a graph trains, against `nn.BatchNorm2d` in the module that was exported."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.zoo import zoo
from benchmarks.zoo.entry import Exported, outputs_of, quiet
from benchmarks.zoo.judge import backward, distance, onnx_outputs
from worker.engine import Graph, TorchGraph

NEAR = 1e-5
STEPS = 3
WITH_BATCH_NORM = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"zoo-{name}"))
    for name in ("resnet", "mobilenet", "densenet", "efficientnet", "shufflenet", "unet", "yolo")
]


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in module.named_buffers() if "running" in name}


def _gradient_distance(module: TorchGraph, native: nn.Module) -> float:
    pairs = [(module.get_parameter(name).grad, each.grad) for name, each in native.named_parameters()]
    got, wanted = zip(*((got, wanted) for got, wanted in pairs if got is not None and wanted is not None), strict=True)
    assert len(got) == len(pairs), "a parameter got no gradient"
    return distance(got, wanted)


@pytest.mark.parametrize("exported", WITH_BATCH_NORM, indirect=True)
def test_it_trains_as_the_native_module_does(exported: Exported, tmp_path: Path) -> None:
    graph, native = Graph.load(exported.plain), exported.entry.build()
    module = TorchGraph(graph)
    before = _statistics(native)
    inputs = exported.entry.example(6)
    optimizers = [torch.optim.SGD(each.train().parameters(), lr=0.02) for each in (module, native)]

    for _ in range(STEPS):
        got, wanted = module(*inputs.values()), outputs_of(native, inputs)
        assert distance(got, wanted) < NEAR
        for optimizer, outputs in zip(optimizers, (got, wanted), strict=True):
            optimizer.zero_grad()
            backward(outputs)
            optimizer.step()
    assert _gradient_distance(module, native) < NEAR

    after, mine = _statistics(native), _statistics(module)
    assert mine.keys() == after.keys()
    assert min(distance([after[name]], [before[name]]) for name in after) > 0, "statistics did not move"
    assert distance(list(mine.values()), [after[name] for name in mine]) < NEAR

    module.eval().write_back()
    native.eval()
    graph.save(tmp_path / "trained.onnx")
    with torch.no_grad():
        wanted = outputs_of(native, inputs)
        assert distance(module(*inputs.values()), wanted) < NEAR
    assert distance(onnx_outputs(tmp_path / "trained.onnx", tuple(inputs.values())), wanted) < NEAR


@pytest.mark.parametrize("exported", WITH_BATCH_NORM[:1], indirect=True)
def test_in_eval_mode_statistics_stay(exported: Exported) -> None:
    module = TorchGraph(Graph.load(exported.plain))
    before = _statistics(module)
    backward(module(*exported.entry.example(4).values()))
    assert distance(list(before.values()), list(_statistics(module).values())) == 0


def test_a_graph_exported_in_training_mode_uses_the_batch_in_either_mode(tmp_path: Path) -> None:
    entry = zoo("tiny")["resnet"]
    native = entry.build().train()
    with quiet():
        torch.onnx.export(
            entry.build().train(),
            tuple(entry.example().values()),
            tmp_path / "training.onnx",
            dynamo=False,
            opset_version=20,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
            dynamic_axes={"input": {0: "batch"}},
            input_names=["input"],
        )
    module = TorchGraph(Graph.load(tmp_path / "training.onnx"))
    inputs = entry.example(5)
    wanted = outputs_of(native, inputs)
    backward(wanted)
    for is_training in (False, True):
        module.train(is_training)
        got = module(*inputs.values())
        assert distance(got, wanted) < NEAR
        module.zero_grad()
        backward(got)
        assert _gradient_distance(module, native) < NEAR
