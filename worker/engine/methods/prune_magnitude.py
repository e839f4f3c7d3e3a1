"""`prune.magnitude`: the smallest weights become zero, in each layer or under one threshold for all."""

import numpy as np
import onnx_ir as ir

from app.contracts.recipe.prune_magnitude import PruneMagnitude
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.tensors.magnitude import smallest, smallest_of_all
from worker.engine.tensors.similarity import sqnr_db

OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


class MagnitudePruning(Method[PruneMagnitude]):
    """Unstructured magnitude pruning (Han et al. 2015), exact in number."""

    step_type = PruneMagnitude

    def apply(self, graph: Graph, step: PruneMagnitude, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_PRUNE."""
        pruned = graph.clone()
        layers = split_layers(pruned, step, context, self.obstacle)
        weights = {id(weight): weight for layer in layers for weight in layer.weights}
        if not weights:
            hint = f"It works on floating-point weights of {', '.join(sorted(OPERATORS))}."
            raise context.record.refusal("NOTHING_TO_PRUNE", hint)
        before = {key: pruned.array(weight) for key, weight in weights.items()}
        arrays = list(before.values())
        masks = (
            smallest_of_all(arrays, step.amount)
            if step.scope == "global"
            else [smallest(array, step.amount) for array in arrays]
        )
        for weight, array, mask in zip(weights.values(), arrays, masks, strict=True):
            pruned.set_array(weight, np.where(mask, array.dtype.type(0), array))
        for layer in layers:
            _record(pruned, layer, before, context)
        context.record.note_held_back()
        context.record.note("zeros make the compressed download smaller; ONNX Runtime does not run them faster")
        return pruned

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        del graph
        if any(weight.dtype not in FLOATS for weight in layer.weights):
            return "its weights are quantized already: prune first"
        return None if layer.op in OPERATORS else f"{layer.op} is not pruned by magnitude"


def _record(graph: Graph, layer: Layer, before: dict[int, np.ndarray], context: StepContext) -> None:
    after = [graph.array(weight) for weight in layer.weights]
    zeros = sum(array.size - np.count_nonzero(array) for array in after)
    context.record.done(
        layer,
        sparsity=zeros / sum(array.size for array in after),
        sqnr_db=sqnr_db(
            np.concatenate([before[id(weight)].ravel() for weight in layer.weights]),
            np.concatenate([array.ravel() for array in after]),
        ),
    )
