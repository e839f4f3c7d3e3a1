"""Which kernels ONNX Runtime really runs: operators counted after its own optimisation. Counting has no timing noise."""

import tempfile
from collections import Counter
from pathlib import Path

from worker.engine.graph import Graph
from worker.engine.session import open_session

INTEGER_KERNELS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
        "ConvInteger", "DynamicQuantizeLSTM", "QLinearConvTranspose",
    }
)  # fmt: skip
FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU"}
)


def count_kernels(model: Path | bytes) -> Counter[str]:
    """Operators of the graph as ONNX Runtime rewrote it, bodies included. Raises SlimlineError if it does not load."""
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / "optimized.onnx"
        open_session(model, optimized_path=rewritten)
        return Counter(node.op_type for node in Graph.load(rewritten).nodes())


def count_integer(kernels: Counter[str]) -> int:
    """How many of them multiply integers."""
    return sum(kernels[name] for name in INTEGER_KERNELS)


def count_float(kernels: Counter[str]) -> int:
    """How many of them multiply floats where an integer kernel exists."""
    return sum(kernels[name] for name in FLOAT_KERNELS)
