"""What changes on the module while a quantized graph is trained: scales learn, and weights stay in their range."""

import math
from collections.abc import Iterable, Mapping
from typing import cast

import onnx_ir as ir
import torch
from torch.nn.utils import parametrize

from worker.engine.graph import Graph
from worker.engine.graph.shapes import dims
from worker.engine.quantization.integer_weights import LARGEST_BIAS
from worker.engine.torch_graph import TorchGraph
from worker.engine.torch_graph.dtypes import TRAINABLE
from worker.engine.torch_graph.kernels.affine_quantization import align, bounds, has_bounds
from worker.engine.training.quantized.scales import LearnedScale
from worker.engine.training.quantized.tensors import CodedBias, CodedWeight, is_constant


def find_learned_scales(graph: Graph) -> dict[str, tuple[float, float]]:
    """Scales of fake quantization by name, with the elements that each number of them serves and the highest code."""
    found: dict[str, tuple[float, float]] = {}
    for node in graph.nodes():
        codes = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        quantizer = codes.producer() if codes is not None else None
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or quantizer.inputs[1] is not node.inputs[1]:
            continue
        x, scale = quantizer.inputs[:2]
        dtype = quantizer.outputs[0].dtype
        if x is not None and scale is not None and is_constant(scale, TRAINABLE) and dtype and has_bounds(dtype):
            found.setdefault(scale.name or "", (_elements(x) / _elements(scale), bounds(dtype)[1]))
    return found


def attach_scales(module: TorchGraph, scales: Mapping[str, tuple[float, float]]) -> None:
    """Parametrize `scales`, as `find_learned_scales` gives them."""
    for name, (served, highest) in scales.items():
        holder, leaf = module.place(name)
        learned = LearnedScale(getattr(holder, leaf), served, highest)
        parametrize.register_parametrization(holder, leaf, learned)
        stored_as(module, name).is_scale = True  # type: ignore[attr-defined]  # read by `optimization.is_scale`


def fix(module: TorchGraph, names: Iterable[str]) -> None:
    """Nothing is to change these weights."""
    for name in names:
        holder, leaf = module.place(name)
        getattr(holder, leaf).requires_grad_(requires_grad=False)


@torch.no_grad()
def bound_scales(module: TorchGraph, scales: Iterable[str], biases: Iterable[CodedBias]) -> None:
    """Keep scales near enough to their start, and so large that biases fit in int32."""
    for name in scales:
        _bound(module, name)
    for bias in biases:
        if bias.factors is not None and bias.factors[1] in scales:
            input_scale, weight_scale = (_read(module, factor) for factor in bias.factors)
            least = _read(module, bias.name).abs() / (input_scale * LARGEST_BIAS)
            least = least if weight_scale.numel() == least.numel() else least.max().expand_as(weight_scale)
            _bound(module, bias.factors[1], least.reshape(weight_scale.shape))


@torch.no_grad()
def clip_narrow(module: TorchGraph, weights: Iterable[CodedWeight]) -> None:
    """Bring weights back into the codes they may use, where QuantizeLinear would give others."""
    for weight in weights:
        if weight.is_narrow:
            stored = stored_as(module, weight.name)
            tensors = (_read(module, name) for name in (weight.scale, weight.zero_point))
            scale, zero = (align(each, stored, *weight.placing) for each in tensors)
            low, high = ((limit - zero.to(stored.dtype)) * scale for limit in weight.limits)
            stored.copy_(torch.minimum(torch.maximum(stored, low), high))


def stored_as(module: TorchGraph, name: str) -> torch.Tensor:
    """The tensor that is trained for the weight `name`: itself, or what a parametrization reads it from."""
    made = _parametrizations(module, name)
    if made is None:
        return _read(module, name)
    return made.original if made.is_tensor else cast("torch.Tensor", made.original0)


def _parametrizations(module: TorchGraph, name: str) -> parametrize.ParametrizationList | None:
    holder, leaf = module.place(name)
    if not parametrize.is_parametrized(holder, leaf):
        return None
    lists = cast("Mapping[str, parametrize.ParametrizationList]", holder.parametrizations)
    return lists[leaf]


def _read(module: TorchGraph, name: str) -> torch.Tensor:
    holder, leaf = module.place(name)
    return cast("torch.Tensor", getattr(holder, leaf))


def _bound(module: TorchGraph, name: str, least: torch.Tensor | None = None) -> None:
    made = _parametrizations(module, name)
    if made is not None and isinstance(learned := made[0], LearnedScale):
        learned.bound_(stored_as(module, name), least)


def _elements(value: ir.Value) -> int:
    """Of one sample, where the first dimension is that of samples; unknown dimensions count as one."""
    sizes = dims(value) or []
    counted = sizes if value.is_initializer() else sizes[1:]
    return math.prod(size for size in counted if isinstance(size, int))
