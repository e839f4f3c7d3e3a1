"""TfIdfVectorizer beside the reference, with random pools."""

from collections.abc import Callable

import numpy as np
import pytest

from app.contracts.failure import SlimlineError

NodeRunner = Callable[..., list[np.ndarray]]


@pytest.mark.parametrize("seed", range(30))
def test_random_pools(expect_node: NodeRunner, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, 3)
    pool = rng.integers(0, 4, counts @ [1, 2, 3])
    outputs = rng.integers(0, 6, counts.sum())
    shortest = int(rng.integers(1, 4))
    x = rng.integers(0, 5, (2, 7) if seed % 2 else 7).astype(np.int32 if seed % 3 else np.int64)
    expect_node(
        "TfIdfVectorizer",
        [x],
        opset=9,
        mode=["TF", "IDF", "TFIDF"][seed % 3],
        min_gram_length=shortest,
        max_gram_length=int(rng.integers(shortest, 4)),
        max_skip_count=int(rng.integers(0, 4)),
        ngram_counts=[0, int(counts[0]), int(counts[0] + 2 * counts[1])],
        ngram_indexes=outputs.tolist(),
        pool_int64s=pool.tolist(),
        weights=rng.random(outputs.max() + 1).tolist(),
    )


def test_text_is_refused(run_node: NodeRunner) -> None:
    sizes = {"min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0], "ngram_indexes": [0]}
    with pytest.raises(SlimlineError) as caught:
        run_node("TfIdfVectorizer", [np.array([1])], opset=9, mode="TF", pool_strings=["a"], **sizes)
    assert caught.value.failure.code == "OPERATOR_UNSUPPORTED"
