"""What inputs are taken for, and the values they get."""

from collections.abc import Callable

import numpy as np
import pytest

from worker.engine.graph import Graph
from worker.engine.samples import Guess
from worker.engine.session import Array
from worker.engine.synthesis.inputs import Draw, Role, draw, find_parts

Parse = Callable[..., Graph]
GUESS = Guess(size=5, highest=2, seed=0)


def drawn(graph: Graph, rows: int = 400) -> dict[str, Array]:
    how = Draw(rows, GUESS, np.random.default_rng(0))
    return {part.spec.name: draw(part, how) for part in find_parts(graph)}


@pytest.fixture
def language_model(parse_graph: Parse) -> Graph:
    """Tokens that look up 20 rows through a cast, their positions 7 and types 2; a mask beside them."""
    text = """g (int32[N, L] ids, int64[N, L] token_type_ids, int64[N, L] position_ids, int64[N, L] visible,
               float[N, L] attention_mask, float[N, 4] extra) => (float[N, L, 4] y) {
        wide = Cast <to = 7> (ids)  e = Gather (words, wide)  t = Gather (types, token_type_ids)
        p = Gather (places, position_ids)  v = Cast <to = 1> (visible)  m = Mul (v, attention_mask)
        u = Unsqueeze (m, last)  s = Sum (e, t, p)  y = Mul (s, u) }"""
    tables = {"words": (20, 4), "types": (2, 4), "places": (7, 4)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in tables.items()}
    return parse_graph(text, **arrays, last=np.array([2]))


def test_roles_in_a_language_model(language_model: Graph) -> None:
    roles = [(part.spec.name, part.role, part.rows) for part in find_parts(language_model)]
    assert roles == [
        ("ids", Role.ROWS, 20),
        ("token_type_ids", Role.ZEROS, 2),
        ("position_ids", Role.COUNTING, 7),
        ("visible", Role.ONES, None),
        ("attention_mask", Role.ONES, None),
        ("extra", Role.MEASURED, None),
    ]


def test_tokens_stay_in_the_table_and_use_all_of_it(language_model: Graph) -> None:
    values = drawn(language_model)
    assert values["ids"].dtype == np.int32
    assert values["ids"].shape == (400, 5)
    assert np.array_equal(np.unique(values["ids"]), np.arange(20))
    assert np.array_equal(values["position_ids"], np.broadcast_to(np.arange(5), (400, 5)))
    assert {np.unique(values[name]).tolist()[0] for name in ("visible", "attention_mask")} == {1}
    assert not values["token_type_ids"].any()


def test_the_smallest_of_several_tables_bounds_an_index(parse_graph: Parse) -> None:
    text = "g (int64[N] i) => (float[N, 2] y) { a = Gather (big, i) b = Gather (small, i) y = Add (a, b) }"
    graph = parse_graph(text, big=np.ones((50, 2), np.float32), small=np.ones((3, 2), np.float32))
    assert drawn(graph)["i"].max() == 2


def test_pictures_in_bytes_fill_their_range(parse_graph: Parse) -> None:
    graph = parse_graph("g (uint8[N, 8, 8, 3] x) => (float[N, 8, 8, 3] y) { y = Cast <to = 1> (x) }")
    (part,) = find_parts(graph)
    assert (part.role, part.channels, part.colours) == (Role.BYTES, 3, 3)
    values = drawn(graph)["x"].astype(float)
    assert values.mean() == pytest.approx(127.5, abs=8)
    assert values.std() == pytest.approx(64, rel=0.15)


@pytest.mark.parametrize(
    ("shape", "channels", "smooth"),
    [("N, 3, 8, 8", 1, [2, 3]), ("N, 8, 8, 3", 3, [1, 2]), ("N, 40, 6", 2, [1, 2]), ("N, 6", 1, [])],
)
def test_channels_and_smoothness(parse_graph: Parse, shape: str, channels: int | None, smooth: list[int]) -> None:
    graph = parse_graph(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu (x) }}")
    (part,) = find_parts(graph)
    assert (part.channels, list(part.smooth_axes)) == (channels, smooth)
    assert drawn(graph)["x"].std() == pytest.approx(1, abs=0.15)  # around means of their own it is 1
