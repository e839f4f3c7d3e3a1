"""Statistics after pruning are those before it, on the same data; outputs come closer or the graph stays as it was."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups
from worker.engine.ingest import ingest_model
from worker.engine.pruning.channel_statistics import Matching, Site
from worker.engine.pruning.closeness import Closeness
from worker.engine.pruning.rescalable import Rescalable
from worker.engine.pruning.rescaling import find_rescalable
from worker.engine.pruning.restoration import Kept, restore_statistics
from worker.engine.quantization.calibration import Pass, watch
from worker.engine.samples import Samples
from worker.engine.tensors import importance

MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
Draw = Callable[..., np.ndarray]

FOLDED = """g (float[n, 3, 8, 8] x) => (float[n, 5] y) {
    [one] a = Conv <pads=[1, 1, 1, 1]> (x, w1, b1)  r = Relu (a)
    [two] c = Conv <pads=[1, 1, 1, 1]> (r, w2)  s = Relu (c)
    p = GlobalAveragePool (s)  f = Flatten (p)
    [last] y = Gemm <transB=1> (f, w3, b3)
}"""
NORMED = """g (float[n, 3, 8, 8] x) => (float[n, 5] y) {
    a = Conv <pads=[1, 1, 1, 1]> (x, w1)  [one] d = BatchNormalization (a, g1, h1, m1, v1)  r = Relu (d)
    c = Conv <pads=[1, 1, 1, 1]> (r, w2)  [two] e = BatchNormalization (c, g2, h2, m2, v2)  s = Relu (e)
    p = GlobalAveragePool (s)  f = Flatten (p)
    [last] y = Gemm <transB=1> (f, w3, b3)
}"""


def weights_of(text: str, draw: Draw, width: int = 12) -> dict[str, np.ndarray]:
    """Channels differ in strength, and are no zero mean: statistics then change where some go."""
    strengths = np.linspace(0.2, 2, width, dtype=np.float32)
    found = {
        "w1": draw(width, 3, 3, 3) * strengths[:, None, None, None],
        "w2": draw(width, width, 3, 3) * strengths[:, None, None, None] * 0.2,
        "w3": draw(5, width),
        "b3": draw(5),
    }
    if text == FOLDED:
        return {**found, "b1": np.abs(draw(width))}
    vectors = {name: np.abs(draw(width)) + 0.5 for name in ("g1", "h1", "v1", "g2", "h2", "v2")}
    return {**found, **vectors, "m1": draw(width), "m2": draw(width)}


def prune(graph: Graph, amount: float) -> tuple[Graph, Graph, Kept]:
    """A copy without the weakest share of every group's units, the graph it is a copy of, and what is left of axes."""
    groups, gone = find_groups(graph), list[int]()
    for group in groups.groups:
        scores = np.zeros(groups.count + 1)
        for member in group.members:
            if groups.graph.array(member.constant).dtype.kind == "f":
                np.add.at(scores, member.units, importance.l1(groups.graph.array(member.constant), member.axis))
        order = group.units[np.argsort(scores[group.units], kind="stable")]
        gone += [int(unit) for unit in order[: round(amount * len(order))]]
    return groups.remove(gone), groups.graph, partial(groups.kept, gone)


def statistics(graph: Graph, name: str, axis: int, samples: Samples) -> NDArray[np.float64]:
    """Mean and standard deviation of each channel of a tensor, [2, C]."""
    seen: list[torch.Tensor] = []
    watch(graph, [(name, seen.append)], Pass(samples, 10_000))
    rows = torch.cat([each.movedim(axis, -1).flatten(0, -2) for each in seen]).double()
    return torch.stack([rows.mean(0), rows.std(0, correction=0)]).numpy()


def site_of(found: Rescalable, kept: Kept) -> Site:
    indices = kept(found.tensor, found.axis)
    assert indices is not None
    return Site(found.tensor, found.axis, torch.from_numpy(indices))


@pytest.mark.parametrize("text", [FOLDED, NORMED], ids=["folded", "normed"])
def test_every_channel_has_the_statistics_it_had(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw, text: str
) -> None:
    pruned, original, kept = prune(make_graph(text, **weights_of(text, draw)), 0.3)
    samples = make_samples(original, {"x": draw(64, 3, 8, 8) + 0.5})
    sites = [site_of(found, kept) for found in find_rescalable(pruned)]
    matching = Matching(original, pruned, sites, [0.0])
    matching.add([torch.from_numpy(batch.feed["x"]) for batch in samples.batches()])
    [matches] = matching.matches()
    before = {site.tensor: statistics(pruned, site.tensor, site.axis, samples) for site in sites}
    for found in find_rescalable(pruned):
        if found.tensor in matches:
            match = matches[found.tensor]
            found.rescale(pruned, match.gain.numpy(), match.shift.numpy())
    assert [site.node.name for site in find_rescalable(pruned) if site.tensor in matches] == ["two", "last"]
    for site in sites:
        wanted = statistics(original, site.tensor, site.axis, samples)[:, site.kept.numpy()]
        np.testing.assert_allclose(statistics(pruned, site.tensor, site.axis, samples), wanted, atol=2e-4)
        assert (np.abs(before[site.tensor] - wanted).max() > 0.05) == (site.tensor in matches)


