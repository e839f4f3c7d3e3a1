"""`TrainingBatch`: what one update sees of the data. Reading and changing samples is `batches`.

Legend: N samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class TrainingBatch:
    """Inputs in the graph's order and labels [N, ...], on the device. `indices` [N] are of the dataset, on the CPU.

    Where samples were mixed, `share` [N] is the weight of `labels`, and the rest is that of `partner`.
    """

    inputs: list[torch.Tensor]
    labels: torch.Tensor | None
    indices: torch.Tensor
    partner: torch.Tensor | None = None
    share: torch.Tensor | None = None
    is_augmented: bool = False

    def __len__(self) -> int:
        return len(self.indices)

    def split(self, size: int) -> Iterator["TrainingBatch"]:
        """Parts of at most `size` samples, in order. Inputs without samples, such as lone numbers, go to each part."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield replace(
                self,
                inputs=[each[rows] if each.dim() and len(each) == len(self) else each for each in self.inputs],
                **{
                    name: value[rows]
                    for name in ("labels", "indices", "partner", "share")
                    if (value := getattr(self, name)) is not None
                },
            )
