"""Similarity measures against NumPy's and SciPy's."""

import numpy as np
import pytest

from worker.engine.tensors.similarity import agreements, cosines, decibels, noise_energy, sqnr_db


def test_sqnr_of_a_known_noise() -> None:
    reference = np.full(100, 10.0, np.float32)
    assert sqnr_db(reference, reference + 1) == pytest.approx(20.0)
    assert sqnr_db(reference, reference) is None


def test_energies_of_batches_add_up() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(10, 4)), generator.normal(size=(10, 4))
    parts = np.sum([noise_energy(a[:3], b[:3]), noise_energy(a[3:], b[3:])], axis=0)
    assert decibels(*parts) == pytest.approx(sqnr_db(a, b))


def test_cosine_is_scipys() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(5, 3, 2)), generator.normal(size=(5, 3, 2))
    expected = [1 - distance.cosine(x.ravel(), y.ravel()) for x, y in zip(a, b, strict=True)]
    assert cosines(a, b) == pytest.approx(expected)


def test_cosine_of_zeros() -> None:
    zero, one = np.zeros((1, 2)), np.ones((1, 2))
    assert cosines(zero, zero) == 1
    assert cosines(zero, one) == 0


def test_agreement_along_an_axis() -> None:
    a = np.array([[1, 2], [2, 1]])
    b = np.array([[0, 5], [0, 5]])
    assert agreements(a, b, axis=1).tolist() == [True, False]
