"""Random graphs: any units of the groups can be removed, exactly. The blocks that they are made of are in `blocks`."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.engine.graph.channels.blocks import images, sequences
from tests.engine.graph.channels.blocks.draft import IMAGE, SEQUENCE, Draft
from tests.engine.graph.channels.comparing import ROUNDING, choose, differs, make_feeds
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups

COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
EXAMPLES = 50


@st.composite
def image_models(draw: Callable[..., Any], blocks: Sequence[str] = tuple(IMAGE), most: int = 5) -> Draft:
    """A convolution, blocks, and a classifier or another convolution."""
    draft = Draft(draw, ["N", 3, draw(st.sampled_from(["H", 4, 8])), 4])
    draft.go_on(images.convolve(draft, draft.x, 3, 8, 3), "N", 8, *draft.shape[2:])
    for name in draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=most)):
        IMAGE[name](draft)
    draft.show_some()
    count = images.channels(draft)
    match draw(st.sampled_from(["mean", "flat", "map"])):
        case "mean":
            flat = draft.add("Flatten", draft.add("GlobalAveragePool", draft.x))
            draft.go_on(draft.add("Gemm", flat, draft.floats(3, count), draft.floats(3), transB=1))
        case "flat" if isinstance(draft.shape[2], int):
            total = count * draft.shape[2] * int(draft.shape[3])
            flat = draft.add("Reshape", draft.x, draft.target("N", total))
            draft.go_on(draft.add("MatMul", flat, draft.floats(total, 3)))
        case _:
            draft.go_on(images.convolve(draft, draft.x, count, 3))
    return draft


@st.composite
def sequence_models(draw: Callable[..., Any], blocks: Sequence[str] = tuple(SEQUENCE), most: int = 4) -> Draft:
    """A projection or an embedding, blocks, and logits, perhaps by the same matrix."""
    length, is_embedded = draw(st.sampled_from(["L", 5])), draw(st.booleans())
    draft = Draft(draw, ["N", length], TensorProto.INT64) if is_embedded else Draft(draw, ["N", length, 5])
    table = draft.floats(5, 6)
    found = draft.add("Gather", table, draft.x) if is_embedded else draft.add("MatMul", draft.x, table)
    draft.go_on(found, "N", length, 6)
    for name in draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=most)):
        SEQUENCE[name](draft)
    draft.show_some()
    normal = sequences.normalized(draft, draft.x)
    if draft.shape[2] == 6 and draft.flag():
        draft.go_on(draft.add("MatMul", normal, draft.add("Transpose", table)))
    else:
        draft.go_on(sequences.linear(draft, normal, sequences.width(draft), 4))
    return draft


def prune_somehow(draft: Draft) -> None:
    """Expect what is left after any choice of units to compute what the masked graph does; and once more."""
    graph = Graph.from_proto(draft.finish())
    graph.infer_shapes()
    feeds = make_feeds(graph)
    for _ in range(2):
        groups = find_groups(graph)
        if not groups.groups:
            return
        gone = choose(groups, draft.integer(0, 1 << 16), draft.one_of([0.1, 0.4, 0.9]))
        pruned = groups.remove(gone)
        pruned.check()
        assert differs(groups.masked(gone), pruned, feeds) < ROUNDING
        graph = pruned


@pytest.mark.parametrize("name", IMAGE)
@settings(max_examples=5, **COMMON)
@given(data=st.data())
def test_one_block_of_an_image_model(name: str, data: st.DataObject) -> None:
    prune_somehow(data.draw(image_models([name], 1)))


@pytest.mark.parametrize("name", SEQUENCE)
@settings(max_examples=8, **COMMON)
@given(data=st.data())
def test_one_block_of_a_sequence_model(name: str, data: st.DataObject) -> None:
    prune_somehow(data.draw(sequence_models([name], 1)))


@settings(max_examples=EXAMPLES, **COMMON)
@given(draft=image_models())
def test_an_image_model(draft: Draft) -> None:
    prune_somehow(draft)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, **COMMON)
@given(draft=sequence_models())
def test_a_sequence_model(draft: Draft) -> None:
    prune_somehow(draft)
