"""Gains and shifts of channels against NumPy's statistics and least squares."""

import numpy as np
import pytest
import torch

from worker.engine.tensors.channel_matching import Match, PairedMoments


def draw(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A reference [N, C, H] and values that partly follow it, each channel in its own way."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(40, 3, 5, generator=generator) * torch.tensor([1.0, 5, 0.1])[:, None] + 2
    noise = torch.randn(40, 3, 5, generator=generator)
    return reference, reference * torch.tensor([0.5, 2, 3])[:, None] + 0.3 * noise - 1


def match(reference: torch.Tensor, values: torch.Tensor, shrinkage: float, parts: int = 1) -> Match:
    moments = PairedMoments()
    for pair in zip(reference.chunk(parts), values.chunk(parts), strict=True):
        moments.add(*pair, axis=1)
    found = moments.match(shrinkage)
    assert found is not None
    return found


def apply(found: Match, values: torch.Tensor) -> torch.Tensor:
    return values.double() * found.gain[:, None] + found.shift[:, None]


def test_without_shrinkage_statistics_are_those_of_the_reference() -> None:
    reference, values = draw()
    got = apply(match(reference, values, 0.0), values)
    torch.testing.assert_close(got.mean((0, 2)), reference.double().mean((0, 2)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.std((0, 2)), reference.double().std((0, 2)), rtol=1e-9, atol=1e-9)


def test_full_shrinkage_is_least_squares() -> None:
    reference, values = draw()
    found = match(reference, values, 1.0)
    for channel in range(3):
        x, y = values[:, channel].flatten().double(), reference[:, channel].flatten().double()
        solution = np.linalg.lstsq(np.stack([x, np.ones(len(x))], 1), y.numpy())[0]
        assert [float(found.gain[channel]), float(found.shift[channel])] == pytest.approx(solution.tolist(), rel=1e-9)


def test_half_way_lies_between_and_keeps_the_mean() -> None:
    reference, values = draw()
    full, half, none = (match(reference, values, shrinkage) for shrinkage in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half.gain**2, full.gain * none.gain)
    got = apply(half, values)
    torch.testing.assert_close(got.mean((0, 2)), reference.double().mean((0, 2)), rtol=1e-9, atol=1e-9)


def test_a_stream_gives_what_the_whole_gives() -> None:
    reference, values = draw()
    whole, stream = match(reference, values, 0.5), match(reference, values, 0.5, parts=7)
    torch.testing.assert_close(whole.gain, stream.gain, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.shift, stream.shift, rtol=1e-9, atol=1e-12)


def test_equal_tensors_need_no_change() -> None:
    reference, values = draw()
    assert not match(reference, reference, 1.0).is_change
    assert match(reference, values, 1.0).is_change


def test_a_dead_channel_is_only_shifted_and_a_broken_one_left_alone() -> None:
    reference, values = draw()
    values[:, 0], values[0, 1, 0] = 0.25, np.inf
    found = match(reference, values, 0.0)
    assert found.gain[:2].tolist() == [1, 1]
    assert float(found.shift[0]) == pytest.approx(float(reference[:, 0].mean()) - 0.25)
    assert float(found.shift[1]) == 0


def test_a_channel_against_its_reference_is_not_turned() -> None:
    reference, _ = draw()
    assert (match(reference, -reference, 1.0).gain > 0).all()


def test_nothing_seen_gives_nothing() -> None:
    moments = PairedMoments()
    assert moments.match(0.0) is None
    moments.add(torch.zeros(0, 3), torch.zeros(0, 3), 1)
    assert moments.match(0.0) is None
