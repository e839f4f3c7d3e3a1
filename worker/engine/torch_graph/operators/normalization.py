"""Normalizations over batch, layer, group, instance or neighbours, on torch's kernels.

Those without parameters or statistics to keep are in `unit_scale.py`.
"""

import math
from collections.abc import Callable

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import Context
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

EPSILON = 1e-5
MEAN_OUTPUTS_SINCE = 14
"""The BatchNormalization whose outputs are y and the new running statistics; those before had others."""
SCALE_PER_CHANNEL_SINCE = 21
"""The GroupNormalization with a scale for each channel; the one before had one for each group."""


@operator("BatchNormalization", statistics=(3, 4), wants_context=True)
def batch_normalization(node: Node) -> Run:
    """(x - mean) / sqrt(var + epsilon) * scale + bias for each channel (Ioffe and Szegedy 2015).

    While the module trains, mean and variance are the batch's and move the running ones, as in torch.nn.BatchNorm2d.
    """
    if node.get("spatial", 1) != 1:
        raise node.refuse("spatial=0, statistics for each element", "convert the model to opset 9 or above")
    if node.get("training_mode", 0):
        return _given_channels(node, _batch_statistics(node))
    if node.version < MEAN_OUTPUTS_SINCE and node.wants(1):
        raise node.refuse("outputs of training before opset 14", "convert the model to opset 14 or above")
    return _given_channels(node, _running_statistics(node))


def _running_statistics(node: Node) -> Run:
    factor, epsilon = 1 - node.get("momentum", 0.9), node.get("epsilon", EPSILON)

    def run(
        context: Context,
        x: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
    ) -> torch.Tensor:
        return F.batch_norm(x, mean, var, scale, bias, context.is_training, factor, epsilon)

    return run if _has_kernel(node) else _in_widest_type(run)


