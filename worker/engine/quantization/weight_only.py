"""Rewrites a graph so that weights are stored as integers and become floats, or are multiplied, as they are read.

What is stored how is decided in `stored_weights`; the codes come from `tensors`.
"""

import numpy as np
import onnx_ir as ir
import torch

from worker.engine.graph import Graph, Layer
from worker.engine.graph.edit import ORT_DOMAIN, Editor, drop_dead, owner_of
from worker.engine.quantization.stored_weights import Form, StoredWeight
from worker.engine.quantization.weight_rounding import Rounded
from worker.engine.session import Array
from worker.engine.tensors.affine import STORED
from worker.engine.tensors.blockwise import Blocks, pack

_BIAS = 2
_INTEGER_ARITHMETIC = 4
"""Of MatMulNBits: inputs are rounded to 8 bits in blocks. ONNX Runtime's own choice where it fuses; far faster."""


class WeightRewriter:
    """Replaces weights of `graph` in place."""

    def __init__(self, graph: Graph) -> None:
        self._editor = Editor(graph)

    def store(self, rounded: Rounded) -> None:
        """Put integers in the place of a weight's floats."""
        weight, codes, blocks = rounded.weight, rounded.codes, rounded.blocks
        match weight.form:
            case Form.PACKED:
                self._pack(weight, codes, blocks)
            case Form.TURNED:
                self._turn(weight, codes, blocks)
            case Form.IN_PLACE:
                self._dequantize(weight, codes, blocks)

    def _pack(self, weight: StoredWeight, codes: torch.Tensor, blocks: Blocks) -> None:
        grid, value = weight.grid, weight.value
        owner, rows, count = owner_of(value), codes.shape[0], blocks.scale.shape[1]
        padded = np.zeros((rows, count * grid.block_size), np.uint8)
        padded[:, : weight.width] = codes.cpu().numpy()
        arrays: dict[str, Array] = {
            "quantized": pack(padded.reshape(rows, count, -1), grid.bits),
            "scale": blocks.scale.cpu().numpy().astype(np.float32),
        }
        if not grid.symmetric:
            arrays["zero_point"] = pack(blocks.zero.cpu().numpy().astype(np.uint8), grid.bits)
        stored = [self._editor.initializer(owner, f"{weight.name}_{part}", array) for part, array in arrays.items()]
        sizes = {"K": weight.width, "N": rows, "bits": grid.bits, "block_size": grid.block_size}
        sizes["accuracy_level"] = _INTEGER_ARITHMETIC
        for layer in weight.readers:
            self._multiply(layer, stored, [ir.AttrInt64(name, size) for name, size in sizes.items()])

    def _multiply(self, layer: Layer, stored: list[ir.Value], attributes: list[ir.Attr]) -> None:
        node, editor = layer.node, self._editor
        result = node.outputs[0].name or layer.name
        bias = node.inputs[_BIAS] if layer.op == "Gemm" and len(node.inputs) > _BIAS else None
        name = f"{result}_packed"
        chain = [editor.node("MatMulNBits", [node.inputs[0], *stored], [name], attributes, ORT_DOMAIN)]
        if bias is not None:
            chain.append(editor.node("Add", [chain[0].outputs[0], bias], [f"{result}_biased"]))
        editor.replace(node, chain, chain[-1].outputs)

    def _turn(self, weight: StoredWeight, codes: torch.Tensor, blocks: Blocks) -> None:
        node = self._dequantizer(weight, codes.T.cpu().numpy(), blocks, axis=1)
        self._insert([node], [layer.node for layer in weight.readers], owner_of(weight.value))
        for layer in weight.readers:
            old = layer.node.inputs[1]
            layer.node.attributes.pop("transB", None)
            layer.node.replace_input_with(1, node.outputs[0])
            drop_dead(old)

    def _dequantize(self, weight: StoredWeight, codes: torch.Tensor, blocks: Blocks) -> None:
        value = weight.value
        if weight.has_row_scales:
            chain = [self._dequantizer(weight, weight.from_matrix(codes), blocks, axis=weight.rows[0])]
        elif len(weight.columns) == 1:
            chain = [self._blockwise_dequantizer(weight, weight.from_matrix(codes), blocks, axis=weight.columns[0])]
        else:
            flat = self._blockwise_dequantizer(weight, codes.cpu().numpy(), blocks, axis=1)
            shape = self._editor.initializer(owner_of(value), f"{weight.name}_shape", np.array(weight.shape, np.int64))
            chain = [flat, self._editor.node("Reshape", [flat.outputs[0], shape], [f"{weight.name}_shaped"])]
        given = chain[-1].outputs[0]
        given.type, given.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(weight.shape)
        self._insert(chain, [use.node for use in value.uses()], owner_of(value))
        value.replace_all_uses_with(given)
        drop_dead(value)

    def _dequantizer(self, weight: StoredWeight, codes: Array, blocks: Blocks, axis: int) -> ir.Node:
        """One scale for each index of `axis`."""
        parameters = [each.cpu().numpy().reshape(-1) for each in (blocks.scale, blocks.zero)]
        return self._dequantize_linear(weight, [codes, *parameters], {"axis": axis})

    def _blockwise_dequantizer(self, weight: StoredWeight, codes: Array, blocks: Blocks, axis: int) -> ir.Node:
        """Blocks lie along `axis`."""
        is_flat = codes.ndim != len(weight.shape)
        parameters = [
            each.cpu().numpy() if is_flat else weight.from_matrix(each) for each in (blocks.scale, blocks.zero)
        ]
        return self._dequantize_linear(
            weight, [codes, *parameters], {"axis": axis, "block_size": weight.grid.block_size}
        )

    def _dequantize_linear(self, weight: StoredWeight, arrays: list[Array], attributes: dict[str, int]) -> ir.Node:
        """Signed without a zero point where the grid is symmetric, else unsigned."""
        owner, grid = owner_of(weight.value), weight.grid
        codes, scale, zero = arrays
        shift, dtype = (grid.middle if grid.symmetric else 0), STORED[grid.bits, grid.symmetric]
        stored = {"quantized": (codes - shift).astype(np.int16).astype(dtype), "scale": scale.astype(np.float32)}
        if not grid.symmetric:
            stored["zero_point"] = zero.astype(np.int16).astype(dtype)
        inputs = [self._editor.initializer(owner, f"{weight.name}_{part}", array) for part, array in stored.items()]
        told = [ir.AttrInt64(name, number) for name, number in attributes.items()]
        return self._editor.node("DequantizeLinear", inputs, [f"{weight.name}_dequantized"], told)

    def _insert(self, nodes: list[ir.Node], users: list[ir.Node], owner: ir.Graph) -> None:
        """Before the first of `users`, or first of all where a body reads it."""
        wanted = {id(user) for user in users}
        first = next(iter(owner))
        if all(user.graph is owner for user in users):
            first = next((each for each in owner if id(each) in wanted), first)
        owner.insert_before(first, nodes)
