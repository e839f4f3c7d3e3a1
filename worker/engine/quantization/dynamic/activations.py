"""What a dynamically quantized activation stands for, in torch. The graph's own nodes are made in `draft`."""

import torch

_HIGHEST = 255


def quantize_dynamically(values: torch.Tensor) -> torch.Tensor:
    """The floats that DynamicQuantizeLinear's codes stand for: uint8, one range for all of `values`, 0 in it."""
    low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
    scale = (high - low) / _HIGHEST
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.round(-low / scale).clamp(0, _HIGHEST)
    return ((values / scale).round().add(zero).clamp(0, _HIGHEST) - zero) * scale
