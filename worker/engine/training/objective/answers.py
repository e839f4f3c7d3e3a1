"""What a teacher says to a batch, and a store of it by sample. How teachers are run is `teacher`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

MOST_BYTES, MOST_BYTES_FORCED = 256 << 20, 4 << 30
"""Of memory that answers take: by default, and where the recipe says `cache: true`."""


@dataclass(frozen=True)
class Answer:
    """A teacher's class scores, and its outputs in the order of the student's, as far as losses need them.

    `features`: inner tensors in the order of the pairs; None for those in a branch that was not taken.
    """

    scores: torch.Tensor | None = None
    outputs: Sequence[torch.Tensor] = ()
    features: Sequence[torch.Tensor | None] = ()

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What is stored: all but features, which are too large."""
        return (*(() if self.scores is None else (self.scores,)), *self.outputs)


class Store:
    """Answers by the index of a sample, on the CPU."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[torch.Tensor, ...]] = {}

    def put(self, indices: Sequence[int], answer: Answer) -> None:
        """Keep an answer to those samples; one that is known stays as it is."""
        # A copy: what is a view of something larger would keep that.
        held = [each.detach().to("cpu", copy=True) for each in answer.tensors]
        for place, index in enumerate(indices):
            self._rows.setdefault(index, tuple(each[place] for each in held))

    def find(self, indices: Sequence[int]) -> list[torch.Tensor] | None:
        """The tensors of the answer to those samples; None where one of them is not known."""
        rows = [self._rows.get(index) for index in indices]
        known = [row for row in rows if row is not None]
        if len(known) < len(rows):
            return None
        return [torch.stack(column) for column in zip(*known, strict=True)]


def why_not_stored(example: Answer, samples: int, *, asked: bool | None) -> str | None:
    """Why answers such as `example`, which is one to a batch, are not stored for `samples`; None where they are.

    `asked` is the recipe's `cache`: None where it leaves that open.
    """
    if asked is False:
        return "the recipe says so"
    if example.features:
        return "features are too large"
    lengths = {len(each) if each.dim() else 0 for each in example.tensors}
    if len(lengths) != 1 or 0 in lengths:
        return "they do not belong to single samples"
    bytes_each = sum(each.nbytes for each in example.tensors) / lengths.pop()
    bound = MOST_BYTES_FORCED if asked else MOST_BYTES
    total = bytes_each * samples
    return None if total <= bound else f"they take {total / 2**20:,.0f} MiB, and up to {bound >> 20:,} are kept"
