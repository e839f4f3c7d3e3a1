"""Inputs to run a graph on: from a dataset, made in memory, or made up from the graph's input types.

Nothing runs here but the trial that tells whether made-up inputs are accepted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnxruntime as ort
from pydantic import BaseModel

from app.contracts.facts import TensorSpec
from app.contracts.failure import SlimlineError
from worker.engine.data import Batch, Dataset
from worker.engine.data.fit import to_numpy
from worker.engine.session import Array, run_session

_LARGEST_BATCH = 64
_BATCH_BYTES = 4 << 20
_FREE_SIZES = (16, 64, 224, 512, 1)
_HIGHEST_TOKENS = (100, 2)


class Guess(BaseModel):
    """How inputs are made up: the size of free dimensions beside the batch, and the integers' upper end, excluded."""

    size: int
    highest: int
    seed: int
    samples: int = 32


@dataclass(frozen=True)
class Synthetic:
    """Inputs made for a graph and held in memory: one feed for each call, with `rows` samples in it."""

    feeds: Sequence[Mapping[str, Array]]
    rows: int

    def __len__(self) -> int:
        return len(self.feeds) * self.rows

    def batches(self, limit: int | None) -> Iterator[Batch]:
        """Whole feeds, as many as hold `limit` samples."""
        for feed in self.feeds[: None if limit is None else -(-limit // self.rows)]:
            yield Batch(dict(feed), None, self.rows)


@dataclass(frozen=True)
class Samples:
    """Inputs of one graph. `note` says where they come from if that is not data a reader would expect."""

    specs: list[TensorSpec]
    source: Dataset | Guess | Synthetic
    note: str | None = None

    def __len__(self) -> int:
        return self.source.samples if isinstance(self.source, Guess) else len(self.source)

    @property
    def are_labelled(self) -> bool:
        """Whether batches come with labels."""
        return isinstance(self.source, Dataset) and self.source.facts.has_labels

    def batches(self, batch_size: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Batches in a fixed order; without `batch_size`, as many samples as keep memory flat.

        Only a dataset is cut to `batch_size`.
        """
        match self.source:
            case Guess():
                for feed in _made_up(self.specs, self.source, limit):
                    yield Batch(feed, None, next((array.shape[0] for array in feed.values() if array.ndim), 1))
            case Synthetic():
                yield from self.source.batches(limit)
            case Dataset():
                yield from self.source.batches(self.specs, batch_size or self._comfortable_batch(), limit=limit)

    def first(self) -> dict[str, Array]:
        """The feed of one call: one sample, or one batch where the graph fixes its size or inputs were synthesised."""
        return next(self.batches(batch_size=1, limit=1)).feed

    def _comfortable_batch(self) -> int:
        return min(_LARGEST_BATCH, max(1, _BATCH_BYTES // max(1, sum(array.nbytes for array in self.first().values()))))


def from_guess(specs: list[TensorSpec], guess: Guess) -> Samples:
    """Random inputs: normal floats, small whole numbers."""
    has_free = any(sum(not isinstance(dim, int) for dim in spec.shape) > 1 for spec in specs)
    sizes = f"; free dimensions beside the batch were taken as {guess.size}" if has_free else ""
    return Samples(specs, guess, f"inputs are made up (random, seeded): no data was given{sizes}")


def make_up(specs: list[TensorSpec], session: ort.InferenceSession, seed: int) -> Samples:
    """The first guess at inputs that `session` accepts. Raises SlimlineError SAMPLES_NEEDED where none runs."""
    refusal: SlimlineError | None = None
    for size, highest in product(_FREE_SIZES, _HIGHEST_TOKENS):
        samples = from_guess(specs, Guess(size=size, highest=highest, seed=seed))
        try:
            for batch in samples.batches(limit=4):
                run_session(session, batch.feed)
        except SlimlineError as error:
            refusal = refusal or error
        else:
            return samples
    raise SlimlineError(
        "SAMPLES_NEEDED",
        f"no data was given and no made-up input runs through this model: {refusal.failure.message if refusal else ''}",
        node=refusal.failure.node if refusal else None,
        hint="Give evaluation or calibration data: an .npz with one array per input.",
    )


def _made_up(specs: list[TensorSpec], guess: Guess, limit: int | None) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(guess.seed)
    for _ in range(min(guess.samples, limit or guess.samples)):
        yield {spec.name: _random_array(spec, guess, generator) for spec in specs}


def _random_array(spec: TensorSpec, guess: Guess, generator: np.random.Generator) -> Array:
    kind = to_numpy(spec)
    shape = _fill(spec.shape, guess.size)
    match kind.kind:
        case "f" | "V":  # bfloat16 is no float to NumPy
            return generator.standard_normal(shape).astype(kind)
        case "b" | "i" | "u":
            return generator.integers(0, 2 if kind == np.bool_ else guess.highest, shape).astype(kind)
        case _:
            raise SlimlineError("SAMPLES_NEEDED", f"input {spec.name!r} of type {spec.dtype} cannot be made up")


def _fill(shape: list[int | str | None], size: int) -> tuple[int, ...]:
    """The first free dimension of a tensor is taken for its batch, and is 1."""
    free = [index for index, dim in enumerate(shape) if not isinstance(dim, int)]
    return tuple(dim if isinstance(dim, int) else 1 if index == free[0] else size for index, dim in enumerate(shape))
