"""Prunes native modules with Torch-Pruning as its README does. Runs in the peer's interpreter, never in ours."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning  # type: ignore[import-not-found]  # installed beside the peer alone
from torch import Tensor, nn

from benchmarks.pruning.classifiers import estimate_again, load_classifier
from benchmarks.pruning.natives import BATCH, natives
from benchmarks.pruning.pruners.masked_twin import CannotMaskError, Twin, deviation
from benchmarks.pruning.pruners.order import Answer, Order, serve
from benchmarks.zoo.entry import export_module, outputs_of, quiet


@dataclass(frozen=True)
class _Subject:
    """A module to prune. `heads`: of layers that make any. `data`: samples to estimate statistics on, if there are."""

    model: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[nn.Module]
    heads: Mapping[nn.Module, int]
    data: Tensor | None


def prune(order: Order, answer: Answer) -> None:
    """Options: `amount`; `size` of a native module, or the `model` and `calibrate` files of a classifier; `norm`."""
    subject = _classifier(order) if "model" in order.options else _native(order)
    twin = Twin(subject.model)
    shapes = [each.shape for each in _run(subject.model, subject.inputs)]
    started = time.perf_counter()
    pruner = _pruner(subject, order.options)
    answer.analysis_s = time.perf_counter() - started
    answer.groups = {"channel": _count_groups(pruner)}
    maskable = _prune(pruner, twin)
    answer.work_s = time.perf_counter() - started
    pruned = _run(subject.model, subject.inputs)
    if [each.shape for each in pruned] != shapes:
        raise RuntimeError("the pruned module gives outputs of other shapes")
    answer.deviation = deviation(pruned, _run(twin.model, subject.inputs)) if maskable else None
    if subject.data is not None:
        estimate_again(subject.model, subject.data)
    axes = dict.fromkeys(subject.inputs, BATCH)
    export_module(subject.model, subject.inputs, axes).save(order.output)


def _native(order: Order) -> _Subject:
    native = natives(order.options["size"])[order.subject]
    model = native.entry.build()
    return _Subject(model, native.entry.example(), native.output_layers(model), native.heads(model), None)


def _classifier(order: Order) -> _Subject:
    data = torch.from_numpy(np.load(order.options["calibrate"])["x"])
    model = load_classifier(order.subject, Path(order.options["model"]), data)
    return _Subject(model, {"input": data[:2]}, [model[-1]], {}, data)


def _pruner(subject: _Subject, options: Mapping[str, Any]) -> Any:
    """Its defaults, and of attention whole heads, as its examples do it.

    The empty mappings are its defaults too, but those it keeps from one pruner to the next.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_pruning.pruner.MagnitudePruner(
            subject.model,
            dict(subject.inputs),
            importance=torch_pruning.importance.MagnitudeImportance(p=options.get("norm", 2)),
            global_pruning=False,
            pruning_ratio=options["amount"],
            ignored_layers=list(subject.outputs),
            in_channel_groups={},
            out_channel_groups={},
            num_heads=dict(subject.heads),
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=options["amount"],
        )


def _count_groups(pruner: Any) -> int:
    groups = pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types)
    return sum(1 for _ in groups)


def _prune(pruner: Any, twin: Twin) -> bool:
    """Prune, and mask the same in the twin; tells whether that was possible."""
    names = {module: name for name, module in pruner.model.named_modules()}
    maskable = True
    for group in pruner.step(interactive=True):
        for dependency, indices in group:
            try:
                _mask_alike(pruner, dependency, indices, names.get(dependency.target.module), twin)
            except CannotMaskError:
                maskable = False
        group.prune()
    return maskable


def _mask_alike(pruner: Any, dependency: Any, indices: Sequence[int], layer: str | None, twin: Twin) -> None:
    target = dependency.target
    if isinstance(target.module, nn.Parameter):
        name = pruner.DG._param_to_name[target.module]  # noqa: SLF001 - it tells no other way
        twin.mask_parameter(name, target.pruning_dim, indices)
    elif layer is not None:
        twin.mask_layer(layer, indices, are_outputs=pruner.DG.is_out_channel_pruning_fn(dependency.handler))


def _run(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return outputs_of(model, inputs)


if __name__ == "__main__":
    with quiet():
        serve(prune)
