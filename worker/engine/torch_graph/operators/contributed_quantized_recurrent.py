"""DynamicQuantizeLSTM: an LSTM of 8-bit weights, by the rules of ONNX Runtime. Layers of floats are in `recurrent.py`.

Legend: T time steps, D directions, N samples, I inputs, H hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.torch_graph.kernels.integer_arithmetic import centre, summing_type
from worker.engine.torch_graph.kernels.recurrent_activation import make_activations, read_activations
from worker.engine.torch_graph.kernels.recurrent_cells import Gating, State, lstm_gating, sum_biases
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.operators.contributed_quantized_products import multiply_dynamically
from worker.engine.torch_graph.operators.recurrent import Layer, read_reverses, turned
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

T = ir.DataType
FUNCTIONS = 3
"""Activations of one direction."""
# Inputs, by number.
WEIGHTS, PARAMETERS = (1, 2), ((8, 9), (10, 11))

Product = Callable[[torch.Tensor], torch.Tensor]


@operator("DynamicQuantizeLSTM", domain=MICROSOFT, fixed=(1, 2, 4, 9, 11))
def dynamic_quantize_lstm(node: Node) -> Run:
    """LSTM with W (D, I, 4 * H) and R (D, H, 4 * H) in codes, X and each hidden state quantized by their own ranges.

    A range is that of the block that is multiplied at once: X of all samples up to the longest sequence, and the
    hidden states of all samples at one step. Samples past their end count with zeros, or, where the output Y is left
    out, with their last state. Gradients go straight through the quantization; weights get none, their scales do.

    ONNX Runtime does so with one thread. With several it splits the samples between them, and each part has a range
    of its own, so its results differ. Without Y it reads memory that nobody wrote for an empty sequence. On CPUs
    without VNNI its products with int8 saturate, which this does not. It approximates sigmoid and tanh: where a
    state lies within float32 rounding of a tie, its code may differ by one.
    """
    _check(node)
    reverses = read_reverses(node)
    activations = make_activations(node, read_activations(node, ("Sigmoid", "Tanh", "Tanh"), len(reverses)), FUNCTIONS)
    is_coupled, clears = bool(node.get("input_forget", 0)), node.wants(0)

    def run(
        x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, *others: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        b, lengths, h, c, p, w_scale, w_zero, r_scale, r_zero = others
        state = tuple(x.new_zeros(w.shape[0], x.shape[1], r.shape[1]) if each is None else each for each in (h, c))
        valid = None
        if lengths is not None:
            valid = (torch.arange(x.shape[0], device=x.device).unsqueeze(1) < lengths).unsqueeze(2)
            x = torch.where(valid.any(1, keepdim=True), x, 0)
        layer = Layer(x, w, r, b, p, lengths, valid, state)
        outputs, states = [], []
        for number, turns in enumerate(reverses):
            own = activations[number * FUNCTIONS : (number + 1) * FUNCTIONS]
            gating = lstm_gating(None if p is None else p[number], own, is_coupled=is_coupled)
            products = _product(w, w_scale, w_zero, number), _product(r, r_scale, r_zero, number)
            y, after = _sweep(_Direction(layer, number, turns), products, gating, clears=clears)
            outputs.append(y)
            states.append(after)
        return torch.stack(outputs, 1), *(torch.stack(each) for each in zip(*states, strict=True))

    return run


def _check(node: Node) -> None:
    if node.input_type(0) not in (None, T.FLOAT):
        raise node.refuse("only float32 is run", "cast X to float32")
    if node.get("layout", 0):
        raise node.refuse("layout=1", "transpose X, and leave layout out")
    for weight, (scale, zero) in zip(WEIGHTS, PARAMETERS, strict=True):
        if node.input_type(weight) not in (T.INT8, T.UINT8):
            raise node.refuse(f"input {weight} is neither int8 nor uint8")
        if node.rank(scale) not in (1, 2) or node.rank(zero) != node.rank(scale):
            hint = "ONNX Runtime needs both, of one shape: (D), or (D, 4 * H)"
            raise node.refuse(f"scale or zero point of input {weight} is missing, or they differ in form", hint)


def _product(codes: torch.Tensor, scale: torch.Tensor | None, zero: torch.Tensor | None, number: int) -> Product:
    """Multiplies by the weight of one direction."""
    assert scale is not None
    assert zero is not None
    weight = centre(codes[number], zero[number], summing_type(codes.shape[1], codes.device))
    own = scale[number]
    return lambda a: multiply_dynamically(a, weight, own)


@dataclass(frozen=True)
class _Direction:
    layer: Layer
    number: int
    turns: bool


def _sweep(
    direction: _Direction, products: tuple[Product, Product], gating: Gating, *, clears: bool
) -> tuple[torch.Tensor, State]:
    """Hidden states (T, N, H) and the last state. `clears`: a sample past its end shows zeros to the next range."""
    layer, number = direction.layer, direction.number
    by_input, by_state = products
    bias = None if layer.b is None else sum_biases(layer.b[number])
    hidden, memory = (each[number] for each in layer.state)
    shown, outputs = hidden, []
    for place, x in enumerate(by_input(turned(layer.x, layer, turns=direction.turns)).unbind()):
        gates = x + by_state(shown)
        after, memory_after = gating(gates if bias is None else gates + bias, memory)
        if layer.valid is None:
            shown = hidden = output = after
            memory = memory_after
        else:
            valid = layer.valid[place]
            hidden, memory = torch.where(valid, after, hidden), torch.where(valid, memory_after, memory)
            output = torch.where(valid, after, 0)
            shown = output if clears else hidden
        outputs.append(output)
    state: State = (hidden, memory)
    if layer.valid is not None:
        state = tuple(torch.where(layer.valid[0], each, 0) for each in state)
    return turned(torch.stack(outputs), layer, turns=direction.turns), state
