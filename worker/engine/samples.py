"""Inputs to run a graph on: from a dataset or, without one, made up from the graph's input types.

Nothing runs here but the trial that tells whether made-up inputs are accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnxruntime as ort

from app.contracts.failure import SlimlineError
from app.contracts.graph_facts import TensorSpec
from worker.engine.data import Batch, Dataset
from worker.engine.data.fit import to_numpy
from worker.engine.session import Array, run_session

SYNTHETIC_SAMPLES = 32
_LARGEST_BATCH = 64
_BATCH_BYTES = 4 << 20
_FREE_SIZES = (16, 64, 224, 512, 1)
_HIGHEST_TOKENS = (100, 2)


@dataclass(frozen=True)
class Samples:
    """Inputs of one graph. `note` says where they come from when that is not the data a reader would expect."""

    specs: list[TensorSpec]
    dataset: Dataset | None
    made_up: list[dict[str, Array]]
    note: str | None = None

    def batches(self, batch_size: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Batches in a fixed order; without `batch_size`, as many samples as keep memory flat."""
        if self.dataset is None:
            yield from (Batch(feed, None, _rows(feed)) for feed in self.made_up[:limit])
        else:
            yield from self.dataset.batches(self.specs, batch_size or self._comfortable_batch(), limit=limit)

    def first(self) -> dict[str, Array]:
        """The feed of one call: one sample, or one batch where the graph fixes its size."""
        return next(self.batches(batch_size=1, limit=1)).feed

    def _comfortable_batch(self) -> int:
        return min(_LARGEST_BATCH, max(1, _BATCH_BYTES // max(1, sum(array.nbytes for array in self.first().values()))))


def from_dataset(specs: list[TensorSpec], dataset: Dataset, note: str | None = None) -> Samples:
    """Samples of `dataset`, which has passed `check_for`."""
    return Samples(specs, dataset, [], note)


def make_up(specs: list[TensorSpec], session: ort.InferenceSession, seed: int) -> Samples:
    """Seeded random inputs that `session` accepts: normal floats, small whole numbers, free dimensions of one size.

    Raises SlimlineError SAMPLES_NEEDED where no guess runs.
    """
    refusal: SlimlineError | None = None
    for size, highest in product(_FREE_SIZES, _HIGHEST_TOKENS):
        generator = np.random.default_rng(seed)
        try:
            run_session(session, _random_feed(specs, size, highest, generator))
        except SlimlineError as error:
            refusal = refusal or error
            continue
        feeds = [_random_feed(specs, size, highest, generator) for _ in range(SYNTHETIC_SAMPLES)]
        return Samples(specs, None, feeds, _made_up_note(specs, size))
    raise SlimlineError(
        "SAMPLES_NEEDED",
        "no data was given and no made-up input runs through this model"
        + (f": {refusal.failure.message}" if refusal else ""),
        node=refusal.failure.node if refusal else None,
        hint="Give evaluation or calibration data: an .npz with one array per input.",
    )


def _rows(feed: dict[str, Array]) -> int:
    return next((array.shape[0] for array in feed.values() if array.ndim), 1)


def _random_feed(
    specs: list[TensorSpec], size: int, highest: int, generator: np.random.Generator
) -> dict[str, Array]:
    return {spec.name: _random_array(spec, size, highest, generator) for spec in specs}


def _random_array(spec: TensorSpec, size: int, highest: int, generator: np.random.Generator) -> Array:
    kind = to_numpy(spec)
    shape = _fill(spec.shape, size)
    match kind.kind:
        case "f" | "V":  # bfloat16 is no NumPy float
            return generator.standard_normal(shape).astype(kind)
        case "b" | "i" | "u":
            return generator.integers(0, 2 if kind == np.bool_ else highest, shape).astype(kind)
        case _:
            raise SlimlineError("SAMPLES_NEEDED", f"input {spec.name!r} of type {spec.dtype} cannot be made up")


def _fill(shape: list[int | str | None], size: int) -> tuple[int, ...]:
    """The first free dimension of a tensor is taken for its batch, and is 1."""
    free = [index for index, dim in enumerate(shape) if not isinstance(dim, int)]
    return tuple(dim if isinstance(dim, int) else 1 if index == free[0] else size for index, dim in enumerate(shape))


def _made_up_note(specs: list[TensorSpec], size: int) -> str:
    has_free = any(sum(not isinstance(dim, int) for dim in spec.shape) > 1 for spec in specs)
    return "inputs are made up (random, seeded): no data was given" + (
        f"; free dimensions beside the batch were taken as {size}" if has_free else ""
    )
