"""Which blocks go: as many as asked, those that matter least, never all of a stage, attention and MLP together."""

from collections.abc import Callable

import pytest

from worker.engine.graph import Graph
from worker.engine.students.residual_blocks import find_blocks
from worker.engine.students.stages import Unit, choose_units, find_units

MakeGraph = Callable[..., Graph]


def _units(*stages: int) -> list[Unit]:
    """So many units in each stage."""
    return [Unit((), stage) for stage, size in enumerate(stages) for _ in range(size)]


def _gone(units: list[Unit], impacts: list[float], share: float) -> list[int]:
    chosen = choose_units(units, impacts, share)
    return [place for place, unit in enumerate(units) if any(unit is each for each in chosen)]


@pytest.mark.parametrize(
    ("share", "left"), [(0.5, 5), (0.49, 4), (0.6, 5), (0.9, 8), (0.95, 9), (0.99, 9), (0.1, 1), (0.01, 1)]
)
def test_the_share_stays_to_the_nearest_halves_up(share: float, left: int) -> None:
    assert 9 - len(_gone(_units(9), [1.0] * 9, share)) == left


def test_those_of_least_impact_go_the_earlier_of_equals_first() -> None:
    assert _gone(_units(5), [0.3, 0.1, 0.2, 0.1, 0.1], 0.6) == [1, 3]


def test_one_of_each_stage_stays_though_it_matters_less() -> None:
    assert _gone(_units(2, 3), [0.0, 0.1, 5.0, 6.0, 7.0], 0.4) == [0, 2, 3]
    assert _gone(_units(2, 2), [0.0, 0.1, 5.0, 6.0], 0.01) == [0, 2]


def test_a_stage_of_one_block_may_go() -> None:
    assert _gone(_units(1, 2), [0.0, 0.5, 0.6], 0.6) == [0]


def test_a_transformers_attention_and_mlp_are_one_unit(make_transformer: MakeGraph) -> None:
    blocks = find_blocks(make_transformer(3))
    shapes = dict.fromkeys((block.sum.outputs[0].name or "" for block in blocks), (1, 6, 16))
    units = find_units(blocks, shapes)
    assert [[block.sum.name for block in unit.blocks] for unit in units] == [
        ["attend1", "mix1"], ["attend2", "mix2"], ["attend3", "mix3"]
    ]  # fmt: skip
    assert [unit.stage for unit in units] == [0, 0, 0]


def test_blocks_of_one_kind_go_one_by_one_and_shapes_part_stages(make_residual_cnn: MakeGraph) -> None:
    blocks = find_blocks(make_residual_cnn(3, 2))
    sizes = [(1, 16, 8, 8)] * 3 + [(1, 32, 4, 4)] * 2
    shapes = {block.sum.outputs[0].name or "": size for block, size in zip(blocks, sizes, strict=True)}
    assert [unit.stage for unit in find_units(blocks, shapes)] == [0, 0, 0, 1, 1]


def test_a_single_layer_is_no_turn_that_could_go_whole(make_transformer: MakeGraph) -> None:
    blocks = find_blocks(make_transformer(1))
    shapes = dict.fromkeys((block.sum.outputs[0].name or "" for block in blocks), (1, 6, 16))
    assert [len(unit.blocks) for unit in find_units(blocks, shapes)] == [1, 1]


def test_kinds_that_do_not_take_turns_all_through_go_one_by_one(make_transformer: MakeGraph) -> None:
    blocks = find_blocks(make_transformer(3))[:5]
    shapes = dict.fromkeys((block.sum.outputs[0].name or "" for block in blocks), (1, 6, 16))
    assert len(find_units(blocks, shapes)) == 5
