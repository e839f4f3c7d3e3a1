"""Quantizes with NNCF's ONNX backend. Runs in the peers' interpreter, never in ours."""

import nncf  # type: ignore[import-not-found]  # installed beside the peers alone
import nncf.onnx.quantization.quantize_model  # type: ignore[import-not-found]  # it loads this when it runs
import onnx
import onnx.reference

from benchmarks.quantization.compressors.order import Order, serve


def quantize(order: Order) -> None:
    """Options: `transformer`, whether the model type is told; `preset`, or None for NNCF's own choice."""
    feeds = list(order.feeds())
    preset = order.options.get("preset")
    quantized = nncf.quantize(
        onnx.load(order.model),
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        preset=nncf.QuantizationPreset(preset) if preset else None,
        model_type=nncf.ModelType.TRANSFORMER if order.options.get("transformer") else None,
    )
    onnx.save(quantized, order.output)


if __name__ == "__main__":
    serve(quantize)
