"""`Scope`: one graph or body while it is planned: its values in the forms they have so far, and its instructions."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.host import HOST_TYPES, MOST_ELEMENTS, as_scalar, promotion, read
from worker.engine.torch_graph.plan import CONTEXT, NOTHING, Instruction, Plan, finish
from worker.engine.torch_graph.source import Source
from worker.engine.torch_graph.table import Run


@dataclass
class Value:
    """The forms a value has: a tensor in a slot, Python numbers in a slot, numbers known now. `type`: of the latter."""

    tensor: int | None = None
    host: int | None = None
    constant: Any = None
    type: ir.DataType | None = None


class Scope:
    """A body reaches values around it by capturing them: they follow its arguments, in the order of `captures`."""

    def __init__(
        self,
        source: Source,
        numbers_of: Callable[[int], Any],
        watched: Collection[str],
        parent: "Scope | None" = None,
    ) -> None:
        self.parent = parent
        self.captures: dict[int, int] = {}
        """Slot in the parent -> slot here."""
        self.node = ""
        self.is_expanding: bool = parent.is_expanding if parent else False
        """Whether nodes of a function body are being planned: the user knows none of their names."""
        self._source = source
        self._watched = watched
        self._numbers_of = numbers_of
        self._values: dict[ir.Value, Value] = {}
        self._aliases: dict[ir.Value, ir.Value | None] = {}
        self._from_around: set[ir.Value] = set()
        self._slots: list[Any] = [None, None]
        self._instructions: list[Instruction] = []

    def inner(self) -> "Scope":
        """A scope for a body of the node being planned."""
        scope = Scope(self._source, self._numbers_of, self._watched, self)
        scope.node = self.node
        return scope

    def slot(self, content: Any = None) -> int:
        """A new slot, which holds `content` at the start of every call."""
        self._slots.append(content)
        return len(self._slots) - 1

    def enter(self, value: ir.Value, *, host_type: ir.DataType | None = None) -> int:
        """Enter a value that the caller provides: a tensor, or Python numbers that stand for `host_type`."""
        slot = self.slot()
        self._values[value] = Value(tensor=slot) if host_type is None else Value(host=slot, type=host_type)
        return slot

    def define(self, value: ir.Value, forms: Value) -> None:
        """Enter a value that a node made."""
        self._values[value] = forms

    def alias(self, value: ir.Value, other: ir.Value | None) -> None:
        """Let `value` stand for `other`, or for an input left out."""
        self._aliases[value] = self.resolve(other)

    def resolve(self, value: ir.Value | None) -> ir.Value | None:
        """The value that `value` stands for: itself unless it is an alias."""
        if value is None or value in self._values:
            return value
        if value in self._aliases:
            return self._aliases[value]
        return self.parent.resolve(value) if self.parent else value

    @contextmanager
    def expanding(self) -> Iterator[None]:
        """While a function body is planned."""
        before, self.is_expanding = self.is_expanding, True
        yield
        self.is_expanding = before

    def emit(self, run: Run, inputs: Sequence[int], outputs: Sequence[int], *, has_effect: bool = False) -> None:
        """Append an instruction for the node being planned."""
        self._instructions.append(Instruction(run, tuple(inputs), tuple(outputs), self.node, has_effect))

    def watches(self, value: ir.Value | None) -> bool:
        """Whether `value` has observers: it must then be made, and read by all who read it in the graph."""
        return value is not None and value.name in self._watched and not self.is_expanding

    def watch(self, value: ir.Value) -> None:
        """Show `value` to the observers of its name, whenever it is made; what they give back takes its place."""
        slot, name = self.tensor(value), value.name or ""
        self._values[value] = Value(tensor=slot, type=self.type_of(value))  # numbers would bypass the observers
        self.emit(lambda context, tensor: context.show(name, tensor), [CONTEXT, slot], [slot], has_effect=True)

    def finish(self, arguments: Sequence[int], results: Sequence[int]) -> Plan:
        """The plan of what was emitted."""
        return finish(self._instructions, self._slots, [*arguments, *self.captures.values()], results)

    def tensor(self, value: ir.Value | None) -> int:
        """The slot that holds `value` as a tensor; NOTHING for an input left out."""
        value = self.resolve(value)
        if value is None:
            return NOTHING
        forms = self._forms(value)
        if forms.tensor is None:
            if value in self._from_around and self.parent:
                forms.tensor = self._capture(self.parent.tensor(value))
            else:
                forms.tensor = self._load(value) if value in self._source.numbers else self._promote(forms)
        return forms.tensor

    def host(self, value: ir.Value | None) -> int:
        """The slot that holds `value` as Python numbers; NOTHING for an input left out."""
        value = self.resolve(value)
        if value is None:
            return NOTHING
        forms = self._forms(value)
        if forms.host is None:
            if forms.constant is not None:
                forms.host = self.slot(forms.constant)
            elif value in self._source.numbers:
                forms.host = self.slot(self._numbers_of(self._source.numbers[value]))
            elif value in self._from_around and self.parent:
                forms.host = self._capture(self.parent.host(value))
            else:
                forms.host = self.slot()
                self.emit(read, [self.tensor(value)], [forms.host])
        return forms.host

    def is_host(self, value: ir.Value | None) -> bool:
        """Whether the numbers of `value` are there without asking a device."""
        value = self.resolve(value)
        if value is None:
            return False
        forms = self._forms(value)
        if forms.host is not None or forms.constant is not None:
            return True
        return value in self._from_around and self.parent is not None and self.parent.is_host(value)

    def constant(self, value: ir.Value | None) -> Any:
        """The numbers of a small constant of whole numbers; None for all others."""
        value = self.resolve(value)
        return self._forms(value).constant if value is not None else None

    def number(self, value: ir.Value | None, *, is_lone: bool) -> Any:
        """As `constant`; with `is_lone` also a lone number of a formula, of any type."""
        value = self.resolve(value)
        weight = self._source.numbers.get(value) if value is not None else None
        if is_lone and weight is not None and self._source.weights[weight].is_lone:
            return as_scalar(self._numbers_of(weight))
        return self.constant(value)

    def type_of(self, value: ir.Value | None) -> ir.DataType | None:
        """The ONNX type of `value`, None where unknown."""
        if value is None:
            return None
        return value.dtype or self._forms(value).type

    def weight(self, value: ir.Value | None) -> int | None:
        """The number of the weight that `value` is, None where it is none."""
        value = self.resolve(value)
        return self._source.numbers.get(value) if value is not None else None

    def _forms(self, value: ir.Value) -> Value:
        if value not in self._values:
            self._values[value] = self._reach(value)
        return self._values[value]

    def _reach(self, value: ir.Value) -> Value:
        """A value that no node of this scope made: from around, or a weight."""
        if self.parent:
            self._from_around.add(value)
            outer = self.parent._forms(value)  # noqa: SLF001 - the same class
            return Value(constant=outer.constant, type=outer.type)
        if value not in self._source.numbers:
            raise SlimlineError(
                "VALUE_MISSING", f"{value.name!r} is needed, but nothing makes it", node=self.node, hint="export again"
            )
        number = self._source.numbers[value]
        tensor = self._source.weights[number].tensor
        is_shape = tensor.dtype in HOST_TYPES and tensor.shape.rank() <= 1 and tensor.size <= MOST_ELEMENTS
        return Value(constant=self._numbers_of(number) if is_shape else None, type=tensor.dtype)

    def _load(self, value: ir.Value) -> int:
        number, slot = self._source.numbers[value], self.slot()
        self.emit(lambda context: context.weight(number), [CONTEXT], [slot])
        return slot

    def _promote(self, forms: Value) -> int:
        numbers = forms.host if forms.host is not None else self.slot(forms.constant)
        slot = self.slot()
        self.emit(promotion(forms.type or ir.DataType.INT64), [CONTEXT, numbers], [slot])
        return slot

    def _capture(self, outer: int) -> int:
        if outer not in self.captures:
            self.captures[outer] = self.slot()
        return self.captures[outer]
