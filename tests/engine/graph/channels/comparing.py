"""Compares what is left of a graph with the masked whole, on numbers made up. No graphs of its own."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product

import numpy as np

from app.contracts.facts import TensorSpec
from app.contracts.failure import SlimlineError
from worker.engine.data.fit import to_numpy
from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, find_groups
from worker.engine.session import Array, open_graph, run_session

Feed = dict[str, Array]
ROUNDING = 1e-5
"""Of the largest number of an output: what another order of float32 sums may cost."""
SMALL = 0.1
"""Of outputs below this the share is one of this: a probability near 0 is rounded as one near 1, by 6e-8."""
BATCHES = (1, 5)
FREE = (12, 40, 320)
"""Sizes that the analysis does not try."""


def make_feeds(graph: Graph, given: Feed | None = None) -> list[Feed]:
    """For each batch size numbers that the graph runs on, with the first of the free sizes that it takes.

    `given` are inputs of which not every number will do.
    """
    session = open_graph(graph, threads=1)
    feeds = []
    for sizes in product(BATCHES, FREE):
        feed = {spec.name: (given or {}).get(spec.name, _fill(spec, *sizes)) for spec in graph.inputs}
        if not feeds or not any(size == sizes[0] for size, _ in feeds):
            with suppress(SlimlineError):
                run_session(session, feed)
                feeds.append((sizes[0], feed))
    return [feed for _, feed in feeds]


def _fill(spec: TensorSpec, batch: int, free: int) -> Array:
    """Random numbers; the first free dimension is taken for the batch."""
    places = [place for place, dim in enumerate(spec.shape) if not isinstance(dim, int)]
    shape = [
        dim if isinstance(dim, int) else batch if place == places[0] else free for place, dim in enumerate(spec.shape)
    ]
    generator, kind = np.random.default_rng(0), to_numpy(spec)
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    return generator.integers(0, 2 if kind == np.bool_ else 5, shape).astype(kind)


def differs(reference: Graph, other: Graph, feeds: Sequence[Mapping[str, Array]]) -> float:
    """The largest difference of any output, as a share of its largest number; infinite where shapes or types differ."""
    assert feeds
    sessions = [open_graph(graph, threads=1) for graph in (reference, other)]
    return max(
        _distance(wanted, got)
        for feed in feeds
        for wanted, got in zip(*(run_session(session, feed) for session in sessions), strict=True)
    )


def _distance(wanted: Array, got: Array) -> float:
    if (wanted.shape, wanted.dtype) != (got.shape, got.dtype):
        return float("inf")
    if wanted.dtype.kind != "f":
        return float(not np.array_equal(wanted, got))
    assert np.isfinite(wanted).all()
    distance = np.abs(wanted.astype(np.float64) - got).max(initial=0)
    return float(distance / max(np.abs(wanted).max(initial=0), SMALL))


def choose(groups: Groups, seed: int = 0, share: float | None = None) -> list[int]:
    """Some of the units of every group, 30 to 50 % of each where no share is given, but never all."""
    generator = np.random.default_rng(seed)
    gone: list[int] = []
    for group in groups.groups:
        wanted = len(group.units) * (generator.uniform(0.3, 0.5) if share is None else share)
        count = min(max(1, round(wanted)), len(group.units) - 1)
        gone += generator.choice(group.units, count, replace=False).tolist()
    return gone


def ties(groups: Groups) -> list[str]:
    """Every group as `units: constant[axis] constant[axis]`, in the order of the names."""
    return sorted(
        f"{len(group.units)}: " + " ".join(sorted(f"{member.constant}[{member.axis}]" for member in group.members))
        for group in groups.groups
    )


def prune_exactly(graph: Graph, seeds: Sequence[int] = (0, 1)) -> Groups:
    """The groups of a graph, of which any choice must be removable exactly."""
    groups = find_groups(graph)
    assert groups.groups, "nothing can be removed"
    feeds = make_feeds(graph)
    for seed in seeds:
        gone = choose(groups, seed)
        pruned = groups.remove(gone)
        pruned.check()
        assert count(pruned) < count(graph)
        assert differs(groups.masked(gone), pruned, feeds) < ROUNDING
    return groups


def count(graph: Graph) -> int:
    """Stored floats."""
    arrays = (graph.array(value) for value in graph.initializers())
    return sum(array.size for array in arrays if array.dtype.kind == "f")


def obstacles(graph: Graph) -> dict[str, str]:
    """Of every layer of whose outputs none can go the reason, by the name of its weight."""
    groups = find_groups(graph)
    reasons = {layer.weight.name or "": groups.obstacle(layer) for layer in groups.graph.layers()}
    return {name: reason for name, reason in reasons.items() if reason}
