"""Every model of the zoo, as torch exports it: exact at unseen sizes, and the layers that must be prunable are."""

from pathlib import Path

from torch import Tensor

from benchmarks.zoo.entry import Exported
from tests.engine.graph.channels.comparing import ROUNDING, choose, differs
from worker.engine.graph.channels import find_groups
from worker.engine.ingest import ingest_model

HEADS = {"encoder", "bert", "gpt2", "llama", "t5", "whisper", "vit", "clip", "swin", "segformer", "detr"}
RECURRENT = {"lstm", "bilstm", "gru"}


def test_the_zoo(exported: Exported) -> None:
    kinds = {check(path, exported) for path in (exported.plain, exported.optimized)}
    assert len(kinds) == 1, "an optimized export is pruned like a plain one"
    (found,) = kinds
    assert ("head" in found) == (exported.entry.name in HEADS)
    assert ("hidden unit" in found) == (exported.entry.name in RECURRENT)
    assert "channel" in found or exported.entry.name in RECURRENT


def check(path: Path, exported: Exported) -> frozenset[str]:
    """The kinds of the groups of a file that was pruned exactly."""
    graph, _ = ingest_model(path)
    groups = find_groups(graph)
    gone = choose(groups)
    examples = [exported.entry.example(batch) for batch in (1, 3)]
    examples += [exported.entry.example(2, extent) for extent in exported.entry.other_extents]
    feeds = [feed(example) for example in examples]
    assert differs(groups.masked(gone), groups.remove(gone), feeds) < ROUNDING
    return frozenset(group.kind for group in groups.groups)


def feed(example: dict[str, Tensor]) -> dict[str, object]:
    return {name: tensor.numpy() for name, tensor in example.items()}
