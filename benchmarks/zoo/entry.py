"""`Entry`: one model of the zoo with its inputs and its way to ONNX. Which models there are is in `table`."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_leaves

OPSET = 20
SEED = 0
EXPORT_BATCH = 2
_STATISTICS_BATCH = 8
NOISE = 0.05
"""Added to every weight, by its spread: those of equal layers, and scales of one, must be told apart."""


@dataclass(frozen=True)
class Scale:
    """How large a model and its inputs are. What a unit of width or depth stands for is the model's own."""

    width: int
    depth: int
    extent: int
    """Side of a picture in pixels, or length of a sequence."""


@dataclass(frozen=True)
class Entry:
    """A model at one scale. Two builds, and two examples of one size, are equal."""

    name: str
    scale: Scale
    make: Callable[[Scale], nn.Module]
    make_inputs: Callable[[Scale, int], dict[str, Tensor]]
    """Inputs by the names that `forward` and the ONNX graph give them, for a batch size."""
    dynamic: Mapping[str, Mapping[int, str]]
    """Input -> axis -> name of a dimension that an export leaves open."""
    other_extents: tuple[int, ...] = ()
    """Extents besides `scale.extent` that the model takes, where the extent is dynamic too."""

    def build(self) -> nn.Module:
        """The model in eval mode, as if it had been trained: no weights are equal, no normalization does nothing."""
        with seeded(), torch.no_grad():
            model = self.make(self.scale)
            for weight in model.parameters():
                spread = weight.std(correction=0).item()
                weight.add_(torch.randn_like(weight), alpha=NOISE * (spread or 1.0))
            _normalize(model, self.make_inputs(self.scale, _STATISTICS_BATCH))
        return model.eval()

    def example(self, batch: int = EXPORT_BATCH, extent: int | None = None) -> dict[str, Tensor]:
        """Inputs by name."""
        scale = Scale(self.scale.width, self.scale.depth, extent or self.scale.extent)
        with seeded():
            return self.make_inputs(scale, batch)

    def program(self, *, opset: int = OPSET, is_optimized: bool = True) -> ONNXProgram:
        """The export in memory. Without the exporter's optimizer, weights keep their names, forms and ties."""
        return export_module(self.build(), self.example(), self.dynamic, opset=opset, is_optimized=is_optimized)

    def export(self, path: Path) -> None:
        """Write the model as a user of `torch.onnx.export` would."""
        self.program().save(path)

    def export_both(self, folder: Path) -> "Exported":
        """Write the model twice into `folder`, for the time of one export."""
        both = Exported(self, folder / f"{self.name}.plain.onnx", folder / f"{self.name}.onnx")
        program = self.program(is_optimized=False)
        program.save(both.plain)
        with quiet():
            program.optimize()
        program.save(both.optimized)
        return both

    def export_legacy(self, path: Path) -> None:
        """Write the model with the exporter that torch had before."""
        example = self.example()
        with quiet(), torch.no_grad():
            torch.onnx.export(
                self.build(),
                tuple(example.values()),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(example),
                dynamic_axes={name: dict(axes) for name, axes in self.dynamic.items()},
            )


@dataclass(frozen=True)
class Exported:
    """An entry and its ONNX files."""

    entry: Entry
    plain: Path
    """Without the exporter's optimizer: weights keep their names, forms and ties."""
    optimized: Path
    """As the exporter gives it by default: BatchNorm folded, weights transposed and renamed, ties gone."""


def export_module(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, str]],
    *,
    opset: int = OPSET,
    is_optimized: bool = True,
) -> ONNXProgram:
    """The export of any module in memory, as `Entry.program` gives it of those in the zoo."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            kwargs=dict(inputs),
            opset_version=opset,
            dynamic_shapes={name: dict(dynamic.get(name, {})) for name in inputs},
            input_names=list(inputs),
            optimize=is_optimized,
            verbose=False,
        )
    assert program is not None
    return program


def outputs_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What a native model gives, in the order in which its export gives it."""
    return [leaf for leaf in tree_leaves(model(**inputs)) if isinstance(leaf, Tensor)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings, log lines and prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def _normalize(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Give every BatchNorm the statistics of what it sees."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    if layers:
        model.train()(**inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
