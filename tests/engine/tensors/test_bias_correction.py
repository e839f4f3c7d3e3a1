"""Sums of inputs, from which a linear layer gives the mean of its outputs: against every output in float64."""

import torch
from torch.nn import functional

from worker.engine.tensors.bias_correction import Summed, channel_totals


def test_a_convolution_of_the_mean_image_has_the_mean_of_all_outputs() -> None:
    torch.manual_seed(0)
    images, weight = torch.randn(7, 4, 9, 8), torch.randn(6, 2, 3, 3)
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    parts = Summed.over_samples(images[:3]) + Summed.over_samples(images[3:])
    total, places = channel_totals(functional.conv2d(parts.values / parts.count, weight.double(), **options), 1)
    every = functional.conv2d(images.double(), weight.double(), **options)
    torch.testing.assert_close(total / places, every.mean((0, 2, 3)))


def test_rows_of_a_matrix_product() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(2, 5, 4), torch.randn(4, 3).double()
    parts = Summed.over_rows(rows[:1]) + Summed.over_rows(rows[1:])
    assert parts.count == 10
    total, places = channel_totals(parts.values @ weight / parts.count, -1)
    torch.testing.assert_close(total / places, (rows.double() @ weight).mean((0, 1)))
