"""NonMaxSuppression. How much it gives depends on the data: it waits for the device and is computed in NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

# Suffixes: N boxes, C classes, M boxes still in the race, K boxes chosen.
Array = npt.NDArray[Any]
_BLOCK = 256
"""Boxes looked at together: most are never reached where few are asked for."""


@operator("NonMaxSuppression", host=(2, 3, 4), fixed=(0, 1))
def non_max_suppression(node: Node) -> Run:
    """Rows (batch, class, box), best first; a box goes where a better one of its class overlaps over the threshold."""
    is_centered = bool(node.get("center_point_box", 0))

    def run(
        boxes: torch.Tensor, scores: torch.Tensor, most: Any = None, overlap: Any = None, floor: Any = None
    ) -> torch.Tensor:
        most, overlap = (0 if numbers is None else as_scalar(numbers) for numbers in (most, overlap))
        rows = []
        for batch, (boxes_N4, scores_CN) in enumerate(zip(_to_numpy(boxes), _to_numpy(scores), strict=True)):  # noqa: N806
            corners_4N = _corners(boxes_N4, is_centered=is_centered)  # noqa: N806
            for kind, scores_N in enumerate(scores_CN):  # noqa: N806
                ranked_M = np.argsort(-scores_N, kind="stable")  # noqa: N806
                if floor is not None:
                    ranked_M = ranked_M[scores_N[ranked_M] > np.float32(as_scalar(floor))]  # noqa: N806
                rows += [(batch, kind, box) for box in _chosen(corners_4N, ranked_M, most, np.float32(overlap))]
        return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)

    return run


def _to_numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()


def _corners(boxes_N4: Array, *, is_centered: bool) -> Array:  # noqa: N803
    """[4, N]: least y and x, greatest y and x. Boxes name two corners in any order, or a center and a size."""
    first_2N, second_2N = boxes_N4[:, :2].T, boxes_N4[:, 2:].T  # noqa: N806
    if is_centered:
        return np.concatenate([first_2N - second_2N / 2, first_2N + second_2N / 2])
    return np.concatenate([np.minimum(first_2N, second_2N), np.maximum(first_2N, second_2N)])


def _chosen(corners_4N: Array, ranked_M: Array, most: int, threshold: np.float32) -> list[int]:  # noqa: N803
    """Up to `most` boxes of `ranked_M`: the best, then the best of those that overlap none chosen, and so on."""
    chosen: list[int] = []
    for start in range(0, len(ranked_M), _BLOCK):
        rest_M = ranked_M[start : start + _BLOCK]  # noqa: N806
        rest_M = rest_M[~_overlap(corners_4N, chosen, rest_M, threshold)]  # noqa: N806
        while len(rest_M) and len(chosen) < most:
            chosen.append(int(rest_M[0]))
            rest_M = rest_M[1:][~_overlap(corners_4N, chosen[-1:], rest_M[1:], threshold)]  # noqa: N806
        if len(chosen) >= most:
            break
    return chosen


def _overlap(corners_4N: Array, chosen: list[int], others_M: Array, threshold: np.float32) -> Array:  # noqa: N803
    """[M]: whether a box shares more than the threshold of the union with a chosen one. Boxes without area do not."""
    chosen_4K1, others_41M = corners_4N[:, chosen, None], corners_4N[:, None, others_M]  # noqa: N806
    sides_2KM = np.minimum(chosen_4K1[2:], others_41M[2:]) - np.maximum(chosen_4K1[:2], others_41M[:2])  # noqa: N806
    shared_KM = sides_2KM[0] * sides_2KM[1]  # noqa: N806
    areas_K1, areas_1M = _areas(chosen_4K1), _areas(others_41M)  # noqa: N806
    union_KM = areas_K1 + areas_1M - shared_KM  # noqa: N806
    is_sound = (sides_2KM > 0).all(0) & (shared_KM > 0) & (areas_K1 > 0) & (areas_1M > 0) & (union_KM > 0)
    share_KM = np.divide(shared_KM, union_KM, out=np.zeros_like(union_KM), where=is_sound)  # noqa: N806
    covered_M: Array = (is_sound & (share_KM > threshold)).any(0)  # noqa: N806
    return covered_M


def _areas(corners: Array) -> Array:
    areas: Array = (corners[2] - corners[0]) * (corners[3] - corners[1])
    return areas
