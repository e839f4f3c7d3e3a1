"""Whether stored samples fit a graph's inputs, and the casts that make them fit. No file is read here."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from app.contracts.facts import DatasetFacts, TensorSpec
from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from worker.engine.data.preprocess import apply
from worker.engine.data.source import Array, Source

DEFAULT_NAME = "x"
_IMAGE_RANK = 4
_RGB = 3
_SCORES_RANK = 2
_EXACT_IN_FLOAT = 2
"""Bytes of the widest integers that float32 holds exactly."""


def stored_name(spec: TensorSpec, specs: Sequence[TensorSpec], source: Source) -> str:
    """Which stored array feeds input `spec`: the one of its name, or `x` where the graph has one input."""
    if spec.name in source.arrays or spec.name in source.constants:
        return spec.name
    if len(specs) == 1 and DEFAULT_NAME in source.arrays:
        return DEFAULT_NAME
    has, wants = ", ".join([*source.arrays, *source.constants]), ", ".join(each.name for each in specs)
    raise SlimlineError(
        "DATA_ARRAYS_MISMATCH",
        f"the dataset has no array for input {spec.name!r}: it has {has}; the model wants {wants}",
        node=spec.name,
        hint="name the arrays as the model's inputs" + (", or the one array x" if len(specs) == 1 else ""),
    )


def preprocess(stored: Array, spec: TensorSpec, source: Source, how: Preprocess | None, *, alone: bool) -> Array:
    """Samples as input `spec` wants them. Where a graph has several inputs, only images are preprocessed."""
    if source.format == "images":
        how = (how or default_for(spec)).model_copy(update={"stored_layout": "nhwc"})
        return apply(stored, how, resized=True)
    if how is None or not (alone or stored.ndim == _IMAGE_RANK):
        return stored
    return apply(stored, how)


def default_for(spec: TensorSpec) -> Preprocess:
    """What images get without a `preprocess`: 0..1 for a model of floats, and channels where the model has three."""
    channels_last = len(spec.shape) == _IMAGE_RANK and spec.shape[-1] == _RGB and spec.shape[1] != _RGB
    scale = 1.0 if to_numpy(spec).kind in "iu" else 1 / 255
    return Preprocess(scale=scale, layout="nhwc" if channels_last else "nchw")


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """The number of samples the graph insists on, or None where any will do."""
    first = next((spec.shape[0] for spec in specs if spec.shape), None)
    return first if isinstance(first, int) else None


def check_input(spec: TensorSpec, value: Array, fixed: int | None) -> None:
    """Raises SlimlineError DATA_SHAPE_MISMATCH or DATA_DTYPE_MISMATCH; `value` is one sample, or a scalar."""
    want, have = list(spec.shape), list(value.shape)
    fits = len(want) == len(have) and all(
        not isinstance(size, int) or size == got for size, got in zip(want[1:], have[1:], strict=True)
    )
    if not fits or (want and isinstance(want[0], int) and want[0] != fixed):
        raise SlimlineError(
            "DATA_SHAPE_MISMATCH",
            f"input {spec.name!r} wants {_told(want)}; the samples, preprocessed, are {_told(['samples', *have[1:]])}",
            node=spec.name,
            hint="store the samples in the model's shape, or set preprocess: resize, layout, stored_layout",
        )
    cast(spec, value)


def cast(spec: TensorSpec, value: Array) -> Array:
    """`value` in the input's type. Raises SlimlineError DATA_DTYPE_MISMATCH where that could change the numbers."""
    target = to_numpy(spec)
    if value.dtype == target:
        return value
    match value.dtype.kind, target.kind:
        case "f", "f":
            with np.errstate(over="ignore"):
                safe = bool(np.isfinite(value.astype(target)).all())
        case "i" | "u", "f":
            safe = value.dtype.itemsize <= _EXACT_IN_FLOAT
        case "i" | "u", "i" | "u":
            limits = np.iinfo(str(target))
            safe = not value.size or (int(value.min()) >= limits.min and int(value.max()) <= limits.max)
        case _:
            safe = False
    if not safe:
        raise SlimlineError(
            "DATA_DTYPE_MISMATCH",
            f"input {spec.name!r} wants {target}; the samples, preprocessed, are {value.dtype}",
            node=spec.name,
            hint=f"store them as {target}: x.astype('{target}')",
        )
    return value.astype(target)


def check_labels(outputs: Sequence[TensorSpec], facts: DatasetFacts) -> None:
    """Raises SlimlineError LABELS_OUT_OF_RANGE for a label that no output has a score for."""
    scores = [spec.shape[-1] for spec in outputs if len(spec.shape) == _SCORES_RANK]
    classes = max((size for size in scores if isinstance(size, int)), default=0)
    if facts.label_max is not None and classes > 1 and facts.label_max >= classes:
        raise SlimlineError(
            "LABELS_OUT_OF_RANGE",
            f"the labels go up to {facts.label_max}; the model has {classes} classes, 0 to {classes - 1}",
            hint="number the classes from 0 in the model's order",
        )


def to_numpy(spec: TensorSpec) -> np.dtype[np.generic]:
    """The NumPy type of an input."""
    return np.dtype(ir.DataType[spec.dtype.upper()].numpy())


def _told(shape: Sequence[object]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
