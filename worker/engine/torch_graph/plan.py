"""`Plan`: a graph as a list of instructions over numbered slots, and how it runs. How one is made is `planner`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.context import Context

NOTHING, CONTEXT = 0, 1
"""Slots that hold None, for an input left out, and the `Context` of the call."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One function over slots, which gives its first output, or a tuple of them.

    `frees`: slots that nothing reads afterwards.
    """

    run: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    node: str
    has_effect: bool = False
    """Whether it must run though nothing reads its outputs."""
    frees: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`slots` is what a call starts from: constants in their slots, None elsewhere."""

    instructions: tuple[Instruction, ...]
    slots: tuple[Any, ...]
    arguments: tuple[int, ...]
    results: tuple[int, ...]

    def run(self, context: Context, arguments: Iterable[Any]) -> list[Any]:
        """The results in order. Raises SlimlineError NODE_FAILED, naming the node torch stumbled over."""
        slots = list(self.slots)
        slots[CONTEXT] = context
        for slot, argument in zip(self.arguments, arguments, strict=True):
            slots[slot] = argument
        del arguments
        if torch.compiler.is_compiling():
            for each in self.instructions:
                _step(each, slots)
            return [slots[slot] for slot in self.results]
        instruction: Instruction | None = None
        try:
            for instruction in self.instructions:
                _step(instruction, slots)
        except (torch.OutOfMemoryError, SlimlineError) as error:
            raise _placed(error, instruction) from None
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, OverflowError) as error:
            name = instruction.node if instruction else ""
            raise SlimlineError("NODE_FAILED", f"node {name!r} could not be run: {error}", node=name) from error
        return [slots[slot] for slot in self.results]

    def __deepcopy__(self, memo: object) -> "Plan":
        return self  # holds no tensor and never changes


def _step(instruction: Instruction, slots: list[Any]) -> None:
    result = instruction.run(*[slots[slot] for slot in instruction.inputs])
    if type(result) is tuple:
        for slot, each in zip(instruction.outputs, result, strict=False):
            slots[slot] = each
    else:
        slots[instruction.outputs[0]] = result
    for slot in instruction.frees:
        slots[slot] = None


def _placed(error: Exception, instruction: Instruction | None) -> Exception:
    """The refusal, with the node it came from unless it names one."""
    if isinstance(error, SlimlineError) and error.failure.node is None and instruction is not None:
        error.failure = error.failure.model_copy(update={"node": instruction.node})
    return error


def finish(
    instructions: Sequence[Instruction], slots: Sequence[Any], arguments: Sequence[int], results: Sequence[int]
) -> Plan:
    """A plan without the instructions nobody needs, where each slot is freed after its last reader."""
    needed = set(results)
    kept: list[Instruction] = []
    for instruction in reversed(instructions):
        if instruction.has_effect or not needed.isdisjoint(instruction.outputs):
            needed.update(instruction.inputs)
            kept.append(instruction)
    alive = {NOTHING, CONTEXT, *results}
    freed: list[Instruction] = []
    for instruction in kept:
        last = {*instruction.inputs, *instruction.outputs} - alive
        alive |= last
        freed.append(replace(instruction, frees=tuple(sorted(last))))
    return Plan(tuple(reversed(freed)), tuple(slots), tuple(arguments), tuple(results))
