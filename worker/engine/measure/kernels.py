"""Which kernels ONNX Runtime really runs: operators counted after its own optimisation, free of timing noise."""

import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from worker.engine.graph import Graph
from worker.engine.session import open_session
from worker.engine.wording import counted

INTEGER_KERNELS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
        "ConvInteger", "DynamicQuantizeLSTM", "QAttention", "QLinearConvTranspose",
    }
)  # fmt: skip
FLOAT_KERNELS = frozenset(
    {
        "Attention", "Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU",
        "RNN",
    }
)  # fmt: skip
_LAYOUT = re.compile(r"_token_\d+$")
"""What ONNX Runtime adds to the name of a node whose layout it changes."""


@dataclass(frozen=True)
class KernelCount:
    """How many of each operator ONNX Runtime runs after its own optimisation, bodies included.

    `integer_nodes`: names of the nodes that multiply integers, mostly those of the nodes they were made from.
    """

    operators: Counter[str]
    integer_nodes: frozenset[str] = frozenset()

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

    def multiplies_integers(self, node: str) -> bool:
        """Whether the product of the graph's node called `node` became an integer kernel."""
        return node in self.integer_nodes

    def told(self) -> str:
        """The count as a sentence."""
        kernels = f"ONNX Runtime runs {counted(self.integer, 'integer kernel')}, {counted(self.float, 'float one')}"
        borders = f"and {counted(self.borders, 'conversion')} between them"
        return f"{kernels} {borders}" if self.integer else f"{kernels} {borders}: smaller, but not faster"


def count_kernels(model: Path) -> KernelCount:
    """Count the kernels of a file. Raises SlimlineError where it does not load."""
    return load_and_count(model)[1]


def load_and_count(model: Path) -> tuple[ort.InferenceSession, KernelCount]:
    """A session for a file and the kernels it runs. Raises SlimlineError where it does not load."""
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / "optimized.onnx"
        session = open_session(model, optimized_path=rewritten)
        nodes = list(Graph.load(rewritten).nodes())
    integer = (node.name or "" for node in nodes if node.op_type in INTEGER_KERNELS)
    names = frozenset(_LAYOUT.sub("", name) for name in integer)
    return session, KernelCount(Counter(node.op_type for node in nodes), names)
