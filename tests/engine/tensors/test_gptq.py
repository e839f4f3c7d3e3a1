"""GPTQ: equal to the textbook's loop, and closer in the outputs than rounding to nearest."""

import numpy as np
import pytest
import torch

from worker.engine.tensors.blockwise import Blocks, Grid, fit, output_error
from worker.engine.tensors.gptq import DAMPING, gptq


def correlated(samples: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Inputs as after a ReLU: few directions, unequal strengths, a mean."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(columns // 3, columns, generator=generator, dtype=torch.float64)
    mixed = torch.randn(samples, columns // 3, generator=generator, dtype=torch.float64) @ directions
    return mixed.relu() + 0.1 * torch.randn(samples, columns, generator=generator, dtype=torch.float64)


def moments(inputs: torch.Tensor) -> torch.Tensor:
    """[1, K, K]."""
    return (inputs.T @ inputs / len(inputs)).unsqueeze(0)


def textbook(weight: np.ndarray, hessian: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Optimal brain quantization (Frantar et al. 2022, equation 2), strongest inputs first, column by column."""
    left, codes = weight.astype(np.float64).copy(), np.zeros(weight.shape)
    scale, zero = (each.numpy().astype(np.float64) for each in blocks.spread(weight.shape[1]))
    damped = hessian + DAMPING * np.diag(hessian).mean() * np.eye(len(hessian))
    remaining = list(np.argsort(-np.diag(hessian), kind="stable"))
    inverse = np.linalg.inv(damped)
    while remaining:
        column = remaining.pop(0)
        codes[:, column] = np.clip(
            np.rint(left[:, column] / scale[:, column]) + zero[:, column], 0, blocks.grid.highest
        )
        lost = left[:, column] - (codes[:, column] - zero[:, column]) * scale[:, column]
        for other in remaining:
            left[:, other] -= lost * inverse[column, other] / inverse[column, column]
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rows", "columns", "size"), [(7, 40, 16), (3, 200, 32), (1, 150, 150)])
def test_equals_the_textbook(rows: int, columns: int, size: int, symmetric: bool) -> None:
    inputs = correlated(500, columns)
    hessian = moments(inputs)
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    blocks = fit(weight, Grid(4, symmetric, size))
    expected = textbook(weight.numpy(), hessian[0].numpy(), blocks)
    np.testing.assert_array_equal(gptq(weight, hessian, blocks), expected)


def test_groups_are_rounded_as_if_each_were_alone() -> None:
    groups = [correlated(200, 24, seed) for seed in range(3)]
    hessian = torch.cat([moments(each) for each in groups])
    weight = torch.randn(12, 24, generator=torch.Generator().manual_seed(1))
    grid = Grid(4, symmetric=False, block_size=16)
    alone = [gptq(part, one.unsqueeze(0), fit(part, grid)) for part, one in zip(weight.chunk(3), hessian, strict=True)]
    assert torch.equal(gptq(weight, hessian, fit(weight, grid)), torch.cat(alone))


@pytest.mark.parametrize("seed", range(3))
def test_outputs_are_closer_than_by_rounding_to_nearest(seed: int) -> None:
    inputs = correlated(1000, 96, seed)
    hessian = moments(inputs)
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(seed + 10))
    blocks = fit(weight, Grid(4, symmetric=False, block_size=32), hessian[0].diagonal().expand(24, -1))

    def error(codes: torch.Tensor) -> float:
        return float(((blocks.decode(codes) - weight).double() @ inputs.T).square().sum())

    assert error(gptq(weight, hessian, blocks)) < 0.5 * error(blocks.encode(weight))


def test_without_correlation_it_is_rounding_to_nearest() -> None:
    weight = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    blocks = fit(weight, Grid(4, symmetric=False, block_size=16))
    codes = gptq(weight, torch.diag(torch.rand(48, generator=torch.Generator().manual_seed(1))).unsqueeze(0), blocks)
    assert torch.equal(codes, blocks.encode(weight))


def test_inputs_that_are_always_0_do_no_harm() -> None:
    inputs = correlated(300, 32)
    inputs[:, [0, 5]] = 0
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    blocks = fit(weight, Grid(4, symmetric=False, block_size=32))
    codes, nearest = gptq(weight, moments(inputs), blocks), blocks.encode(weight)
    assert torch.equal(codes[:, [0, 5]], nearest[:, [0, 5]])
    assert not torch.equal(codes, nearest)
    assert torch.equal(gptq(weight, torch.zeros(1, 32, 32), blocks), nearest)


def test_fewer_inputs_than_columns_are_enough() -> None:
    inputs = correlated(10, 64)
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    blocks = fit(weight, Grid(4, symmetric=False, block_size=32))
    hessian = moments(inputs)
    codes = gptq(weight, hessian, blocks)
    errors = [
        output_error(blocks.decode(each) - weight, hessian.float()).sum() for each in (codes, blocks.encode(weight))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_stay_zero_and_the_others_still_make_good_what_is_lost(symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 60, generator=generator)
    weight[torch.rand(8, 60, generator=generator) < 0.5] = 0
    hessian = moments(correlated(500, 60))
    blocks = fit(weight, Grid(4, symmetric, 32))
    rounded, nearest = (blocks.decode(codes) for codes in (gptq(weight, hessian, blocks), blocks.encode(weight)))
    assert (rounded[weight == 0] == 0).all()
    lost = [output_error((each - weight).double(), hessian).sum() for each in (rounded, nearest)]
    assert lost[0] < 0.8 * lost[1]
