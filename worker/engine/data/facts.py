"""What is said of a dataset: from its headers and labels at once, or after looking at every number."""

import numpy as np

from app.contracts.facts import DatasetFacts, TensorSpec
from app.contracts.preprocess import Preprocess
from worker.engine.data.source import Source, check_constants, read_finite

_BLOCK = 64
_LABEL_BLOCK = 65536
_DTYPES = {"float32": "float", "float64": "double"}
_BYTE = 255
IMAGES_NOTE = "without `preprocess`, pixels become value / 255 in RGB order, in the model's layout"
UNSCALED_NOTE = "`preprocess` has mean or std but scale 1: they are applied to pixel values 0..255"


def describe(source: Source, preprocess: Preprocess | None) -> DatasetFacts:
    """Facts from headers and labels. Raises SlimlineError LABELS_INVALID or DATA_NOT_FINITE."""
    low, high = _label_range(source) if source.has_labels else (None, None)
    return DatasetFacts(
        format=source.format,
        samples=source.samples,
        arrays=[
            TensorSpec(
                name=name,
                dtype=_DTYPES.get(str(stored.dtype), str(stored.dtype)),
                shape=[source.samples, *stored.shape],
            )
            for name, stored in source.arrays.items()
        ],
        has_labels=source.has_labels,
        classes=source.classes,
        label_min=low,
        label_max=high,
        preprocess=preprocess,
        notes=[*source.notes, *_notes(source, preprocess)],
    )


def check_every_sample(source: Source) -> None:
    """Read everything once, in small blocks. Raises SlimlineError for the first sample that cannot be used."""
    check_constants(source)
    _read_all(source, list(source.arrays))


def check_every_number(source: Source) -> None:
    """Read floats once, in small blocks; images hold none. Raises SlimlineError DATA_NOT_FINITE."""
    check_constants(source)
    _read_all(source, [name for name, stored in source.arrays.items() if stored.dtype.kind == "f"])


def _read_all(source: Source, names: list[str]) -> None:
    for start in range(0, source.samples if names else 0, _BLOCK):
        indices = np.arange(start, min(start + _BLOCK, source.samples))
        for name in names:
            read_finite(source, name, indices)


def _label_range(source: Source) -> tuple[int, int] | tuple[None, None]:
    """The lowest and highest class; floats are read, and have none."""
    starts = range(0, source.samples, _LABEL_BLOCK)
    blocks = [source.labels(np.arange(start, min(start + _LABEL_BLOCK, source.samples))) for start in starts]
    if blocks[0].dtype.kind == "f":
        return None, None
    return min(int(block.min()) for block in blocks), max(int(block.max()) for block in blocks)


def _notes(source: Source, preprocess: Preprocess | None) -> list[str]:
    if source.format == "images" and preprocess is None:
        return [IMAGES_NOTE]
    unscaled = preprocess is not None and preprocess.scale == 1 and bool(preprocess.mean or preprocess.std)
    small = (
        preprocess is not None and max(map(abs, [*(preprocess.mean or []), *(preprocess.std or [])]), default=0) <= 1
    )
    bytes_ = all(stored.dtype == np.uint8 for stored in source.arrays.values())
    return [UNSCALED_NOTE] if unscaled and small and bytes_ else []
