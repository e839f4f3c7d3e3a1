"""`Node`: what an operator may know of the node it is built for. Values appear only when it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from app.contracts.failure import SlimlineError


@dataclass(frozen=True)
class Node:
    """A node at build time. Types are ONNX's, None where inference could not tell."""

    name: str
    op: str
    domain: str
    version: int
    """Opset version of the domain that the graph imports."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Numbers and text as Python has them, lists of those, tensors as NumPy arrays."""
    input_types: tuple[ir.DataType | None, ...] = ()
    output_types: tuple[ir.DataType | None, ...] = ()
    input_ranks: tuple[int | None, ...] = ()
    output_sizes: tuple[tuple[int, ...] | None, ...] = ()
    """Shapes of the outputs of which inference knows every size."""
    constants: tuple[Any, ...] = ()
    """Inputs that are small whole numbers known now, and lone numbers of arithmetic; None for all others."""
    given: tuple[bool, ...] = ()
    """Which inputs are given, one for each position up to the last."""
    wanted: tuple[bool, ...] = ()
    """Which outputs anybody reads or names."""

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute's value, `default` where the node does not have it."""
        return self.attributes.get(attribute, default)

    def need(self, attribute: str) -> Any:
        """An attribute that must be there. Raises SlimlineError GRAPH_INVALID."""
        if attribute not in self.attributes:
            raise SlimlineError(
                "GRAPH_INVALID",
                f"{self.op} needs the attribute {attribute!r}",
                node=self.name,
                hint="export the model again; onnx.checker.check_model shows more",
            )
        return self.attributes[attribute]

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.given) and self.given[index]

    def wants(self, index: int) -> bool:
        """Whether output `index` has a name."""
        return index < len(self.wanted) and self.wanted[index]

    def input_type(self, index: int) -> ir.DataType | None:
        """ONNX element type of input `index`, None where unknown or left out."""
        return self.input_types[index] if index < len(self.input_types) else None

    def rank(self, index: int) -> int | None:
        """Number of dimensions of input `index`, None where unknown or left out."""
        return self.input_ranks[index] if index < len(self.input_ranks) else None

    def constant(self, index: int) -> Any:
        """Input `index` as a Python number or list, where it is one of `constants`; else None."""
        return self.constants[index] if index < len(self.constants) else None

    def output_type(self, index: int = 0) -> ir.DataType | None:
        """ONNX element type of output `index`, None where unknown or left out."""
        return self.output_types[index] if index < len(self.output_types) else None

    def refuse(self, what: str, hint: str | None = None) -> SlimlineError:
        """The refusal of a form of this operator that is not run: raise it while building, never at run time."""
        return SlimlineError("OPERATOR_UNSUPPORTED", f"{self.op}: {what}", node=self.name, hint=hint)
