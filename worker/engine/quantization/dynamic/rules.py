"""The table of operators that are quantized dynamically: what holds each back, and what it becomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.quantization.dynamic import attention, convolution, embedding, matrix, recurrent, scanned
from worker.engine.quantization.dynamic.draft import Draft
from worker.engine.quantization.dynamic.operand import Operand


@dataclass(frozen=True)
class Rule:
    """How one operator is quantized. `multiplies`: in integers; where not, only its weights are stored as such."""

    operands: Callable[[ir.Node], tuple[Operand, ...]]
    rewrite: Callable[[Layer, Draft], None]
    obstacle: Callable[[ir.Node], str | None] = lambda _: None
    multiplies: Callable[[ir.Node], bool] = lambda _: True


_SCANNED = Rule(recurrent.operands, scanned.rewrite, recurrent.obstacle, scanned.multiplies)
RULES: Mapping[str, Rule] = {
    "MatMul": Rule(matrix.matmul_operands, matrix.rewrite_matmul, matrix.matmul_obstacle),
    "Gemm": Rule(matrix.gemm_operands, matrix.rewrite_gemm, matrix.gemm_obstacle),
    "Attention": Rule(attention.operands, attention.rewrite, attention.obstacle),
    "Conv": Rule(convolution.operands, convolution.rewrite, convolution.obstacle),
    "LSTM": Rule(recurrent.operands, recurrent.rewrite_lstm, recurrent.obstacle),
    "GRU": _SCANNED,
    "RNN": _SCANNED,
    "Gather": Rule(embedding.operands, embedding.rewrite, multiplies=lambda _: False),
}
"""By operator; Attention is Microsoft's, since ONNX's own carries no weights."""