def test_batches_add_up_for_every_shrinkage(make_graph: MakeGraph, draw: Draw) -> None:
    """At the first layer whose inputs changed, before which nothing is matched."""
    pruned, original, kept = prune(make_graph(FOLDED, **weights_of(FOLDED, draw)), 0.3)
    site = next(site_of(found, kept) for found in find_rescalable(pruned) if found.node.name == "two")
    x = torch.from_numpy(draw(24, 3, 8, 8) + 0.5)
    found = []
    for parts in (1, 3):
        matching = Matching(original, pruned, [site], [0.0, 1.0])
        for part in x.chunk(parts):
            matching.add([part])
        found.append([matches[site.tensor] for matches in matching.matches()])
    for whole, stream in zip(*found, strict=True):
        torch.testing.assert_close(stream.gain, whole.gain, rtol=1e-5, atol=0)
        torch.testing.assert_close(stream.shift, whole.shift, rtol=1e-4, atol=1e-5)
    assert (found[0][1].gain < found[0][0].gain).all()


@pytest.mark.parametrize("text", [FOLDED, NORMED], ids=["folded", "normed"])
def test_outputs_come_closer(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw, text: str) -> None:
    pruned, original, kept = prune(make_graph(text, **weights_of(text, draw)), 0.3)
    samples = make_samples(original, *({"x": draw(16, 3, 8, 8) + 0.5} for _ in range(8)))
    shares: list[float] = []
    found = restore_statistics(pruned, original, kept, Pass(samples, 1000, progress=shares.append))
    assert found is not None
    assert list(found.nodes) == ["two", "last"]
    assert found.after.sqnr_db > found.before.sqnr_db + 3
    assert shares == sorted(shares)
    assert shares[-1] == 1
    pruned.check()


def test_what_was_not_pruned_stays_to_the_last_bit(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw
) -> None:
    graph = make_graph(NORMED, **weights_of(NORMED, draw))
    pruned, original, kept = prune(graph, 0.0)
    samples = make_samples(original, *({"x": draw(16, 3, 8, 8)} for _ in range(4)))
    before = pruned.proto().SerializeToString(deterministic=True)
    assert restore_statistics(pruned, original, kept, Pass(samples, 1000)) is None
    assert pruned.proto().SerializeToString(deterministic=True) == before


def test_the_graph_stays_where_outputs_come_no_closer(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw
) -> None:
    """What is held out, the second batch, is unlike the others: what is right for them is wrong for it."""
    pruned, original, kept = prune(make_graph(FOLDED, **weights_of(FOLDED, draw)), 0.1)
    others = [{"x": 100 * draw(16, 3, 8, 8) - 200} for _ in range(3)]
    samples = make_samples(original, others[0], {"x": draw(16, 3, 8, 8)}, *others[1:])
    before = pruned.proto().SerializeToString(deterministic=True)
    found = restore_statistics(pruned, original, kept, Pass(samples, 1000))
    assert found is not None
    assert (list(found.nodes), found.before) == ([], found.after)
    assert pruned.proto().SerializeToString(deterministic=True) == before


def test_the_original_is_not_touched(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    pruned, original, kept = prune(make_graph(FOLDED, **weights_of(FOLDED, draw)), 0.3)
    samples = make_samples(original, *({"x": draw(16, 3, 8, 8)} for _ in range(4)))
    before = original.proto().SerializeToString(deterministic=True)
    restore_statistics(pruned, original, kept, Pass(samples, 1000))
    assert original.proto().SerializeToString(deterministic=True) == before


def test_one_batch_is_not_enough_to_judge_by(make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw) -> None:
    pruned, original, kept = prune(make_graph(FOLDED, **weights_of(FOLDED, draw)), 0.3)
    samples = make_samples(original, {"x": draw(16, 3, 8, 8)})
    assert restore_statistics(pruned, original, kept, Pass(samples, 1000)) is None


def test_channels_that_are_not_known_are_left_alone(
    make_graph: MakeGraph, make_samples: MakeSamples, draw: Draw
) -> None:
    pruned, original, kept = prune(make_graph(FOLDED, **weights_of(FOLDED, draw)), 0.3)
    samples = make_samples(original, *({"x": draw(16, 3, 8, 8) + 0.5} for _ in range(4)))
    found = restore_statistics(
        pruned, original, lambda name, axis: kept(name, axis) if name == "y" else None, Pass(samples, 1000)
    )
    assert found is not None
    assert list(found.nodes) == ["last"]


def test_weights_in_a_body(
    make_if_model: Callable[..., onnx.ModelProto], make_samples: MakeSamples, draw: Draw
) -> None:
    graph = Graph.from_proto(make_if_model())
    graph.infer_shapes()
    pruned, original, kept = prune(graph, 0.4)
    samples = make_samples(original, *({"x": draw(32, 8) + 1, "wide": np.array(True)} for _ in range(8)))
    found = restore_statistics(pruned, original, kept, Pass(samples, 1000))
    assert found is not None
    assert found.after.is_closer_than(found.before)


def test_closeness_is_told_by_direction_and_then_by_size() -> None:
    small_but_wrong, right_way = Closeness(0.1, 0.5), Closeness(0.6, -1.0)
    assert right_way.is_closer_than(small_but_wrong)
    assert Closeness(1.0, 3.0).is_closer_than(Closeness(1.0, 2.0))
    assert not Closeness(1.0, 2.0).is_closer_than(Closeness(1.0, 2.0))


def test_a_real_model_gets_most_of_its_accuracy_back(shared: Path) -> None:
    graph, _ = ingest_model(shared / "models" / "digits32_resnet18.onnx")
    pruned, original, kept = prune(graph, 0.2)
    with open_dataset(shared / "data" / "digits32_calibrate.npz") as data:
        found = restore_statistics(pruned, original, kept, Pass(Samples(original.inputs, data), 64))
    assert found is not None
    assert len(found.nodes) == 20
    assert found.before.cosine < 0.6
    assert found.after.cosine > 0.85
