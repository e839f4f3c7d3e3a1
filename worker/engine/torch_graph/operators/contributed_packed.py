"""Microsoft's operators on weights of 2, 4 and 8 bits, packed into bytes and quantized in blocks.

They pass gradients to their float inputs and to the scales.
"""

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.affine_quantization import align
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

T = ir.DataType
Zero = torch.Tensor | None
_NIBBLE, _BYTE = 4, 8
_WIDTHS = (2, 4, 8)


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of `bits` each from bytes, lowest bits first, along the last dimension."""
    if bits == _BYTE:
        return packed
    parts = [(packed >> shift) & ((1 << bits) - 1) for shift in range(0, _BYTE, bits)]
    return torch.stack(parts, -1).flatten(-2)


def _read_bits(node: Node) -> int:
    bits: int = node.get("bits", 4)
    if bits not in _WIDTHS:
        raise node.refuse(f"weights of {bits} bits are not run", f"use one of {_WIDTHS}")
    return bits


@operator("MatMulNBits", domain=MICROSOFT, fixed=(1, 4))
def mat_mul_n_bits(node: Node) -> Run:
    """Like `linear`, for a weight with a scale and a zero point for each block of a row.

    Exact whatever `accuracy_level`, which only permits to round a.
    """
    if node.get("weight_prepacked", 0):
        raise node.refuse("a weight packed for one kind of GPU is not run", "export it with weight_prepacked 0")
    weight_of = _BlockWeight(node)

    def run(
        a: torch.Tensor,
        packed: torch.Tensor,
        scales: torch.Tensor,
        zero_points: Zero = None,
        block_of: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return F.linear(a, weight_of(packed, scales, zero_points, block_of), bias)

    return run


class _BlockWeight:
    """The weight of MatMulNBits, (N, K) in the type of its scales."""

    def __init__(self, node: Node) -> None:
        self.bits = _read_bits(node)
        if node.has(4) and (self.bits != _NIBBLE or node.input_type(3) is T.UINT8):
            raise node.refuse("g_idx with packed zero points, or other than 4 bits, is not run", "leave g_idx out")
        self.rows, self.columns, size = node.need("N"), node.need("K"), node.need("block_size")
        self.blocks = -(-self.columns // size)

    def __call__(
        self, packed: torch.Tensor, scales: torch.Tensor, zero_points: Zero, block_of: torch.Tensor | None
    ) -> torch.Tensor:
        codes = _unpack(packed.reshape(self.rows, self.blocks, -1), self.bits)
        scales, offsets = scales.reshape(self.rows, self.blocks, 1), self._offsets(zero_points, scales.dtype)
        if block_of is not None:
            # What was sorted into blocks column by column has one scale for each column.
            order = block_of[: self.columns].long()
            codes = codes.flatten(1)[:, : self.columns, None]
            scales = scales[:, order]
            offsets = offsets[:, order] if isinstance(offsets, torch.Tensor) else offsets
        return ((codes.to(scales.dtype) - offsets) * scales).flatten(1)[:, : self.columns]

    def _offsets(self, zero_points: Zero, dtype: torch.dtype) -> torch.Tensor | int:
        """(N, blocks, 1), or half the range of the codes."""
        if zero_points is None:
            return 1 << (self.bits - 1)
        if zero_points.is_floating_point():
            return zero_points.reshape(self.rows, self.blocks, 1)
        return _unpack(zero_points.reshape(self.rows, -1), self.bits)[:, : self.blocks, None].to(dtype)


@operator("GatherBlockQuantized", domain=MICROSOFT, fixed=(0, 3))
def gather_block_quantized(node: Node) -> Run:
    """Gather of a table quantized in blocks, dequantized. An index beyond the table gives zeros."""
    look_up = _TableLookup(node)

    def run(table: torch.Tensor, indices: torch.Tensor, scales: torch.Tensor, zero_points: Zero = None) -> torch.Tensor:
        table, axis = look_up.unpacked(table), look_up.gather_axis % table.dim()
        rows = table.shape[axis]
        wrapped = torch.where(indices < 0, indices + rows, indices)
        found = ((wrapped >= 0) & (wrapped < rows)).reshape([*indices.shape] + [1] * (table.dim() - axis - 1))
        values = look_up(table, wrapped.clamp(0, rows - 1).flatten(), scales, zero_points)
        values = values.reshape([*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :]])
        return torch.where(found, values, 0)

    return run


class _TableLookup:
    """Rows of a table, dequantized in the type of its scales."""

    def __init__(self, node: Node) -> None:
        kind = node.input_type(0)
        if kind is None:
            raise node.refuse("the type of its table is unknown", "infer the types of the graph")
        self.bits = _read_bits(node) if kind is T.UINT8 else _BYTE
        self.default_zero = 1 << (self.bits - 1) if kind is T.UINT8 else 0
        self.gather_axis: int = node.get("gather_axis", 0)
        self.quantize_axis: int = node.get("quantize_axis", 1)
        self.block_size: int = node.get("block_size", 128)

    def unpacked(self, table: torch.Tensor) -> torch.Tensor:
        """One element for each code."""
        return _unpack(table, self.bits)

    def __call__(
        self, table: torch.Tensor, places: torch.Tensor, scales: torch.Tensor, zero_points: Zero
    ) -> torch.Tensor:
        """The rows of the unpacked `table` at `places`, a vector of valid indices along the gather axis."""
        offset: torch.Tensor | int = self.default_zero
        rows = table.index_select(self.gather_axis, places)
        if zero_points is not None:
            zero_points = _unpack(zero_points, self.bits).narrow(-1, 0, scales.shape[-1])
            offset = self._align(zero_points, table, places).float()
        return ((rows.float() - offset) * self._align(scales, table, places).float()).to(scales.dtype)

    def _align(self, parameter: torch.Tensor, table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Scales or zero points of `table`, as they broadcast against its rows at `places`. A size of 1 serves all."""
        axis, rank = self.gather_axis, table.dim()
        size = self.block_size or table.shape[self.quantize_axis]
        if (axis - self.quantize_axis) % rank == 0:
            return parameter.index_select(axis, places // size)
        parameter = align(parameter, table, self.quantize_axis, size)
        return parameter.index_select(axis, places) if parameter.dim() and parameter.shape[axis] > 1 else parameter
