"""The choice of options as an integer program, solved by HiGHS through SciPy. What its numbers mean is not known."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MOST_NODES = 50_000
"""Of the search tree: beyond it the best found so far is taken, which does not depend on the machine's speed."""


@dataclass(frozen=True)
class Part:
    """Losses, of which the sum is to be least, and costs, of which it is limited; one array in shape."""

    losses: NDArray[np.float64]
    costs: NDArray[np.float64]


@dataclass(frozen=True)
class Program:
    """`options` are of [U, C], `is_possible` false for those that may not be chosen.

    `pairs`, of [L], count where just one of both `units_of_pairs`, [L, 2], has an option that `is_apart`, [C].
    """

    options: Part
    pairs: Part
    is_possible: NDArray[np.bool_]
    units_of_pairs: NDArray[np.intp]
    is_apart: NDArray[np.bool_]


def solve(program: Program, limit: float) -> NDArray[np.intp] | None:
    """The option of each unit, [U], with the least losses at costs of at most `limit`; None where HiGHS finds none.

    One binary variable for each unit and option, of which exactly one is 1 for each unit; then one for each pair, which
    is at least the difference of its units.
    """
    # No other method needs SciPy, and it ships no stubs.
    from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]  # noqa: PLC0415

    (units, options), pairs = program.is_possible.shape, len(program.units_of_pairs)
    one_each = np.hstack([np.kron(np.eye(units), np.ones(options)), np.zeros((units, pairs))])
    losses = np.concatenate([program.options.losses.ravel(), program.pairs.losses])
    costs = np.concatenate([program.options.costs.ravel(), program.pairs.costs])
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(costs, -np.inf, limit)]
    if pairs:
        constraints.append(LinearConstraint(_differences(program), -np.inf, 0))
    with _stdout_closed():
        solved = milp(
            losses,
            integrality=np.concatenate([np.ones(units * options), np.zeros(pairs)]),
            bounds=Bounds(0, np.concatenate([program.is_possible.ravel(), np.ones(pairs)])),
            constraints=constraints,
            options={"mip_rel_gap": 0, "node_limit": _MOST_NODES},
        )
    return None if solved.x is None else solved.x[: units * options].reshape(units, options).argmax(axis=1)


def _differences(program: Program) -> NDArray[np.float64]:
    """Rows that are at most 0 where a pair's variable is at least the difference of its units, either way."""
    units = len(program.is_possible)
    first, second = (np.eye(units)[side] for side in program.units_of_pairs.T)
    between, own = np.kron(first - second, program.is_apart.astype(float)), np.eye(len(first))
    return np.block([[between, -own], [-between, -own]])


@contextmanager
def _stdout_closed() -> Iterator[None]:
    """HiGHS prints a line now and then, whatever it is told, and stdout belongs to results."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
