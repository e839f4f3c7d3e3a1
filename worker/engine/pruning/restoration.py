"""Statistics restored after pruning: the channels that are left give what they gave before, as far as data shows it.

For a BatchNormalization that is the re-estimation of its running statistics. Most models have theirs folded into the
weights: there the same is done to the layer (REPAIR, Jordan et al. 2022).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.engine.data import Batch, Dataset
from worker.engine.graph import Graph
from worker.engine.pruning.channel_statistics import Matching, Site
from worker.engine.pruning.closeness import Closeness, HeldOut
from worker.engine.pruning.rescaling import find_rescalable
from worker.engine.quantization.calibration import Pass, to_tensors
from worker.engine.tensors.channel_matching import Match

Kept = Callable[[str, int], NDArray[np.intp] | None]
"""By a tensor's name and an axis (-1 is the last): which indices of the original are left; None where not known."""
_SHRINKAGES = (0.0, 0.5, 1.0)
"""What is tried, see `PairedMoments.match`: 1 is best by far in some deep models, and worst by far in others."""
_HELD_OUT = 4
"""One batch of so many serves to judge, not to match."""
_FEWEST_BATCHES = 8
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Restoration:
    """The names of the nodes that were changed, none where it brought the outputs no closer to the original's."""

    nodes: Sequence[str]
    before: Closeness
    after: Closeness


def restore_statistics(pruned: Graph, original: Graph, kept: Kept, run: Pass) -> Restoration | None:
    """Scale and shift channels of `pruned`, in place, where that brings the outputs closer on held-out samples.

    `pruned` is `original` without some channels; tensors are called the same in both. None where there was nothing to
    try: no layer that can be rescaled, no statistics that changed, all samples in one batch. Raises SlimlineError for
    a graph that torch cannot run.
    """
    matching = Matching(original, pruned, list(_find_sites(pruned, original, kept)), _SHRINKAGES).to(run.device)
    held_out = HeldOut(run.device)
    total, done = min(run.limit, len(run.samples)), 0
    for index, batch in enumerate(_batches(run)):
        inputs = to_tensors(original, batch.feed, run.device)
        if index % _HELD_OUT == 1:
            held_out.add(inputs, matching.run_original(inputs), batch.count)
        else:
            matching.add(inputs)
        done += batch.count
        run.progress(min(1.0, done / total))
    tried = [matches for matches in matching.matches() if matches]
    return None if held_out.is_empty or not tried else _keep_best(pruned, tried, held_out)


def _keep_best(pruned: Graph, tried: Sequence[Mapping[str, Match]], held_out: HeldOut) -> Restoration:
    before = best = held_out.compare(pruned)
    chosen: Mapping[str, Match] = {}
    for matches in tried:
        candidate = pruned.clone()
        _rescale(candidate, matches)
        found = held_out.compare(candidate)
        if found.is_closer_than(best):
            best, chosen = found, matches
    return Restoration(_rescale(pruned, chosen), before, best)


def _rescale(graph: Graph, matches: Mapping[str, Match]) -> list[str]:
    """The names of the nodes that were changed."""
    changed = [site for site in find_rescalable(graph) if site.tensor in matches]
    for site in changed:
        match = matches[site.tensor]
        site.rescale(graph, match.gain.cpu().numpy(), match.shift.cpu().numpy())
    return [site.node.name or site.tensor for site in changed]


def _find_sites(pruned: Graph, original: Graph, kept: Kept) -> Iterator[Site]:
    known = {value.name for node in original.nodes() for value in node.outputs}
    for site in find_rescalable(pruned):
        indices = kept(site.tensor, site.axis) if site.tensor in known else None
        if indices is not None:
            yield Site(site.tensor, site.axis, torch.from_numpy(np.asarray(indices, np.int64)))


def _batches(run: Pass) -> Iterator[Batch]:
    """In mixed order, as a dataset may be sorted by class, and small enough for some to be held out."""
    source = run.samples.source
    if not isinstance(source, Dataset):
        return run.samples.batches(limit=run.limit)
    bytes_each = sum(array.nbytes for array in run.samples.first().values())
    size = min(min(run.limit, len(source)) // _FEWEST_BATCHES, _BATCH_BYTES // max(1, bytes_each))
    return source.batches(run.samples.specs, max(1, size), limit=run.limit, seed=0)
