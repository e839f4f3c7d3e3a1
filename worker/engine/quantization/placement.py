"""Places Q/DQ pairs with ONNX Runtime's own quantizer, which puts them where its kernels fuse. Ranges come from us."""

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from app.contracts.recipe.quantize_static import QuantizeStatic
from worker.engine.graph import Graph

CORE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose work lies in multiplying; enough where the operators between are better left in float."""
WIDE = CORE | {
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad",
    "Relu", "Reshape", "Resize", "Sigmoid", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""With the operators between that have integer kernels, so that a chain of layers never leaves the integers."""
_ARM = ("arm64", "aarch64")
_SHAPES_KNOWN = ("onnx.infer", "onnxruntime.quant")
Range = tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """Which operator types are quantized, and which nodes are not, by name."""

    operators: Collection[str]
    left_out: Collection[str]


def place(graph: Graph, placement: Placement, ranges: Mapping[str, Range], step: QuantizeStatic) -> Graph:
    """`graph` with Q/DQ pairs and integer weights; `ranges` has every float tensor of the main graph.

    Unsigned activations, since x86 multiplies u8 by s8; signed ones on ARM. Raises SlimlineError GRAPH_TOO_LARGE.
    """
    proto = graph.proto()
    producer = proto.producer_name, proto.producer_version
    declared = {each.name for each in proto.graph.value_info}
    _tell_types(graph, proto)
    quantizer = QDQQuantizer(
        proto,
        per_channel=step.weights.per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if platform.machine().lower() in _ARM else QuantType.QUInt8,
        tensors_range={name: _as_tensor_data(limits) for name, limits in ranges.items()},
        nodes_to_quantize=[],
        nodes_to_exclude=list(placement.left_out),
        op_types_to_quantize=sorted(placement.operators),
        extra_options={
            "WeightSymmetric": step.weights.symmetric,
            "ActivationSymmetric": step.activations.symmetric,
        },
    )
    quantized = quantizer.quantize_model()
    quantized.producer_name, quantized.producer_version = producer
    _forget_types(quantized, declared)
    result = Graph.from_proto(quantized)
    del result.model.metadata_props[_SHAPES_KNOWN[0]]
    result.model.graph.sort()
    return result


def _tell_types(graph: Graph, proto: onnx.ModelProto) -> None:
    """The quantizer leaves tensors of unknown type alone, and would infer shapes by way of a file."""
    proto.metadata_props.add(key=_SHAPES_KNOWN[0], value=_SHAPES_KNOWN[1])
    known = {each.name for each in proto.graph.value_info}
    for node in graph.model.graph:
        for value in node.outputs:
            if value.name not in known and value.type is not None and not value.is_graph_output():
                proto.graph.value_info.append(ir.serde.serialize_value(value))


def _forget_types(proto: onnx.ModelProto, declared: Collection[str]) -> None:
    kept = [each for each in proto.graph.value_info if each.name in declared]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)


def _as_tensor_data(limits: Range) -> TensorData:
    return TensorData(lowest=np.float32(limits[0]), highest=np.float32(limits[1]))
