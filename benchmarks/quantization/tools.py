"""The tools that are compared, and which results of ours are judged. How each is called is said in `compressors`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.quantization.cases import Case, Network

Family = Literal["slimline", "onnxruntime", "nncf", "aimet"]
Kind = Literal["static", "dynamic", "weights"]
PEERS: Sequence[Family] = ("onnxruntime", "nncf", "aimet")
PACKAGES: Mapping[Family, str] = {"onnxruntime": "onnxruntime", "nncf": "nncf", "aimet": "aimet-onnx"}
ELSEWHERE: Sequence[Family] = ("nncf", "aimet")
"""Families that run in the peers' interpreter."""
EVERY: Sequence[Network] = ("convolutional", "transformer", "recurrent")
_BATCH = 32
"""Calibration samples per call where a peer lets us choose: its speed gains by more than one."""


@dataclass(frozen=True)
class Tool:
    """One way to quantize: a family's module in `compressors`, and the options it is run with.

    `is_kept`: whether an earlier result will do. Not for ours, and not for what our wall time is judged by.
    """

    name: str
    family: Family
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)
    networks: Sequence[Network] = EVERY
    is_kept: bool = True


OURS = Tool("slimline static", "slimline", "static", {"recipe": "quantize.static"}, is_kept=False)
PERCENTILE = Tool(
    "onnxruntime Percentile",
    "onnxruntime",
    "static",
    {"calibrate_method": "Percentile", "batch": _BATCH},
    is_kept=False,
)
TOOLS: Sequence[Tool] = (
    OURS,
    PERCENTILE,
    Tool(
        "slimline dynamic",
        "slimline",
        "dynamic",
        {"recipe": "quantize.dynamic"},
        ("transformer", "recurrent"),
        is_kept=False,
    ),
    Tool("onnxruntime MinMax", "onnxruntime", "static", {"calibrate_method": "MinMax", "batch": _BATCH}),
    Tool("onnxruntime dynamic", "onnxruntime", "dynamic"),
    Tool("NNCF", "nncf", "static"),
    Tool("NNCF mixed", "nncf", "static", {"preset": "mixed"}),
    Tool("NNCF transformer", "nncf", "static", {"transformer": True}, ("transformer",)),
    Tool("AIMET with CLE", "aimet", "static"),
)
_DEFAULTS: Mapping[Network, Sequence[Kind]] = {
    "convolutional": ("static",),
    "transformer": ("static", "dynamic"),
    "recurrent": ("dynamic",),
}


def tools_for(case: Case, families: Collection[Family]) -> list[Tool]:
    """Ours and those of `families` that suit the case's network."""
    return [tool for tool in TOOLS if case.network in tool.networks and tool.family in ("slimline", *families)]


def is_judged(tool: Tool, case: Case) -> bool:
    """Whether a result of ours has goals: static quantization does nothing for recurrent layers, ours or a peer's."""
    return tool.family == "slimline" and tool.kind in _DEFAULTS[case.network]
