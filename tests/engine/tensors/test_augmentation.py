"""Pixels, labels and colours after random changes, against NumPy."""

import numpy as np
import pytest
import torch

from worker.engine.tensors.augmentation import (
    LABEL_OUTSIDE,
    blend,
    find_boxes,
    find_pixels,
    paste,
    recolour,
    take_labels,
    take_pixels,
)


def images(count: int = 4, channels: int = 3, size: tuple[int, int] = (7, 5)) -> torch.Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(0))


def shifted(down: int, right: int, size: tuple[int, int] = (7, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = (torch.arange(length)[None] + by for length, by in zip(size, (down, right), strict=True))
    return rows.expand(4, -1), columns.expand(4, -1)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-1, 4), (6, 0), (-6, -4)])
def test_a_shift_reflects_at_the_border(down: int, right: int) -> None:
    x = images()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (6, 6), (4, 4)), mode="reflect")
    wanted = padded[:, :, 6 + down : 13 + down, 4 + right : 9 + right]
    np.testing.assert_array_equal(take_pixels(x, find_pixels(*shifted(down, right))), wanted)


def test_a_shift_beyond_the_image_is_reflected_again() -> None:
    rows, columns = shifted(12, -16)  # whole periods of 2 * (7 - 1) and 2 * (5 - 1)
    np.testing.assert_array_equal(take_pixels(images(), find_pixels(rows, columns)), images())


def test_one_row_can_be_shifted() -> None:
    x = images(size=(1, 5))
    rows, columns = shifted(3, 0, (1, 5))
    np.testing.assert_array_equal(take_pixels(x, find_pixels(rows, columns)), x)


def test_labels_move_with_the_pixels_and_end_at_the_border() -> None:
    maps = torch.arange(4 * 7 * 5).view(4, 7, 5) % 100
    moved = take_labels(maps, *shifted(2, -1))
    padded = np.pad(maps.numpy(), ((0, 0), (2, 2), (1, 1)), constant_values=LABEL_OUTSIDE)
    np.testing.assert_array_equal(moved, padded[:, 4:11, 0:5])
    pixels = take_pixels(maps[:, None], find_pixels(*shifted(2, -1)))[:, 0]
    assert (pixels[moved != LABEL_OUTSIDE] == moved[moved != LABEL_OUTSIDE]).all()


def test_colours_change_by_the_images_own_mean_and_deviation() -> None:
    x = images() * 3 + 5
    zeros, ones = torch.zeros(4), torch.ones(4)
    np.testing.assert_allclose(recolour(x, zeros, ones, ones), x, atol=1e-5)
    mean, deviation = x.mean((2, 3)), x.std((2, 3), correction=0)
    brighter = recolour(x, zeros + 0.5, ones, ones)
    np.testing.assert_allclose(brighter.mean((2, 3)), mean + 0.5 * deviation, rtol=1e-5)
    flatter = recolour(x, zeros, ones * 0.25, ones)
    np.testing.assert_allclose(flatter.mean((2, 3)), mean, rtol=1e-5)
    np.testing.assert_allclose(flatter.std((2, 3), correction=0), 0.25 * deviation, rtol=1e-5)
    grey = recolour(x, zeros, ones, zeros)
    own = (grey - mean[:, :, None, None]) / deviation[:, :, None, None]
    np.testing.assert_allclose(own[:, 0], own[:, 1], atol=1e-5)


def test_colours_are_the_same_under_any_preprocessing() -> None:
    x, scale = images(), torch.tensor([0.2, 3.0, 1.0])[:, None, None]
    offset = torch.tensor([5.0, -1.0, 0.0])[:, None, None]
    change = (torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.linspace(0.5, 1.5, 4), torch.linspace(1.4, 0.2, 4))
    np.testing.assert_allclose(recolour(x * scale + offset, *change), recolour(x, *change) * scale + offset, atol=1e-4)


def test_a_flat_channel_stays_flat() -> None:
    x = images()
    x[:, 1] = 0.1
    changed = recolour(x, torch.full((4,), 0.5), torch.full((4,), 1.5), torch.full((4,), 0.5))
    np.testing.assert_allclose(changed[:, 1], x[:, 1], rtol=1e-5)
    assert changed.isfinite().all()


def test_bytes_stay_bytes() -> None:
    x = (images() * 100 + 128).clamp(0, 255).to(torch.uint8)
    changed = recolour(x, torch.full((4,), 2.0), torch.ones(4), torch.ones(4))
    assert changed.dtype == torch.uint8
    wanted = x.float() + 2 * x.float().std((2, 3), correction=0, keepdim=True)
    np.testing.assert_allclose(changed, wanted.clamp(0, 255), atol=0.51)
    half = blend(x, x.flip(0), torch.full((4,), 0.5))
    np.testing.assert_allclose(half, (x.float() + x.flip(0).float()) / 2, atol=0.51)


def test_a_blend_weighs_each_image() -> None:
    x, share = images().double(), torch.tensor([0.0, 0.25, 0.5, 1.0])
    weights = share[:, None, None, None]
    np.testing.assert_allclose(blend(x, x.flip(0), share), weights * x + (1 - weights) * x.flip(0), atol=1e-6)


def test_boxes_cover_their_share_in_the_images_form() -> None:
    area = torch.tensor([0.0, 0.25, 0.5, 1.0])
    boxes = find_boxes(torch.full((4, 2), 0.5), area, (40, 60))
    np.testing.assert_allclose(boxes.float().mean((1, 2)), area, atol=0.02)
    assert boxes[1].any(1).sum() == 20
    assert boxes[1].any(0).sum() == 30
    corner = find_boxes(torch.zeros(1, 2), torch.tensor([0.25]), (40, 60))[0]
    np.testing.assert_array_equal(corner, (torch.arange(40) < 10)[:, None] & (torch.arange(60) < 15))


def test_the_other_image_shows_in_its_box() -> None:
    x = images(size=(8, 8))
    boxes = find_boxes(torch.full((4, 2), 0.5), torch.full((4,), 0.25), (8, 8))
    pasted = paste(x, x.flip(0), boxes)
    np.testing.assert_array_equal(pasted[:, :, 2:6, 2:6], x.flip(0)[:, :, 2:6, 2:6])
    np.testing.assert_array_equal(pasted[:, :, :2], x[:, :, :2])
