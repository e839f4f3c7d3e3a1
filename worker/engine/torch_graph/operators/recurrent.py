"""Recurrent layers: LSTM, GRU and RNN by torch's fused kernels where those can, else step by step.

Legend: T time steps, D directions, N samples, I inputs, H hidden size, G gates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.recurrent_activation import Activation, make_activations, read_activations
from worker.engine.torch_graph.kernels.recurrent_cells import Cell, State, gru_cell, lstm_cell, rnn_cell, sweep
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""For each direction, whether it goes from the last time step to the first."""
FUSED: dict[tuple[str, ...], Callable[..., Any]] = {
    ("LSTM", "sigmoid", "tanh", "tanh"): torch.lstm,
    ("GRU", "sigmoid", "tanh"): torch.gru,
    ("RNN", "tanh"): torch.rnn_tanh,
    ("RNN", "relu"): torch.rnn_relu,
}
"""torch's kernel by operator and activations."""
OPTIONAL = 5
"""Inputs behind X, W and R: B, sequence_lens, initial_h, initial_c, P."""
# Inputs, and an output, by number.
LENGTHS, PEEPHOLES, LAST_CELL = 4, 7, 2


@dataclass(frozen=True)
class Kind:
    """What tells LSTM, GRU and RNN apart."""

    cell: Callable[[Node], Cell]
    activations: tuple[str, ...]
    order: tuple[int, ...]
    """ONNX's gates, in torch's order."""
    states: int = 1


KINDS = {
    "LSTM": Kind(lstm_cell, ("Sigmoid", "Tanh", "Tanh"), (0, 2, 3, 1), states=2),  # iofc, ifgo
    "GRU": Kind(gru_cell, ("Sigmoid", "Tanh"), (1, 0, 2)),  # zrh, rzn
    "RNN": Kind(rnn_cell, ("Tanh",), (0,)),
}


@dataclass(frozen=True)
class Layer:
    """The inputs of a call, in layout 0. `valid`: (T, N, 1), what lies before the end of its sequence."""

    x: torch.Tensor
    w: torch.Tensor
    r: torch.Tensor
    b: torch.Tensor | None
    p: torch.Tensor | None
    lengths: torch.Tensor | None
    valid: torch.Tensor | None
    state: State
    """Each (D, N, H)."""


