"""What holds before and after a graph is quantized: floats before, fewer bytes after. It counts the kernels too."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph, Layer
from worker.engine.graph.files import size_of_weights
from worker.engine.measure.kernels import KernelCount, load_and_count

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "Integer", "QLinear", "DynamicQuantize", "QGemm", "NBits")
_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4})
_SMALL_SHARE = 0.25
_REARRANGES = frozenset({"Gather", "Identity", "Transpose"})


def refuse_quantized(graph: Graph, method: str) -> None:
    """Raises SlimlineError ALREADY_QUANTIZED, naming the first integer node."""
    for node in graph.nodes():
        if any(word in node.op_type for word in _QUANTIZED) or _restores_weight(node):
            raise SlimlineError(
                "ALREADY_QUANTIZED",
                f"{method} works on floating-point models; this one holds {node.op_type} {node.name!r}",
                node=node.name,
                hint="Send the model as it was before quantization, or use one quantization step only.",
            )


def _restores_weight(node: ir.Node) -> bool:
    """Whether it makes floats of stored integers, which a Mul then scales: what DequantizeLinear would do."""
    if node.op_type != "Cast" or not any(use.op_type == "Mul" for use, _ in node.outputs[0].uses()):
        return False
    value = node.inputs[0]
    while value is not None and (producer := value.producer()) and producer.op_type in _REARRANGES:
        value = producer.inputs[0]
    return value is not None and value.is_initializer() and value.dtype in _INTEGERS


def check_gain(before: Graph, after: Graph) -> KernelCount:
    """The kernels ONNX Runtime runs. Raises SlimlineError QUANTIZATION_WITHOUT_EFFECT when no byte was saved."""
    check_bytes(before, after)
    return load_counted(after)[1]


def check_bytes(before: Graph, after: Graph) -> None:
    """Raises SlimlineError QUANTIZATION_WITHOUT_EFFECT when the weights take no fewer bytes."""
    saved = size_of_weights(before.model) - size_of_weights(after.model)
    if saved <= 0:
        raise SlimlineError(
            "QUANTIZATION_WITHOUT_EFFECT",
            f"the quantized weights take {-saved} bytes more than before",
            hint="The layers are too small to gain: choose larger ones with `include`, or leave the step out.",
        )


def tell_small_share(graph: Graph, layers: Sequence[Layer]) -> list[str]:
    """A note where `layers`, which became integers, hold so few of the weights' bytes that the file stays as it is."""
    weights = {id(weight): weight for layer in layers for weight in layer.weights}
    touched = sum(weight.const_value.nbytes for weight in weights.values() if weight.const_value is not None)
    share = touched / max(1, size_of_weights(graph.model))
    if share > _SMALL_SHARE:
        return []
    return [f"the layers it works on hold {share:.0%} of the weights' bytes: the file stays nearly as large"]


def load_counted(graph: Graph) -> tuple[ort.InferenceSession, KernelCount]:
    """A session for `graph` and the kernels it runs. Raises SlimlineError where it does not load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        graph.save(path)
        return load_and_count(path)
