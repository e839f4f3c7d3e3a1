"""Rotary position embedding of heads, shared by ONNX's operators and the contributed ones. No operator lives here."""

import torch


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, width: int, *, is_interleaved: bool) -> torch.Tensor:
    """Turn pairs of the first `width` features (0: of all) of `x` (N, H, length, D) by angles (N, length, pairs).

    A pair is features i and i + width / 2, or neighbours if `is_interleaved`.
    """
    turned, rest = (x, None) if width in (0, x.shape[3]) else (x[..., :width], x[..., width:])
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    if is_interleaved:
        a, b = turned[..., ::2], turned[..., 1::2]
        y = torch.stack([cos * a - sin * b, sin * a + cos * b], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        y = torch.cat([cos * a - sin * b, sin * a + cos * b], -1)
    return y if rest is None else torch.cat([y, rest], -1)
