"""One step of a GRU or RNN as nodes that multiply integers: the body of a Scan. What is around it is in `scanned`.

Legend: N samples, D directions, G gates x hidden, H hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.quantization.dynamic.chain import Chain
from worker.engine.quantization.dynamic.operand import Operand
from worker.engine.session import Array


@dataclass(frozen=True)
class Cell:
    """What the steps of one direction share. `weight` is [D, H, G]; `bias` is that of the state's product, [G]."""

    direction: int
    hidden: int
    weight: Operand
    bias: ir.Value | None
    resets_product: bool
    """A GRU that resets the product with the state instead of the state (linear_before_reset)."""


Step = Callable[[Chain, Cell, ir.Value, Sequence[ir.Value]], ir.Value]
"""The state after a step, from that before it and what the input gives to each kind of gate, [N, ...]."""


def gru_step(chain: Chain, cell: Cell, state: ir.Value, from_input: Sequence[ir.Value]) -> ir.Value:
    """`from_input` has the update and reset gates together, [N, 2 H], and the candidate [N, H]."""
    size = cell.hidden
    to_gates, to_candidate = from_input
    if cell.resets_product:
        product = chain.multiply(state, cell.weight.only(cell.direction, 0, 3 * size), cell.bias)
        own, own_candidate = chain.split(product, (2 * size, size), 1)
    else:
        own = chain.multiply(state, cell.weight.only(cell.direction, 0, 2 * size))
    gates = chain.add("Sigmoid", chain.add("Add", to_gates, own))
    update, reset = chain.split(gates, (size, size), 1)
    if cell.resets_product:
        own_candidate = chain.add("Mul", reset, own_candidate)
    else:
        kept = chain.add("Mul", reset, state)
        own_candidate = chain.multiply(kept, cell.weight.only(cell.direction, 2 * size, 3 * size))
    candidate = chain.add("Tanh", chain.add("Add", to_candidate, own_candidate))
    change = chain.add("Mul", update, chain.add("Sub", state, candidate))
    return chain.add("Add", candidate, change)


def rnn_step(chain: Chain, cell: Cell, state: ir.Value, from_input: Sequence[ir.Value]) -> ir.Value:
    """`from_input` has the one gate, [N, H]."""
    own = chain.multiply(state, cell.weight.only(cell.direction, 0, cell.hidden))
    return chain.add("Tanh", chain.add("Add", from_input[0], own))


@dataclass(frozen=True)
class Biases:
    """Of one direction: what is added to the input's product, [G], and to the state's, or nothing."""

    of_input: Array
    of_state: Array | None


def sum_biases(both: Array, hidden: int, *, resets_product: bool) -> Biases:
    """From those of the input and of the state, one after the other, [2 G]; a reset applies to the state's alone."""
    of_input, of_state = np.split(both, 2)
    if not resets_product:
        return Biases(of_input + of_state, None)
    apart = of_state.copy()
    apart[: 2 * hidden] = 0
    return Biases(of_input + of_state - apart, apart)
