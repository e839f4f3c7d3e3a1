"""Task metrics against scikit-learn's and hand-made numbers."""

import numpy as np
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.measure.accuracy import R2, MeanIoU, Top1, infer_task, make_meter


def test_top1_over_batches() -> None:
    meter = Top1()
    meter.update([np.array([[0.1, 0.9], [0.8, 0.2]])], np.array([1, 1]))
    meter.update([np.array([[0.3, 0.7]])], np.array([1]))
    accuracy = meter.result()
    assert (accuracy.metric, accuracy.value, accuracy.n) == ("top1", 2 / 3, 3)
    assert accuracy.ci_low < 2 / 3 < accuracy.ci_high


def test_scores_are_found_among_the_outputs() -> None:
    meter = Top1()
    meter.update([np.zeros((2, 1)), np.array([[0, 1], [1, 0]])], np.array([1, 0]))
    assert meter.result().value == 1


def test_mean_iou_is_scikit_learns_jaccard() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(6, 4, 5, 7)), generator.integers(0, 4, (6, 5, 7))
    meter = MeanIoU()
    meter.update([scores[:2]], labels[:2])
    meter.update([scores[2:]], labels[2:])
    found = meter.result()
    expected = metrics.jaccard_score(labels.ravel(), scores.argmax(1).ravel(), average="macro")
    assert found.value == pytest.approx(expected)
    assert found.ci_low <= found.value <= found.ci_high


def test_ignored_pixels_count_for_nothing() -> None:
    scores = np.zeros((1, 2, 1, 2))
    scores[0, 1] = 1
    meter = MeanIoU()
    meter.update([scores], np.array([[[1, 255]]]))
    assert meter.result().value == 1


def test_r2_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    labels = generator.normal(size=200)
    outputs = (labels + generator.normal(scale=0.3, size=200))[:, None]
    meter = R2()
    meter.update([outputs[:50]], labels[:50])
    meter.update([outputs[50:]], labels[50:])
    found = meter.result()
    assert found.value == pytest.approx(metrics.r2_score(labels, outputs[:, 0]))
    assert found.ci_low < found.value < found.ci_high


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(SlimlineError) as caught:
        Top1().update([np.zeros((2, 3))], np.array([0, 3]))
    assert caught.value.failure.code == "LABELS_OUT_OF_RANGE"
    assert "0 to 3" in caught.value.failure.message


@pytest.mark.parametrize("meter", [Top1(), MeanIoU(), R2()])
def test_labels_of_another_shape_are_refused(meter: Top1 | MeanIoU | R2) -> None:
    with pytest.raises(SlimlineError) as caught:
        meter.update([np.zeros((2, 3))], np.zeros((2, 5, 5), int))
    assert caught.value.failure.code == "LABELS_DO_NOT_FIT"


@pytest.mark.parametrize(
    ("meter", "outputs", "labels", "told"),
    [
        (MeanIoU(), (2, 3), (2,), "label maps [N, ...] and a first output [N, C, ...]; the labels are [N]"),
        (Top1(), (2, 3), (2, 5, 5), "labels [N] and an output [N, C]; the labels are [N, 5, 5]"),
        (Top1(), (2, 3, 5, 5), (2, 5, 5), "the outputs [N, 3, 5, 5]"),
    ],
)
def test_labels_of_another_task_are_refused(
    meter: Top1 | MeanIoU, outputs: tuple[int, ...], labels: tuple[int, ...], told: str
) -> None:
    with pytest.raises(SlimlineError) as caught:
        meter.update([np.zeros(outputs)], np.zeros(labels, int))
    assert caught.value.failure.code == "LABELS_DO_NOT_FIT"
    assert told in caught.value.failure.message


def test_the_task_labels_are_for() -> None:
    assert infer_task(None) == "none"
    assert infer_task(np.zeros(3, int)) == "classification"
    assert infer_task(np.zeros((3, 8, 8), int)) == "segmentation"
    assert infer_task(np.zeros(3)) == "regression"
    assert make_meter("detection") is None
