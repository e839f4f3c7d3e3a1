"""The arithmetic of preprocessing, against NumPy and Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from worker.engine.data.preprocess import apply

IMAGES_NHWC = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)


def test_nothing_asked_nothing_done() -> None:
    np.testing.assert_array_equal(apply(IMAGES_NHWC, Preprocess(layout="nhwc")), IMAGES_NHWC)


def test_order_is_channels_then_scale_then_mean_and_std_then_layout() -> None:
    how = Preprocess(
        channel_order="bgr", scale=1 / 255, mean=[0.1, 0.2, 0.3], std=[0.5, 1, 2], layout="nchw", stored_layout="nhwc"
    )
    want = (IMAGES_NHWC[..., ::-1] / 255 - [0.1, 0.2, 0.3]) / [0.5, 1, 2]
    got = apply(IMAGES_NHWC, how)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_channels_first_to_channels_last() -> None:
    how = Preprocess(layout="nhwc", stored_layout="nchw", mean=[1, 2, 3])
    stored = IMAGES_NHWC.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(apply(stored, how), IMAGES_NHWC - np.float32([1, 2, 3]))


def test_features_have_channels_too() -> None:
    rows = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.testing.assert_allclose(apply(rows, Preprocess(mean=[0, 1, 2], std=[3])), (rows - [0, 1, 2]) / 3, rtol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (3, 4), (9, 14), (1, 1)])
def test_resizing_is_pillows_bilinear(size: tuple[int, int]) -> None:
    got = apply(IMAGES_NHWC, Preprocess(resize=size, layout="nhwc"))
    for i, c in np.ndindex(2, 3):
        plane = Image.fromarray(IMAGES_NHWC[i, :, :, c].astype(np.float32))
        want = np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_allclose(got[i, :, :, c], want, atol=1e-3)


@given(st.integers(1, 40), st.integers(1, 40))
def test_resizing_keeps_a_flat_image_flat(source: int, target: int) -> None:
    flat = np.full((1, 1, source, 3), 7.0, np.float32)
    np.testing.assert_allclose(apply(flat, Preprocess(resize=(target, 2))), 7.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((2, 3), Preprocess(resize=(4, 4))),
        ((2, 3), Preprocess(channel_order="bgr")),
        ((2, 1, 4, 4), Preprocess(mean=[1, 2, 3])),
        ((2,), Preprocess(std=[1, 2, 3])),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], how: Preprocess) -> None:
    with pytest.raises(SlimlineError) as refusal:
        apply(np.ones(shape, np.float32), how)
    assert refusal.value.failure.code == "PREPROCESS_MISMATCH"
