"""Pass: a BatchNormalization right after a convolution becomes part of it, so that both run as one kernel."""

import numpy as np
import onnx_ir as ir

from worker.engine.graph.edit import Editor, drop_dead
from worker.engine.graph.graph import Graph
from worker.engine.wording import counted

_BIAS, _BATCH_NORM_INPUTS, _EPSILON = 2, 5, 1e-5


def fold_batch_norm(graph: Graph) -> list[str]:
    """Fold every inference-mode BatchNormalization that alone reads a Conv with its own constant float32 weights."""
    editor, folded = Editor(graph), 0
    for node in list(graph.nodes()):
        convolution = _foldable_into(node)
        if convolution is not None:
            _fold(graph, editor, convolution, node)
            folded += 1
    return [f"folded {counted(folded, 'BatchNormalization node')} into convolutions"] if folded else []


def _foldable_into(node: ir.Node) -> ir.Node | None:
    if node.op_type != "BatchNormalization" or len(node.inputs) != _BATCH_NORM_INPUTS:
        return None
    source = node.inputs[0]
    convolution = source.producer() if source is not None else None
    if source is None or convolution is None or convolution.op_type != "Conv":
        return None
    is_training = "training_mode" in node.attributes and node.attributes["training_mode"].as_int()
    others_read = len(source.uses()) > 1 or source.is_graph_output() or any(each.uses() for each in node.outputs[1:])
    parameters = [*node.inputs[1:], *convolution.inputs[1:]]
    are_constant = all(
        each is None or (each.is_initializer() and each.dtype == ir.DataType.FLOAT) for each in parameters
    )
    weight = convolution.inputs[1]
    is_shared = weight is None or len(weight.uses()) > 1
    return None if is_training or others_read or not are_constant or is_shared else convolution


def _fold(graph: Graph, editor: Editor, convolution: ir.Node, norm: ir.Node) -> None:
    """Y = gain * (W x + b - mean) + shift, with gain = scale / sqrt(variance + epsilon), in float64."""
    scale, shift, mean, variance = (graph.array(value).astype(np.float64) for value in norm.inputs[1:] if value)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else _EPSILON
    gain = scale / np.sqrt(variance + epsilon)
    weight, old_bias = convolution.inputs[1], convolution.inputs[_BIAS] if len(convolution.inputs) > _BIAS else None
    if weight is None or convolution.graph is None:
        raise ValueError(f"{convolution.name} has no weight")
    array = graph.array(weight)
    graph.set_array(weight, (array * gain.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32))
    bias = graph.array(old_bias).astype(np.float64) if old_bias is not None else 0.0
    folded = editor.initializer(
        convolution.graph, f"{weight.name}_folded_bias", ((bias - mean) * gain + shift).astype(np.float32)
    )
    convolution.resize_inputs(_BIAS + 1)
    convolution.replace_input_with(_BIAS, folded)
    drop_dead(old_bias)
    _bypass(convolution, norm)


def _bypass(convolution: ir.Node, norm: ir.Node) -> None:
    """The convolution's output takes the place and the name of the BatchNormalization's."""
    old, new = norm.outputs[0], convolution.outputs[0]
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    inputs = list(norm.inputs[1:])
    if norm.graph is not None:
        norm.graph.remove(norm, safe=True)
    old.name, new.name = None, name
    for value in inputs:
        drop_dead(value)
