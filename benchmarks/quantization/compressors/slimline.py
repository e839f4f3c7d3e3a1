"""Quantizes with Slimline's engine: the step alone, file to file, or with `whole` all of `compress()`."""

from importlib import import_module

from app.contracts.recipe.notation import parse_recipe
from benchmarks.quantization.compressors.order import Order, serve
from worker.engine import compress
from worker.engine.data import open_dataset
from worker.engine.export.onnx import export_onnx
from worker.engine.ingest import ingest_model
from worker.engine.methods import registry
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples
from worker.engine.torch_graph.table import find_operator

_LOADED_LATE = ("onnx.reference", "onnxscript.optimizer", "onnxscript.version_converter")
"""What the engine imports when it first needs it."""


def quantize(order: Order) -> None:
    """Options: `recipe`, one step in the string notation; `whole`: with the checks and measurements of a job."""
    recipe = order.options["recipe"]
    if order.options.get("whole"):
        compress(order.model, recipe=recipe, output=order.output, calibrate=order.calibrate, device="cpu")
    else:
        _apply_step(order, recipe)


def _apply_step(order: Order, recipe: str) -> None:
    """What a peer's function does: read the model, quantize it, write it; nothing is verified or measured."""
    (step,) = steps = parse_recipe(recipe)
    graph, _ = ingest_model(order.model)
    with open_dataset(order.calibrate) as calibration:
        context = StepContext(
            record=Record(0, step.method),
            calibration=calibration,
            samples=Samples(graph.inputs, calibration),
            seed=0,
            device="cpu",
            progress=lambda _share, _message: None,
        )
        export_onnx(registry()[step.method].apply(graph, step, context), steps, order.output)


if __name__ == "__main__":
    registry()  # every method,
    find_operator("", "Conv")  # and every operator of TorchGraph: imports are not the work's time
    for module in _LOADED_LATE:
        import_module(module)
    serve(quantize)
