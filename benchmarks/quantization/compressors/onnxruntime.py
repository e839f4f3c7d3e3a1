"""Quantizes with ONNX Runtime's own tools as it advises: pre-processed, Q/DQ, u8 activations, s8 weights."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime.tools.symbolic_shape_infer  # noqa: F401 - pre-processing loads it, with sympy and torch, when it runs
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.quantization.compressors.order import Order, serve


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def quantize(order: Order) -> None:
    """Options: `calibrate_method`, a name of CalibrationMethod, or None for dynamic quantization; `batch`."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(order.model, prepared)
        if method := order.options.get("calibrate_method"):
            quantize_static(
                prepared,
                order.output,
                _Reader(order.feeds(order.options["batch"])),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[method],
            )
        else:
            quantize_dynamic(prepared, order.output, per_channel=True, weight_type=QuantType.QInt8)


if __name__ == "__main__":
    serve(quantize)
