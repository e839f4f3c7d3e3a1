"""Signals: Fourier transforms, windows and the mel scale. ONNX keeps complex numbers as a last dimension of two."""

import math
from collections.abc import Callable

import onnx_ir as ir
import torch

from worker.engine.torch_graph.context import Context, check_size
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

AXIS_IS_INPUT = 20
FFT_DTYPES = (torch.float32, torch.float64)
UNMARKED = 2
"""Rank of a signal (batch, length) without the dimension that tells real from complex."""


def _numbers(x: torch.Tensor) -> torch.Tensor:
    """`x` without its last dimension: real where that is one wide, complex where two."""
    x = x if x.dtype in FFT_DTYPES else x.float()
    numbers: torch.Tensor = x.squeeze(-1) if x.shape[-1] == 1 else torch.view_as_complex(x.contiguous())
    return numbers


def _spectrum(x: torch.Tensor, length: int, axis: int, *, is_onesided: bool) -> torch.Tensor:
    transform = torch.fft.rfft if is_onesided and not x.is_complex() else torch.fft.fft
    spectrum: torch.Tensor = transform(x, length, axis)
    return spectrum.narrow(axis, 0, length // 2 + 1) if is_onesided else spectrum


@operator("DFT", host=(1, 2))
def dft(node: Node) -> Run:
    """The transform over one axis, zero-padded or cut to `dft_length`; the inverse divides by it."""
    default_axis = -2 if node.version >= AXIS_IS_INPUT else node.get("axis", 1)
    is_inverse, is_onesided = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))

    def run(x: torch.Tensor, length: int | None = None, axis: int | None = None) -> torch.Tensor:
        axis = (default_axis if axis is None else axis) % x.dim()
        if length is None:
            length = 2 * (x.shape[axis] - 1) if is_inverse and is_onesided else x.shape[axis]
        check_size([*x.shape[:axis], length, *x.shape[axis + 1 :]], x.dtype)
        numbers = _numbers(x)
        y: torch.Tensor
        if is_inverse and is_onesided:
            y = torch.fft.irfft(numbers, length, axis).unsqueeze(-1)
        elif is_inverse:
            y = torch.view_as_real(torch.fft.ifft(numbers, length, axis).resolve_conj())
        else:
            y = torch.view_as_real(_spectrum(numbers, length, axis, is_onesided=is_onesided))
        return y.to(x.dtype)

    return run


@operator("STFT", host=(1, 3), fixed=(2,))
def stft(node: Node) -> Run:
    """Windowed frames `frame_step` apart, each transformed: (batch, frames, bins, 2). A rank-2 signal is real."""
    is_onesided = bool(node.get("onesided", 1))

    def run(
        signal: torch.Tensor, step: int, window: torch.Tensor | None = None, length: int | None = None
    ) -> torch.Tensor:
        numbers = signal if signal.dim() == UNMARKED else _numbers(signal)
        if length is None:
            length = numbers.shape[-1] if window is None else window.shape[0]
        frames = numbers.unfold(-1, length, step)
        if window is not None:
            frames = frames * window
        frames = frames if frames.is_complex() or frames.dtype in FFT_DTYPES else frames.float()
        return torch.view_as_real(_spectrum(frames, length, -1, is_onesided=is_onesided)).to(signal.dtype)

    return run


def _hann(phase: torch.Tensor) -> torch.Tensor:
    return (phase / 2).sin().square()


def _hamming(phase: torch.Tensor) -> torch.Tensor:
    # 25/46 where textbooks round to 0.54: the first side lobe is zero.
    return 25 / 46 - 21 / 46 * phase.cos()


def _blackman(phase: torch.Tensor) -> torch.Tensor:
    return -0.5 * phase.cos() + 0.08 * (2 * phase).cos() + 0.42


WINDOWS = {"HannWindow": _hann, "HammingWindow": _hamming, "BlackmanWindow": _blackman}
"""Each a function of the phase, which runs from 0 to 2 pi."""


def _output_dtype(node: Node) -> torch.dtype:
    return held_as(ir.DataType(node.get("output_datatype", 1)))


def _window(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Node], Run]:
    def build(node: Node) -> Run:
        dtype, is_periodic = _output_dtype(node), bool(node.get("periodic", 1))

        def run(context: Context, size: int) -> torch.Tensor:
            check_size([size], torch.float64)
            steps = torch.arange(size, dtype=torch.float64, device=context.device)
            return function(steps * (2 * math.pi) / (size if is_periodic else size - 1)).to(dtype)

        return run

    return build


for _name, _function in WINDOWS.items():
    operator(_name, host=(0,), wants_context=True)(_window(_function))


@operator("MelWeightMatrix", host=(0, 1, 2, 3, 4), wants_context=True)
def mel_weight_matrix(node: Node) -> Run:
    """One triangle for each mel band over the spectrum's bins, with peak 1: (dft_length // 2 + 1, bands)."""
    dtype = _output_dtype(node)
    edges = held_as(node.input_type(3) or ir.DataType.FLOAT)

    def mel(hertz: float) -> torch.Tensor:
        # In the precision of the edges: it decides into which bin a band's corner falls.
        return (2595 * torch.tensor(hertz, dtype=edges).div(700).log1p()).double() / math.log(10)

    def run(context: Context, bands: int, length: int, rate: int, low: float, high: float) -> torch.Tensor:
        bins = length // 2 + 1
        check_size([bins, bands], torch.float64)
        step = (mel(high) - mel(low)) / (bands + 2)
        mels = torch.arange(bands + 2, dtype=torch.float64, device=context.device) * step + mel(low)
        corners = ((length + 1) * 700 * torch.expm1(mels / 2595 * math.log(10))).div(rate).floor()
        left, peak, right = corners[:-2], corners[1:-1], corners[2:]
        bin_ = torch.arange(bins, dtype=torch.float64, device=context.device).unsqueeze(1)
        rising, falling = (bin_ - left) / (peak - left), (right - bin_) / (right - peak)
        slope = torch.where(bin_ < peak, rising, falling).clamp(min=0)
        return torch.where(bin_ == peak, 1.0, slope).to(dtype)

    return run
