"""Where a graph's weights live in the module, and how they get back into the graph."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.dtypes import to_array
from worker.engine.torch_graph.source import Weight


class Holder(nn.Module):
    """A module that may hold weights of any name, also those of its own attributes, such as `training`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class Namespace(Holder):
    """A part of dotted names: `layer1.0` in `layer1.0.weight`. It holds weights and computes nothing."""

    def forward(self) -> None:
        """Nothing to run."""


@dataclass(frozen=True)
class Place:
    """The module and attribute that hold a weight."""

    holder: nn.Module
    leaf: str
    is_attribute: bool
    """False where `leaf` means something else to `nn.Module`, as `forward` does: it is then only in its tables."""

    def read(self) -> torch.Tensor:
        """The weight, as its parametrizations and the hooks of `torch.nn.utils.prune` give it."""
        for hook in self.holder._forward_pre_hooks.values():  # noqa: SLF001 - no forward would run them
            hook(self.holder, ())
        if self.is_attribute:
            return getattr(self.holder, self.leaf)  # type: ignore[no-any-return]  # nn.Module gives Tensor | Module
        tables = {**self.holder._parameters, **self.holder._buffers}  # noqa: SLF001 - no other way to such a name
        return tables[self.leaf]  # type: ignore[return-value]  # no entry of ours is None


def free_prefix(names: Iterable[str]) -> str:
    """The first part of a dotted name that none of `names` begins with."""
    prefix, taken = "_numbers", {name.split(".")[0] for name in names}
    while prefix in taken:
        prefix += "_"
    return prefix


def find_place(root: nn.Module, name: str) -> Place:
    """The place for the weight `name`: a dotted name is nested, so that `state_dict` has it as it is."""
    holder = root
    *path, leaf = name.split(".")
    for part in path:
        inner = holder._modules.get(part)  # noqa: SLF001 - getattr would also find what is no module
        if inner is None:
            inner = holder._modules[part] = Namespace()  # noqa: SLF001 - add_module refuses an empty part
        holder = inner
    return Place(holder, leaf, bool(leaf) and not hasattr(holder, leaf))


def put(place: Place, tensor: torch.Tensor, *, is_saved: bool = True) -> None:
    """Put a parameter or a buffer there, whatever its name; `is_saved`: whether `state_dict` has it."""
    if isinstance(tensor, nn.Parameter):
        place.holder._parameters[place.leaf] = tensor  # noqa: SLF001 - register_parameter refuses names ONNX has
        return
    place.holder._buffers[place.leaf] = tensor  # noqa: SLF001 - the same
    if not is_saved:
        place.holder._non_persistent_buffers_set.add(place.leaf)  # noqa: SLF001 - the same


def write_back(weight: Weight, tensor: torch.Tensor) -> None:
    """Put `tensor` into the user's graph, in the weight's own type; what is equal to the last bit is left alone.

    Raises SlimlineError WEIGHT_MISMATCH for another shape.
    """
    home = weight.home
    if home is None:
        return
    shape = list(weight.tensor.shape.numpy())
    if list(tensor.shape) != shape:
        raise SlimlineError(
            "WEIGHT_MISMATCH",
            f"{weight.name!r} has shape {list(tensor.shape)} now; in the graph it is {shape}",
            node=weight.name,
            hint="a parametrization must keep the shape; edit the graph to change it",
        )
    array = to_array(tensor, weight.tensor.dtype)
    stored = _stored(home)
    if stored is not None and np.array_equal(_bits(stored.numpy()), _bits(array)):
        return
    new = ir.Tensor(array.copy(), dtype=weight.tensor.dtype, name=home.name)
    node = home.producer()
    if node is None:
        home.const_value = new
    else:
        node.attributes.clear()
        node.attributes["value"] = ir.AttrTensor("value", new)


def _stored(home: ir.Value) -> ir.TensorProtocol | None:
    node = home.producer()
    if node is None:
        return home.const_value
    return node.attributes["value"].as_tensor() if "value" in node.attributes else None


def _bits(array: np.ndarray) -> np.ndarray:
    """The array's bytes: NaNs are equal to themselves, and 0.0 is not -0.0."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
