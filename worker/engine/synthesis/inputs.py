"""What each input of a graph is for, and first values for it: noise, rows of a table, masks. Nothing runs here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import onnx_ir as ir

from app.contracts.facts import TensorSpec
from worker.engine.data.fit import to_numpy
from worker.engine.graph import Graph
from worker.engine.samples import Guess
from worker.engine.session import Array
from worker.engine.synthesis.noise import recorded_noise

_TO_TABLE = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""What may stand between an input and the table it looks rows up in."""
_IMAGE_RANK, _SEQUENCE_RANK = 4, 3
_RGB = 3
_COLOURS = (1, _RGB, 4)
_BYTE_DEVIATION = 64
"""Of pictures and sounds stored in bytes, around the middle of what a byte holds."""


class Role(Enum):
    """What an input is for."""

    MEASURED = auto()
    """Floating-point numbers of a sensor or of another network: a gradient can improve them."""
    BYTES = auto()
    ROWS = auto()
    """Indices of rows of a table, such as tokens."""
    ONES = auto()
    ZEROS = auto()
    COUNTING = auto()
    """Indices of positions: 0, 1, 2, ..."""
    WHOLE = auto()
    """Whole numbers or truth values of which nothing is known."""


_BY_NAME: Mapping[str, Role] = {
    "mask": Role.ONES,
    "token_type": Role.ZEROS,
    "segment": Role.ZEROS,
    "position": Role.COUNTING,
}
"""What an input that is an index or a mask holds in nearly every call, by a word in its name."""


@dataclass(frozen=True)
class Part:
    """An input of a graph and what it is for; `rows` of the table it looks up in, where it does."""

    spec: TensorSpec
    role: Role
    rows: int | None

    @property
    def channels(self) -> int | None:
        """The axis of colours or features, None for rank 1; it is the last in [N, H, W, 3], [N, T, F] and [N, F]."""
        shape = self.spec.shape
        if len(shape) < _SEQUENCE_RANK:
            return 1 if len(shape) > 1 else None
        if len(shape) == _SEQUENCE_RANK or (shape[-1] in _COLOURS and shape[1] not in _COLOURS):
            return len(shape) - 1
        return 1

    @property
    def colours(self) -> int | None:
        """The axis of red, green and blue; None where there are none."""
        channels = self.channels if len(self.spec.shape) == _IMAGE_RANK else None
        return channels if channels is not None and self.spec.shape[channels] == _RGB else None

    @property
    def smooth_axes(self) -> Sequence[int]:
        """Axes along which neighbours are alike: height and width; of rank 3 both, as either may be time."""
        rank, channels = len(self.spec.shape), self.channels
        return [axis for axis in range(1, rank) if axis != channels or rank == _SEQUENCE_RANK]


@dataclass(frozen=True)
class Draw:
    """How inputs are drawn: samples in a batch, sizes of what else is free, and where randomness comes from."""

    rows: int
    guess: Guess
    generator: np.random.Generator


def find_parts(graph: Graph) -> list[Part]:
    """The inputs of `graph` in order. A whole number beside tokens, shaped as they are, masks them."""
    fed = [value for value in graph.model.graph.inputs if not value.is_initializer()]
    pairs = [(spec, table_rows(value)) for spec, value in zip(graph.inputs, fed, strict=True)]
    tokens = [spec.shape for spec, rows in pairs if rows]
    return [Part(spec, _role(spec, rows, tokens), rows) for spec, rows in pairs]


def table_rows(value: ir.Value) -> int | None:
    """Rows of the smallest table that `value` looks up in, through casts and reshapes; None where it does not."""
    found = [_rows_read(node, slot) for node, slot in value.uses()]
    return min((rows for rows in found if rows), default=None)


def draw(part: Part, how: Draw) -> Array:
    """First values for one input. Those of Role.MEASURED are float32, with about mean 0 and variance 1."""
    values = np.asarray(_DRAWN[part.role](part, _fill(part.spec, how), how))
    return values if part.role is Role.MEASURED else values.astype(to_numpy(part.spec))


def _measured(part: Part, shape: tuple[int, ...], how: Draw) -> Array:
    return recorded_noise(shape, part.smooth_axes, part.colours, how.generator)


def _bytes(part: Part, shape: tuple[int, ...], how: Draw) -> Array:
    limits = np.iinfo(part.spec.dtype)
    return (_measured(part, shape, how) * _BYTE_DEVIATION + (limits.min + limits.max) / 2).clip(limits.min, limits.max)


def _rows(part: Part, shape: tuple[int, ...], how: Draw) -> Array:
    return how.generator.integers(0, part.rows or 1, shape)


def _counting(part: Part, shape: tuple[int, ...], _: Draw) -> Array:
    length = shape[-1] if shape else 1
    return np.broadcast_to(np.arange(length).clip(0, (part.rows or length) - 1), shape)


def _whole(part: Part, shape: tuple[int, ...], how: Draw) -> Array:
    return how.generator.integers(0, 2 if part.spec.dtype == "bool" else how.guess.highest, shape)


_DRAWN: Mapping[Role, Callable[[Part, tuple[int, ...], Draw], Array]] = {
    Role.MEASURED: _measured,
    Role.BYTES: _bytes,
    Role.ROWS: _rows,
    Role.ONES: lambda _part, shape, _how: np.ones(shape),
    Role.ZEROS: lambda _part, shape, _how: np.zeros(shape),
    Role.COUNTING: _counting,
    Role.WHOLE: _whole,
}


def _role(spec: TensorSpec, rows: int | None, tokens: Sequence[object]) -> Role:
    kind = to_numpy(spec).kind
    named = next((role for word, role in _BY_NAME.items() if word in spec.name.lower()), None)
    is_index = rows is not None or kind not in "fV"
    if named is not None and (is_index or named is Role.ONES):
        return named
    if rows is not None:
        return Role.ROWS
    if not is_index:
        return Role.MEASURED
    if spec.shape and spec.shape in tokens:
        return Role.ONES
    is_bytes = spec.dtype in ("uint8", "int8") and len(spec.shape) >= _SEQUENCE_RANK
    return Role.BYTES if is_bytes else Role.WHOLE


def _rows_read(node: ir.Node, slot: int) -> int | None:
    if node.op_type == "Gather" and slot == 1:
        table = node.inputs[0]
        if table is None or table.const_value is None or table.shape is None:
            return None
        rows = table.shape[node.attributes["axis"].as_int() if "axis" in node.attributes else 0]
        return rows if isinstance(rows, int) else None
    return table_rows(node.outputs[0]) if node.op_type in _TO_TABLE and slot == 0 else None


def _fill(spec: TensorSpec, how: Draw) -> tuple[int, ...]:
    """As made-up samples have it, the first free dimension of a tensor is its batch."""
    batch = next((index for index, dim in enumerate(spec.shape) if not isinstance(dim, int)), None)
    return tuple(
        dim if isinstance(dim, int) else how.rows if index == batch else how.guess.size
        for index, dim in enumerate(spec.shape)
    )
