"""Quantizes with AIMET-ONNX after its cross-layer equalization. Runs in the peers' interpreter, never in ours."""

from pathlib import Path

import aimet_onnx  # type: ignore[import-not-found]  # installed beside the peers alone
import onnx
from aimet_onnx.common import quantsim_config  # type: ignore[import-not-found]  # same
from aimet_onnx.cross_layer_equalization import equalize_model  # type: ignore[import-not-found]  # same

from benchmarks.quantization.compressors.order import Order, serve

_CONFIG = Path(quantsim_config.__file__).parent / "default_config_per_channel.json"


def quantize(order: Order) -> None:
    """No options: per-channel weights, its default ranges, biases as integers so that ONNX Runtime can fuse."""
    model = onnx.load(order.model)
    for node in model.graph.node:
        while node.input and not node.input[-1]:  # an optional input written out as absent breaks its export
            node.input.pop()
    equalize_model(model)
    simulation = aimet_onnx.QuantizationSimModel(
        model, param_type="int8", activation_type="int8", config_file=str(_CONFIG)
    )
    simulation.compute_encodings(list(order.feeds()))
    onnx.save(simulation.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), order.output)


if __name__ == "__main__":
    serve(quantize)