@operator("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> Run:
    """One layer. Past the end of a sequence the output is zero; the reverse direction starts at that end."""
    kind, is_batch_first = KINDS[node.op], bool(node.get("layout", 0))
    forward = _fused(node, kind) or _stepwise(node, kind)

    def run(
        x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, *others: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        b, lengths, h, c, p = (*others, *[None] * OPTIONAL)[:OPTIONAL]
        x = x.transpose(0, 1) if is_batch_first else x
        state = tuple(
            x.new_zeros(w.shape[0], x.shape[1], r.shape[2])
            if each is None
            else (each.transpose(0, 1).contiguous() if is_batch_first else each)
            for each in (h, c)[: kind.states]
        )
        valid = None
        if lengths is not None:
            valid = (torch.arange(x.shape[0], device=x.device).unsqueeze(1) < lengths).unsqueeze(2)
        y, after = forward(Layer(x, w, r, b, p, lengths, valid, state))
        if is_batch_first:
            return y.permute(2, 0, 1, 3), *(each.transpose(0, 1) for each in after)
        return y, *after

    return run


Forward = Callable[[Layer], tuple[torch.Tensor, State]]
"""Gives all hidden states (T, D, N, H) and the last state, each part (D, N, H)."""


def _fused(node: Node, kind: Kind) -> Forward | None:
    """The kernel of torch, None where it has none for this node."""
    reverses = read_reverses(node)
    names = read_activations(node, kind.activations, len(reverses))
    count = len(kind.activations)
    kernel = FUSED.get((node.op, *names[:count]))
    has_own_form = node.has(PEEPHOLES) or node.get("input_forget", 0) or node.get("clip") is not None
    is_reset_first = node.op == "GRU" and not node.get("linear_before_reset", 0)
    if kernel is None or names[:count] != names[-count:] or has_own_form or is_reset_first:
        return None
    if not node.has(LENGTHS):
        return lambda layer: _fused_whole(kernel, kind, layer, reverses)
    if kind.states > 1 and node.wants(LAST_CELL):
        return None  # the kernel does not tell the cell at the end of each sequence
    return lambda layer: _fused_masked(kernel, kind, layer, reverses)


def read_reverses(node: Node) -> tuple[bool, ...]:
    """One of `REVERSED`. Raises SlimlineError for an unknown direction."""
    direction = node.get("direction", "forward")
    if direction not in REVERSED:
        raise node.refuse(f"direction {direction!r}", f"one of {', '.join(REVERSED)}")
    return REVERSED[direction]


def _fused_whole(
    kernel: Callable[..., Any], kind: Kind, layer: Layer, reverses: Sequence[bool]
) -> tuple[torch.Tensor, State]:
    weights = _arrange(layer.w, layer.r, layer.b, kind.order)
    is_two, is_reverse = len(reverses) > 1, reverses == (True,)
    x = layer.x.flip(0) if is_reverse else layer.x
    y, state = _call(kernel, x, layer.state, weights, is_two=is_two)
    y = y.reshape(*y.shape[:2], len(reverses), layer.r.shape[2]).transpose(1, 2)
    return y.flip(0) if is_reverse else y, state


def _fused_masked(
    kernel: Callable[..., Any], kind: Kind, layer: Layer, reverses: Sequence[bool]
) -> tuple[torch.Tensor, State]:
    """Each direction over the padded sequences: what lies behind an end cannot change what lies before it."""
    assert layer.valid is not None
    assert layer.lengths is not None
    outputs, ends = [], []
    last = (layer.lengths.long() - 1).clamp(min=0)[None, :, None]
    for number, is_reverse in enumerate(reverses):
        own = slice(number, number + 1)
        weights = _arrange(layer.w[own], layer.r[own], None if layer.b is None else layer.b[own], kind.order)
        state = tuple(each[own].contiguous() for each in layer.state)
        y, _ = _call(kernel, turned(layer.x, layer, turns=is_reverse), state, weights, is_two=False)
        y = torch.where(layer.valid, y, 0)
        ends.append(y.gather(0, last.expand(1, -1, y.shape[2]))[0])
        outputs.append(turned(y, layer, turns=is_reverse))
    return torch.stack(outputs, 1), (torch.stack(ends),)


def _call(
    kernel: Callable[..., Any], x: torch.Tensor, state: State, weights: list[torch.Tensor], *, is_two: bool
) -> tuple[torch.Tensor, State]:
    has_biases = len(weights) == (8 if is_two else 4)
    # cuDNN keeps what the backward pass needs in training mode alone.
    y, *after = kernel(
        x, state if len(state) > 1 else state[0], weights, has_biases, 1, 0.0, torch.is_grad_enabled(), is_two, False
    )
    return y, tuple(after)


def _arrange(w: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None, order: Sequence[int]) -> list[torch.Tensor]:
    """Weights as torch wants them, direction by direction: two matrices, then two vectors, gates in its order."""
    arranged: list[torch.Tensor] = []
    for direction in range(w.shape[0]):
        halves = () if b is None else b[direction].chunk(2)
        arranged += [_in_order(each, order) for each in (w[direction], r[direction], *halves)]
    return _in_one_buffer(arranged) if w.is_cuda else arranged


def _in_order(weight: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    gates = weight.chunk(len(order))
    return torch.cat([gates[number] for number in order]) if len(order) > 1 else weight


def _in_one_buffer(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """One behind the other, which cuDNN uses as it is: it would copy them otherwise, and warn."""
    flat = torch.cat([each.flatten() for each in weights])
    parts = torch.split(flat, [each.numel() for each in weights])
    return [part.view(each.shape) for part, each in zip(parts, weights, strict=True)]


def _stepwise(node: Node, kind: Kind) -> Forward:
    reverses, cell, count = read_reverses(node), kind.cell(node), len(kind.activations)
    activations = make_activations(node, read_activations(node, kind.activations, len(reverses)), count)

    def forward(layer: Layer) -> tuple[torch.Tensor, State]:
        outputs: list[torch.Tensor] = []
        states: list[State] = []
        for number, is_reverse in enumerate(reverses):
            own = activations[number * count : (number + 1) * count]
            y, state = _direction(cell, layer, number, own, turns=is_reverse)
            outputs.append(y)
            states.append(state)
        return torch.stack(outputs, 1), tuple(torch.stack(each) for each in zip(*states, strict=True))

    return forward


def _direction(
    cell: Cell, layer: Layer, number: int, activations: Sequence[Activation], *, turns: bool
) -> tuple[torch.Tensor, State]:
    bias, peepholes = (None if each is None else each[number] for each in (layer.b, layer.p))
    step, bias = cell(layer.r[number], bias, peepholes, activations)
    x = F.linear(turned(layer.x, layer, turns=turns), layer.w[number], bias)
    y, state = sweep(x, step, tuple(each[number] for each in layer.state), layer.valid)
    if layer.valid is not None:
        # As ONNX Runtime has it: no sequence, no state, whatever it was at the start.
        state = tuple(torch.where(layer.valid[0], each, 0) for each in state)
    return turned(y, layer, turns=turns), state


def turned(x: torch.Tensor, layer: Layer, *, turns: bool) -> torch.Tensor:
    """`x` (T, N, any) with each sequence back to front; padding stays behind the end."""
    if not turns:
        return x
    if layer.lengths is None or layer.valid is None:
        return x.flip(0)
    place = torch.arange(x.shape[0], device=x.device)[:, None, None]
    source = torch.where(layer.valid, layer.lengths.long()[:, None] - 1 - place, place)
    return x.gather(0, source.expand(-1, -1, x.shape[2]))
