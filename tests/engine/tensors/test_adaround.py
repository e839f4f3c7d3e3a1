"""AdaRound: lowers the outputs' error, never raises a row's, moves by one step at most, and repeats itself."""

import numpy as np
import pytest
import torch

from worker.engine.tensors.adaround import adaround
from worker.engine.tensors.blockwise import Blocks, Grid, fit

ROWS, COLUMNS = 12, 48
ITERATIONS = 200


@pytest.fixture
def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(600, 16, generator=generator) @ torch.randn(16, COLUMNS, generator=generator)
    return mixed.relu() + 0.1 * torch.randn(600, COLUMNS, generator=generator)


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


def moments(inputs: torch.Tensor) -> torch.Tensor:
    """[1, K, K]."""
    return (inputs.T @ inputs / len(inputs)).unsqueeze(0)


def errors(codes: torch.Tensor, blocks: Blocks, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return (inputs.double() @ (blocks.decode(codes) - weight).double().T).square().sum(0)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_row_is_as_close_or_closer(
    inputs: torch.Tensor, weight: torch.Tensor, bits: int, symmetric: bool
) -> None:
    blocks = fit(weight, Grid(bits, symmetric, 16))
    codes, nearest = adaround(weight, moments(inputs), blocks, ITERATIONS), blocks.encode(weight)
    learned, plain = (errors(each, blocks, weight, inputs) for each in (codes, nearest))
    assert (learned <= plain * (1 + 1e-5)).all()
    assert learned.sum() < 0.6 * plain.sum()


def test_a_weight_goes_to_the_code_below_or_above(inputs: torch.Tensor, weight: torch.Tensor) -> None:
    blocks = fit(weight, Grid(4, symmetric=False, block_size=16))
    codes = adaround(weight, moments(inputs), blocks, ITERATIONS)
    scale, zero = blocks.spread(COLUMNS)
    exact = (weight / scale + zero).clamp(0, 15)
    assert ((codes - exact).abs() <= 1).all()
    assert torch.equal(codes, codes.round())
    assert not torch.equal(codes, blocks.encode(weight))


def test_groups_of_rows_have_inputs_of_their_own(inputs: torch.Tensor, weight: torch.Tensor) -> None:
    others = inputs.flip(1)
    blocks = fit(weight, Grid(4, symmetric=False, block_size=16))
    codes = adaround(weight, torch.cat([moments(inputs), moments(others)]), blocks, ITERATIONS)
    for own, rows in ((inputs, slice(0, ROWS // 2)), (others, slice(ROWS // 2, ROWS))):
        part = Blocks(blocks.grid, blocks.scale[rows], blocks.zero[rows])
        learned, plain = (errors(each[rows], part, weight[rows], own) for each in (codes, blocks.encode(weight)))
        assert learned.sum() < 0.6 * plain.sum()


def test_where_nothing_can_be_gained_it_stays_nearest(weight: torch.Tensor) -> None:
    blocks = fit(weight, Grid(4, symmetric=False, block_size=16))
    assert torch.equal(adaround(weight, torch.eye(COLUMNS).unsqueeze(0), blocks, iterations=50), blocks.encode(weight))
    assert torch.equal(adaround(weight, torch.zeros(1, COLUMNS, COLUMNS), blocks, iterations=5), blocks.encode(weight))


def test_small_rows_get_most_of_what_rounding_can_gain() -> None:
    """Against every one of the 2^8 ways to round the 8 weights of a row up or down."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(100, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    weight = torch.randn(64, 8, generator=generator)
    blocks = fit(weight, Grid(4, symmetric=False, block_size=8))
    scale, zero = blocks.spread(8)
    below = (weight / scale + zero).floor()
    ways = torch.tensor(np.array(np.meshgrid(*[[0, 1]] * 8)).reshape(8, -1).T)
    best = torch.stack([errors((below + way).clamp(0, 15), blocks, weight, inputs) for way in ways]).amin(0)
    codes = adaround(weight, moments(inputs), blocks), blocks.encode(weight)
    found, nearest = (errors(each, blocks, weight, inputs) for each in codes)
    assert (found >= best * (1 - 1e-5)).all()
    assert (nearest - found).sum() > 0.75 * (nearest - best).sum() > 0


def test_it_repeats_itself(inputs: torch.Tensor, weight: torch.Tensor) -> None:
    blocks = fit(weight, Grid(4, symmetric=False, block_size=16))
    first, second = (adaround(weight, moments(inputs), blocks, iterations=60) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_stay_zero_and_the_others_still_make_good_what_is_lost(
    inputs: torch.Tensor, weight: torch.Tensor, symmetric: bool
) -> None:
    is_zero = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    sparse = weight.masked_fill(is_zero, 0)
    blocks = fit(sparse, Grid(4, symmetric, block_size=16))
    codes = adaround(sparse, moments(inputs), blocks, ITERATIONS)
    assert (blocks.decode(codes)[is_zero] == 0).all()
    learned, nearest = (errors(each, blocks, sparse, inputs).sum() for each in (codes, blocks.encode(sparse)))
    assert learned < 0.8 * nearest
