"""What a layer's record says of its weights before and after they were rounded. Nothing is rounded here."""

import numpy as np

from worker.engine.session import Array
from worker.engine.tensors.similarity import sqnr_db


def weight_facts(before: Array, after: Array) -> dict[str, float | None]:
    """Fields of LayerRecord: the error, and the zeros of a layer that was pruned before.

    Weights without a zero get no sparsity: what rounds to 0 was not pruned.
    """
    is_sparse = bool(before.size) and not before.all()
    return {"sqnr_db": sqnr_db(before, after), "sparsity": float(np.mean(after == 0)) if is_sparse else None}
