"""Recurrence one time step after the other, in every form ONNX has. The fused kernels are chosen in `recurrent.py`.

Legend: T time steps, N samples, I inputs, H hidden size, G gates. Weights and states are those of one direction.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.recurrent_activation import Activation
from worker.engine.torch_graph.node import Node

State = tuple[torch.Tensor, ...]
"""The hidden state, then the cell where there is one: each (N, H)."""
Step = Callable[[torch.Tensor, State], State]
"""From what the input of one step adds to the gates, (N, G * H), and the state before it, to the state after it."""
Cell = Callable[
    [torch.Tensor, torch.Tensor | None, torch.Tensor | None, Sequence[Activation]], tuple[Step, torch.Tensor | None]
]
"""Takes the recurrent weight (G * H, H), both biases (2 * G * H), peepholes (3 * H) and activations.

Gives the step, and the bias (G * H) to add to the projected input.
"""


Gating = Callable[[torch.Tensor, torch.Tensor], State]
"""From what goes into the gates of an LSTM, (N, 4 * H), and the cell before, to the state after it."""


def sweep(x_TNG: torch.Tensor, step: Step, state: State, valid_TN1: torch.Tensor | None) -> tuple[torch.Tensor, State]:  # noqa: N803
    """The hidden states (T, N, H), zero where not valid, and the state after the last valid step."""
    hidden = []
    for place, x in enumerate(x_TNG.unbind()):
        after = step(x, state)
        if valid_TN1 is None:
            state = after
            hidden.append(after[0])
        else:
            valid = valid_TN1[place]
            state = tuple(torch.where(valid, new, old) for new, old in zip(after, state, strict=True))
            hidden.append(torch.where(valid, after[0], 0))
    return torch.stack(hidden), state


def rnn_cell(_: Node) -> Cell:
    """H' = f(X W + H R + b)."""

    def cell(
        r: torch.Tensor, b: torch.Tensor | None, _: torch.Tensor | None, activations: Sequence[Activation]
    ) -> tuple[Step, torch.Tensor | None]:
        (f,) = activations
        return (lambda x, state: (f(x + F.linear(state[0], r)),)), sum_biases(b)

    return cell


def gru_cell(node: Node) -> Cell:
    """Gates z, r, h. With `linear_before_reset` the reset gate is applied behind the product, as torch does."""
    is_linear_first = bool(node.get("linear_before_reset", 0))

    def cell(
        r: torch.Tensor, b: torch.Tensor | None, _: torch.Tensor | None, activations: Sequence[Activation]
    ) -> tuple[Step, torch.Tensor | None]:
        f, g = activations
        size = r.shape[1]
        r_zr, r_h = r[: 2 * size], r[2 * size :]
        if b is None or not is_linear_first:
            inside, outside = None, sum_biases(b)
        else:
            inside = b[5 * size :]
            outside = torch.cat([b[: 2 * size] + b[3 * size : 5 * size], b[2 * size : 3 * size]])

        def step(x: torch.Tensor, state: State) -> State:
            (h,) = state
            z, reset = f(x[:, : 2 * size] + F.linear(h, r_zr)).chunk(2, 1)
            recurrent = reset * F.linear(h, r_h, inside) if is_linear_first else F.linear(reset * h, r_h)
            return ((1 - z) * g(x[:, 2 * size :] + recurrent) + z * h,)

        return step, outside

    return cell


def lstm_cell(node: Node) -> Cell:
    """The product with the hidden state, then `lstm_gating`."""
    is_coupled = bool(node.get("input_forget", 0))

    def cell(
        r: torch.Tensor, b: torch.Tensor | None, p: torch.Tensor | None, activations: Sequence[Activation]
    ) -> tuple[Step, torch.Tensor | None]:
        gating = lstm_gating(p, activations, is_coupled=is_coupled)
        return (lambda x, state: gating(x + F.linear(state[0], r), state[1])), sum_biases(b)

    return cell


def lstm_gating(p: torch.Tensor | None, activations: Sequence[Activation], *, is_coupled: bool) -> Gating:
    """Gates i, o, f, c; f = 1 - i if coupled. Peepholes show i and f the cell before, o the one after."""
    f, g, h = activations
    peephole_i, peephole_o, peephole_f = (None, None, None) if p is None else p.chunk(3)

    def gating(gates: torch.Tensor, memory: torch.Tensor) -> State:
        i, o, forget, c = gates.chunk(4, 1)
        i = f(_peep(i, peephole_i, memory))
        forget = 1 - i if is_coupled else f(_peep(forget, peephole_f, memory))
        memory = forget * memory + i * g(c)
        return f(_peep(o, peephole_o, memory)) * h(memory), memory

    return gating


def _peep(gate: torch.Tensor, peephole: torch.Tensor | None, memory: torch.Tensor) -> torch.Tensor:
    return gate if peephole is None else gate + peephole * memory


def sum_biases(b: torch.Tensor | None) -> torch.Tensor | None:
    """Those of input and hidden state, which lie one behind the other."""
    if b is None:
        return None
    of_input, of_state = b.chunk(2)
    return of_input + of_state
