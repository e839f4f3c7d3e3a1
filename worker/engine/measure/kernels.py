"""Which kernels ONNX Runtime really runs: operators counted after its own optimisation, free of timing noise."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from worker.engine.graph import Graph
from worker.engine.session import open_session
from worker.engine.wording import counted

INTEGER_KERNELS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
        "ConvInteger", "DynamicQuantizeLSTM", "QLinearConvTranspose",
    }
)  # fmt: skip
FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU"}
)


@dataclass(frozen=True)
class KernelCount:
    """How many of each operator ONNX Runtime runs after its own optimisation, bodies included."""

    operators: Counter[str]

    @property
    def integer(self) -> int:
        """Kernels that multiply integers."""
        return sum(self.operators[name] for name in INTEGER_KERNELS)

    @property
    def float(self) -> int:
        """Kernels that multiply floats where an integer one exists."""
        return sum(self.operators[name] for name in FLOAT_KERNELS)

    @property
    def borders(self) -> int:
        """Conversions between integers and floats that were left."""
        return self.operators["QuantizeLinear"] + self.operators["DequantizeLinear"]

    def told(self) -> str:
        """The count as a sentence."""
        kernels = f"ONNX Runtime runs {counted(self.integer, 'integer kernel')}, {counted(self.float, 'float one')}"
        borders = f"and {counted(self.borders, 'conversion')} between them"
        return f"{kernels} {borders}" if self.integer else f"{kernels} {borders}: smaller, but not faster"


def count_kernels(model: Path) -> KernelCount:
    """Count the kernels of a file. Raises SlimlineError where it does not load."""
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / "optimized.onnx"
        open_session(model, optimized_path=rewritten)
        return KernelCount(Counter(node.op_type for node in Graph.load(rewritten).nodes()))
