"""Random numbers and Dropout. A `seed` attribute makes every call give the same; else torch's generator goes on."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import Context, check_size
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_MASK_IS_BOOL = 10
"""The opset from which Dropout's mask is of truth values."""


def _randomness(node: Node, device: torch.device) -> dict[str, Any]:
    """The `generator` argument of torch's functions, none without a seed: not all take None while compiled."""
    seed = node.get("seed")
    return {} if seed is None else {"generator": torch.Generator(device).manual_seed(int(seed))}


def _dtype(node: Node) -> torch.dtype | None:
    """The type that the node names, None where it takes its input's."""
    named = node.get("dtype")
    return None if named is None else held_as(ir.DataType(named))


@operator("RandomNormal", "RandomUniform", wants_context=True)
def random_tensor(node: Node) -> Run:
    """Of the attributes' shape."""
    draw, shape, dtype = _drawing(node), node.need("shape"), _dtype(node) or torch.float32
    return lambda context: draw(shape, dtype, context.device)


@operator("RandomNormalLike", "RandomUniformLike")
def random_like(node: Node) -> Run:
    """Of the input's shape."""
    draw, dtype = _drawing(node), _dtype(node)
    return lambda x: draw(x.shape, dtype or x.dtype, x.device)


def _drawing(node: Node) -> Run:
    """Numbers of a shape, type and device: normal with `mean` and `scale`, or uniform from `low` to `high`."""
    if node.op.startswith("RandomNormal"):
        draw, shift, scale = torch.randn, node.get("mean", 0.0), node.get("scale", 1.0)
    else:
        draw, shift = torch.rand, node.get("low", 0.0)
        scale = node.get("high", 1.0) - shift

    def run(shape: list[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        check_size(shape, dtype)
        drawn: torch.Tensor = draw(shape, dtype=dtype, device=device, **_randomness(node, device))
        scaled: torch.Tensor = drawn * scale + shift
        return scaled

    return run


@operator("Bernoulli")
def bernoulli(node: Node) -> Run:
    """1 with the probability that the input holds, else 0."""
    dtype = _dtype(node)
    return lambda x: torch.bernoulli(x, **_randomness(node, x.device)).to(dtype or x.dtype)


@operator("Multinomial")
def multinomial(node: Node) -> Run:
    """`sample_size` classes for each row of log-probabilities, which need not be normalized."""
    count, dtype = node.get("sample_size", 1), _dtype(node) or torch.int32

    def run(x: torch.Tensor) -> torch.Tensor:
        check_size((x.shape[0], count), dtype)
        drawn = x.float().softmax(-1).multinomial(count, replacement=True, **_randomness(node, x.device))
        return drawn.to(dtype)

    return run


@operator("Dropout", host=(1, 2), wants_context=True)
def dropout(node: Node) -> Run:
    """Active in training: the module's, or the node's own `training_mode`. The mask is of x's type before opset 10."""
    attribute, seed, has_mask = node.get("ratio", 0.5), node.get("seed"), len(node.wanted) > 1
    mask_type = None if node.version < _MASK_IS_BOOL else torch.bool

    def run(context: Context, x: torch.Tensor, ratio: Any = None, training: Any = None) -> Any:
        share = attribute if ratio is None else as_scalar(ratio)
        is_asked = training is not None and as_scalar(training)
        if share == 0 or not (is_asked or context.is_training):
            return (x, torch.ones_like(x, dtype=mask_type)) if has_mask else x
        if is_asked and seed is not None:
            dropped, mask = _drop_as_reference(x, share, seed)
        elif has_mask:
            dropped, mask = torch.native_dropout(x, share, train=True)
        else:
            return F.dropout(x, share)
        return (dropped, mask.to(mask_type or x.dtype)) if has_mask else dropped

    return run


def _drop_as_reference(x: torch.Tensor, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The elements that ONNX's reference implementation drops for a seed."""
    kept = np.random.RandomState(seed).uniform(0, 1.0, x.shape) >= share
    mask = torch.from_numpy(kept).to(x.device)
    return x * mask * (1 / (1 - share)), mask
