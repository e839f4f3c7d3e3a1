"""What a module made from an export is judged by: ONNX Runtime's numbers, distances between tensors, a loss."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from benchmarks.zoo.entry import seeded

_ERRORS_ONLY = 3


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_outputs(path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What ONNX Runtime gives for inputs in the graph's order."""
    session = open_session(path)
    names = [each.name for each in session.get_inputs()]
    feed = {name: tensor.detach().numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.as_tensor(each) for each in session.run(None, feed)]


def distance(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest number of the same tensor; infinite where types or shapes differ."""
    return max((_distance(*pair) for pair in zip(got, wanted, strict=True)), default=0.0)


def _distance(got: Tensor, wanted: Tensor) -> float:
    if got.dtype is not wanted.dtype or got.shape != wanted.shape:
        return float("inf")
    if not wanted.numel():
        return 0.0
    off = (got.detach().double() - wanted.detach().double()).abs().max()
    return float(off / wanted.detach().double().abs().max().clamp(min=1e-30))


def loss_of(outputs: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of every floating-point output from fixed random targets, summed."""
    with seeded():
        parts = [(each - torch.randn_like(each)).square().mean() for each in outputs if each.is_floating_point()]
    return torch.stack(parts).sum()


def backward(outputs: Sequence[Tensor]) -> float:
    """Give every weight its gradient of `loss_of(outputs)`, which comes back."""
    loss = loss_of(outputs)
    torch.autograd.backward(loss)
    return loss.item()