def _given_channels(node: Node, run: Run) -> Run:
    """A vector is a batch of one channel."""
    if node.rank(0) != 1:
        return run

    def run_column(context: Context, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        y: torch.Tensor | tuple[torch.Tensor, ...] = run(context, x.unsqueeze(1), *rest)
        return (y[0].squeeze(1), *y[1:]) if isinstance(y, tuple) else y.squeeze(1)

    return run_column


def _has_kernel(node: Node) -> bool:
    """Whether torch has it: it normalizes tensors of one type, and halves by float32."""
    x, scale, mean = (node.input_type(index) for index in (0, 1, 3))
    halves = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return scale == mean and (x == scale or (x in halves and scale is ir.DataType.FLOAT))


def _in_widest_type(normalize: Run) -> Run:
    def run(context: Context, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        widest = x.dtype
        for parameter in parameters:
            widest = torch.promote_types(widest, parameter.dtype)
        scale, bias, mean, var = (parameter.to(widest) for parameter in parameters)
        y: torch.Tensor = normalize(context, x.to(widest), scale, bias, mean, var)
        if context.is_training:
            parameters[2].copy_(mean)
            parameters[3].copy_(var)
        return y.to(x.dtype)

    return run


def _batch_statistics(node: Node) -> Run:
    """`training_mode=1`: always by the batch; further outputs are the new running mean and (population) variance.

    While the module trains, its stored statistics move too, and are those outputs.
    """
    momentum, epsilon = node.get("momentum", 0.9), node.get("epsilon", EPSILON)
    train = _running_statistics(node)
    wants_statistics = node.wants(1) or node.wants(2)

    def run(
        context: Context,
        x: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if context.is_training:
            return train(context, x, scale, bias, mean, var), mean.clone(), var.clone()
        y = _normalize_by_batch(x, scale.to(x.dtype), bias.to(x.dtype), epsilon)
        if not wants_statistics:
            return y
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        new_var, new_mean = torch.var_mean(wide, dim=[0, *range(2, x.dim())], correction=0)
        return (
            y,
            (mean * momentum + new_mean * (1 - momentum)).to(mean.dtype),
            (var * momentum + new_var * (1 - momentum)).to(var.dtype),
        )

    return run


def _normalize_by_batch(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
    if x.numel() == x.shape[1]:
        return _normalize_lone(x, scale, bias)
    return torch.batch_norm(x, scale, bias, None, None, True, 0.0, epsilon, torch.backends.cudnn.enabled)


def _normalize_lone(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Channels that have one element each, which is its own mean.

    torch scales both by up to 1 / sqrt(epsilon) before it subtracts, and misses 0.
    """
    scale, bias = (each.reshape(-1, *[1] * (x.dim() - 2)) for each in (scale, bias))
    return (x - x) * scale + bias


@operator("InstanceNormalization")
def instance_normalization(node: Node) -> Run:
    """Each channel of each sample by its own mean and variance (Ulyanov et al. 2016)."""
    epsilon = node.get("epsilon", EPSILON)

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 0:
            return torch.empty_like(x)
        if math.prod(x.shape[2:]) == 1:
            return _normalize_lone(x, scale, bias)
        return torch.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, torch.backends.cudnn.enabled)

    return run


def _check_stash(node: Node) -> None:
    stash = node.get("stash_type", ir.DataType.FLOAT)
    if stash != ir.DataType.FLOAT:
        raise node.refuse(f"stash_type {stash}", "statistics are computed in float32, stash_type 1")


@operator("LayerNormalization")
def layer_normalization(node: Node) -> Run:
    """Over dimensions `axis` and after (Ba et al. 2016); further outputs are the mean and 1 / standard deviation."""
    _check_stash(node)
    axis, epsilon = node.get("axis", -1), node.get("epsilon", EPSILON)
    if node.wants(1) or node.wants(2):
        return _layer_norm_with_statistics(axis, epsilon)

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return torch.layer_norm(x, shape, scale, bias, epsilon)
        return _affine(torch.layer_norm(x, shape, None, None, epsilon), scale, bias)

    return run


def _layer_norm_with_statistics(axis: int, epsilon: float) -> Callable[..., tuple[torch.Tensor, ...]]:
    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        y, mean, deviation = torch.native_layer_norm(x, x.shape[axis:], None, None, epsilon)
        return _affine(y, scale, bias), mean.float(), deviation.float()

    return run


def _affine(y: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Scale and bias broadcast to `y`."""
    return y * scale if bias is None else y * scale + bias


@operator("GroupNormalization")
def group_normalization(node: Node) -> Run:
    """Over groups of channels of each sample (Wu and He 2018). Before opset 21 scale and bias are for groups."""
    _check_stash(node)
    groups, epsilon = node.need("num_groups"), node.get("epsilon", EPSILON)

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.group_norm(x, groups, scale, bias, epsilon, torch.backends.cudnn.enabled)

    def run_by_group(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1] // groups
        return run(x, scale.repeat_interleave(channels), bias.repeat_interleave(channels))

    return run if node.version >= SCALE_PER_CHANNEL_SINCE else run_by_group


@operator("RMSNormalization")
def rms_normalization(node: Node) -> Run:
    """Division by the root mean square over dimensions `axis` and after (Zhang and Sennrich 2019)."""
    _check_stash(node)
    axis, epsilon = node.get("axis", -1), node.get("epsilon", EPSILON)
    return lambda x, scale: rms_norm(x, scale, axis, epsilon)


def rms_norm(x: torch.Tensor, scale: torch.Tensor, axis: int, epsilon: float) -> torch.Tensor:
    """Divide by sqrt(mean(x ** 2) + epsilon) over dimensions `axis` and after, then scale. The scale has its type."""
    shape = x.shape[axis:]
    if scale.shape == shape and scale.dtype == x.dtype:
        return F.rms_norm(x, shape, scale, epsilon)
    return (F.rms_norm(x, shape, None, epsilon) * scale).to(scale.dtype)


@operator("LRN")
def local_response_normalization(node: Node) -> Run:
    """Division by a power of the sum of squares of `size` neighbouring channels (Krizhevsky et al. 2012)."""
    size, alpha, beta, bias = node.need("size"), node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    before, after = (size - 1) // 2, size // 2

    def run(x: torch.Tensor) -> torch.Tensor:
        squares = F.pad(x.square().reshape(x.shape[0], 1, x.shape[1], math.prod(x.shape[2:])), (0, 0, before, after))
        means = F.avg_pool2d(squares, (size, 1), stride=1).view(x.shape)
        y: torch.Tensor = x / (means * alpha + bias).pow(beta)
        return y

    return run
