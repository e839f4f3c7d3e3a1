"""`Twin`: a copy of a module in which is masked what Torch-Pruning removes of the original, to compare both."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_BY_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.PReLU)  # noqa: SLF001 - torch's only name


class CannotMaskError(Exception):
    """What a removal means for a kind of module is not known here."""


class Twin:
    """Removals are told one after the other, with indices as they are after those before."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        self._left: dict[tuple[str, int], Tensor] = {}

    def mask_layer(self, name: str, indices: Sequence[int], *, are_outputs: bool) -> None:
        """Zero what belongs to these output or input channels. Raises CannotMaskError."""
        module = self.model.get_submodule(name)
        for parameter, axis in _dimensions(module, are_outputs=are_outputs).items():
            self.mask_parameter(f"{name}.{parameter}", axis, indices)

    def mask_parameter(self, name: str, axis: int, indices: Sequence[int]) -> None:
        """Zero these slices of a parameter."""
        parameter, gone = self.model.get_parameter(name), torch.tensor(list(indices))
        left = self._left.get((name, axis), torch.arange(parameter.shape[axis]))
        parameter.data.index_fill_(axis, left[gone], 0)
        stays = torch.ones(len(left), dtype=torch.bool)
        stays[gone] = False
        self._left[name, axis] = left[stays]


def deviation(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference over the largest number of the same output; infinite where shapes differ."""
    return max(_relative(*pair) for pair in zip(got, wanted, strict=True))


def _dimensions(module: nn.Module, *, are_outputs: bool) -> Mapping[str, int]:
    """The parameters of a module that have these channels, and the axis of each along which they lie."""
    match module:
        case nn.Conv1d() | nn.Conv2d() if module.groups == module.out_channels > 1:
            axes = {"weight": 0, "bias": 0}
        case nn.Conv1d() | nn.Conv2d() | nn.Linear():
            axes = {"weight": 0, "bias": 0} if are_outputs else {"weight": 1}
        case nn.ConvTranspose2d():
            axes = {"weight": 1, "bias": 0} if are_outputs else {"weight": 0}
        case nn.Embedding():
            axes = {"weight": 1}
        case _ if isinstance(module, _BY_CHANNEL):
            axes = {"weight": 0, "bias": 0}
        case _ if any(True for _ in module.parameters(recurse=False)):
            raise CannotMaskError(type(module).__name__)
        case _:
            axes = {}
    return {name: axis for name, axis in axes.items() if getattr(module, name, None) is not None}


def _relative(got: Tensor, wanted: Tensor) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    return ((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)).item()
