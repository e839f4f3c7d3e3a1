"""What the runtimes that an artifact may be made for want: types of integers, and operators that they fuse."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.contracts.recipe.quantize_static import TargetName
from worker.engine.quantization.saturation import saturates

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_BETWEEN = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"})
_CARRIERS = frozenset(
    {"DepthToSpace", "Expand", "Flatten", "Gather", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze",
     "Transpose", "Unsqueeze"}
)  # fmt: skip
_X86 = ("x86_64", "amd64", "i386", "i686")


@dataclass(frozen=True)
class Target:
    """A runtime on a kind of device.

    `layers` have integer kernels for weights; `between` have kernels that read and write integers; `carriers` move
    integers without looking at them, so that their output keeps the parameters of their input.
    """

    name: str
    layers: frozenset[str]
    between: frozenset[str]
    carriers: frozenset[str]
    has_signed_activations: bool = False
    has_symmetric_activations: bool = False
    quantizes_bias: bool = True
    """Whether the bias is stored as int32 with the scale of the products; other runtimes do it themselves."""
    is_here: bool = False
    """Whether it is the CPU this runs on, so that kernels can be counted and timed."""
    weight_bits: int = 8
    """Bits of a weight that its products may use: 7 where sums of two u8 x s8 products saturate in 16 bits."""


_TARGETS: Mapping[str, Target] = {
    "cpu-x86": Target("cpu-x86", _PRODUCTS, _BETWEEN, _CARRIERS),
    "cpu-arm": Target("cpu-arm", _PRODUCTS, _BETWEEN, _CARRIERS, has_signed_activations=True),
    "tensorrt": Target(
        "tensorrt",
        _PRODUCTS | {"ConvTranspose"},
        frozenset({"Add"}),
        frozenset({"MaxPool"}),
        has_signed_activations=True,
        has_symmetric_activations=True,
        quantizes_bias=False,
    ),
    "openvino": Target(
        "openvino",
        _PRODUCTS | {"ConvTranspose"},
        frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul"}),
        _CARRIERS,
        quantizes_bias=False,
    ),
}


def find_target(name: TargetName) -> Target:
    """The target called `name`; `device` is the CPU this runs on."""
    here = "cpu-x86" if platform.machine().lower() in _X86 else "cpu-arm"
    if name not in ("device", here):
        return _TARGETS[name]
    is_narrow = here == "cpu-x86" and name == "device" and saturates()
    return replace(_TARGETS[here], is_here=True, weight_bits=7 if is_narrow else 8)
