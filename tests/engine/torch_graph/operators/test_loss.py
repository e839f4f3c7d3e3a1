"""Losses in reductions and ignored labels that the official node tests leave out."""

from collections.abc import Callable

import numpy as np
import pytest

from app.contracts.failure import SlimlineError

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
LOSSES = pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])


@LOSSES
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("ignored", [None, 2, 7, -100])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("dimensions", [0, 1, 3])
def test_losses(
    expect_node: NodeRunner, op: str, reduction: str, ignored: int | None, is_weighted: bool, dimensions: int
) -> None:
    rest = (2,) * dimensions
    scores = RNG.standard_normal((3, 5, *rest)).astype(np.float32)
    labels = RNG.integers(0, 5, (3, *rest)).astype(np.int32)
    options = {"reduction": reduction, "opset": 13, "rtol": 1e-4}
    if ignored is not None:
        labels.flat[0] = ignored
        options["ignore_index"] = ignored
    weights = [RNG.random(5).astype(np.float32)] if is_weighted else []
    expect_node(op, [scores, labels, *weights], **options)
    if op == "SoftmaxCrossEntropyLoss":
        expect_node(op, [scores, labels, *weights], outputs=2, **options)


def test_minus_one_is_a_label_like_others_to_ignore(run_node: NodeRunner) -> None:
    # The reference divides by all labels for -1 alone.
    log = np.log(np.full((3, 2), 0.5, np.float32))
    loss = run_node("NegativeLogLikelihoodLoss", [log, np.array([-1, 0, 1])], ignore_index=-1)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@LOSSES
def test_labels_outside_the_classes_are_refused(run_node: NodeRunner, op: str) -> None:
    with pytest.raises(SlimlineError):
        run_node(op, [np.zeros((2, 3), np.float32), np.array([0, -100])])
