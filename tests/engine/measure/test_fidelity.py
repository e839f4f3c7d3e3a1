"""Fidelity over batches is fidelity of the whole."""

import numpy as np
import pytest

from worker.engine.measure.fidelity import FidelityMeter
from worker.engine.tensors.similarity import cosines, sqnr_db


def test_batches_give_what_the_whole_gives() -> None:
    generator = np.random.default_rng(0)
    original = generator.normal(size=(20, 5))
    other = original + generator.normal(scale=0.3, size=(20, 5))
    meter = FidelityMeter(axis=1)
    for start in range(0, 20, 7):
        meter.update(original[start : start + 7], other[start : start + 7])
    found = meter.result()
    assert found is not None
    assert found.sqnr_db == pytest.approx(sqnr_db(original, other))
    assert found.cosine == pytest.approx(cosines(original, other).mean())
    assert found.agreement == (original.argmax(1) == other.argmax(1)).mean()


def test_equal_outputs_have_no_ratio() -> None:
    meter = FidelityMeter(axis=None)
    meter.update(np.ones((2, 3)), np.ones((2, 3)))
    found = meter.result()
    assert found is not None
    assert (found.sqnr_db, found.agreement) == (None, None)
    assert found.cosine == pytest.approx(1)


def test_nothing_measured_is_nothing() -> None:
    assert FidelityMeter(axis=None).result() is None
