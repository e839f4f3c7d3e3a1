"""`quantize.weights`: integer weights in blocks, float activations; rounding to nearest, GPTQ or AdaRound."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.contracts.recipe.quantize_weights import QuantizeWeights
from worker.engine.graph import Graph, Layer
from worker.engine.graph.passes.opset import raise_opset
from worker.engine.measure.kernels import KernelCount
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.gate import check_gain, refuse_quantized
from worker.engine.quantization.layer_errors import find_errors
from worker.engine.quantization.obstacles import obstacle_in_numbers
from worker.engine.quantization.sensitivity import QuantizedLayer
from worker.engine.quantization.stored_weights import Form, obstacle_in_layer, plan_storage
from worker.engine.quantization.weight_equalization import Prepared, equalize_if_closer
from worker.engine.quantization.weight_facts import weight_facts
from worker.engine.quantization.weight_only import WeightRewriter
from worker.engine.quantization.weight_rounding import ROUNDINGS, Rounded, round_on_inputs, round_to_nearest
from worker.engine.samples import Guess, Samples
from worker.engine.wording import counted

_HINT = "It works on float32 weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN and embeddings."
_OPSET, _IR_VERSION = 21, 10
"""The first whose DequantizeLinear knows blocks and 4 bits."""
_PREPARED, _ROUNDED = 0.1, 0.7
"""Shares of the work done; the rest is measuring each layer's error."""


class WeightOnlyQuantization(Method[QuantizeWeights]):
    """Weight-only quantization, in the main graph and in bodies alike."""

    step_type = QuantizeWeights
    takes_integers, makes_integers = False, True

    def apply(self, graph: Graph, step: QuantizeWeights, context: StepContext) -> Graph:
        """See `Method.apply`.

        Raises NOTHING_TO_QUANTIZE, ALREADY_QUANTIZED, OPSET_UNSUPPORTED or QUANTIZATION_WITHOUT_EFFECT.
        """
        refuse_quantized(graph, step.method)
        samples = Samples(graph.inputs, context.calibration) if context.calibration else context.samples
        prepared = _prepare(graph, step, samples)
        source, excluded = prepared.graph, _excluded(prepared.graph, step)
        layers = split_layers(
            source,
            step,
            context,
            lambda owner, each: obstacle_in_layer(each, step, excluded) or obstacle_in_numbers(owner, each),
        )
        if not layers:
            raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
        context.record.notes += prepared.notes
        rounded = _round(source, layers, step, samples, context)
        facts = _measure(source, layers, rounded, samples, context)
        rewriter = WeightRewriter(source)
        for each in rounded:
            rewriter.store(each)
        kernels = check_gain(graph, source)
        are_integer = _find_integer_layers(rounded, kernels)
        for layer in layers:
            context.record.done(
                layer,
                bits=step.bits,
                integer_kernel=are_integer[layer.name],
                repairs=prepared.repairs,
                **facts[layer.name],
            )
        context.record.note_held_back()
        context.record.notes += _told(layers, rounded, step, samples, context)
        return source

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        del graph
        return obstacle_in_layer(layer, QuantizeWeights())


def _prepare(graph: Graph, step: QuantizeWeights, samples: Samples) -> Prepared:
    """A copy in which the weights can be stored, equalized where that helps; layers left out keep theirs."""
    copy = graph.clone()
    copy.infer_shapes()
    notes = []
    chosen = [layer for layer in copy.select(step.include, step.exclude) if obstacle_in_layer(layer, step) is None]
    if any(weight.needs_new_types for weight in plan_storage(copy, chosen, step)):
        notes = raise_opset(copy, _OPSET, _OPSET)
        copy.model.ir_version = max(copy.model.ir_version, _IR_VERSION)
        copy.infer_shapes()
    if not chosen:
        return Prepared(copy, notes=notes)
    left_alone = {layer.node.name or "" for layer in copy.layers()} - {layer.node.name or "" for layer in chosen}
    prepared = equalize_if_closer(copy, step, samples, left_alone)
    return replace(prepared, notes=notes + prepared.notes)


def _excluded(graph: Graph, step: QuantizeWeights) -> set[int]:
    return {id(layer.node) for layer in graph.select(step.exclude)} if step.exclude else set()


def _round(
    graph: Graph, layers: Sequence[Layer], step: QuantizeWeights, samples: Samples, context: StepContext
) -> list[Rounded]:
    weights = plan_storage(graph, layers, step)

    def progress(share: float) -> None:
        context.progress(_PREPARED + (_ROUNDED - _PREPARED) * share, f"rounding by {step.rounding}")

    progress(0)
    if step.rounding == "nearest":
        return [round_to_nearest(graph, weight) for weight in weights]
    run = Pass(samples, step.samples, context.device, progress)
    return round_on_inputs(graph, weights, ROUNDINGS[step.rounding], run)


def _told(
    layers: Sequence[Layer], rounded: Sequence[Rounded], step: QuantizeWeights, samples: Samples, context: StepContext
) -> list[str]:
    """What a reader would not expect: ties, data, and what stays as slow as it was."""
    notes = []
    chosen = {layer.name for layer in layers}
    tied = {reader.name for each in rounded for reader in each.weight.readers} - chosen
    if tied:
        notes.append(f"{', '.join(sorted(tied))} reads the same weights as a layer that was chosen: they are quantized")
    if step.rounding != "nearest":
        notes += _told_of_data(rounded, step, samples, context)
    if unpacked := [layer for layer in layers if layer.op not in ("MatMul", "Gemm")]:
        what = ", ".join(sorted({layer.op for layer in unpacked}))
        notes.append(f"weights of {what} become floats again at each run: smaller, but slower")
    return notes


def _told_of_data(
    rounded: Sequence[Rounded], step: QuantizeWeights, samples: Samples, context: StepContext
) -> list[str]:
    notes = []
    if isinstance(samples.source, Guess):
        notes.append(f"{step.rounding} rounded for made-up inputs: with calibration data it comes closer")
    elif samples is context.samples:
        notes.append(f"{step.rounding} rounded for the data it is measured on, since there is no calibration data")
    blind = [each.weight.name for each in rounded if not each.is_learned]
    if blind:
        notes.append(
            f"{counted(len(blind), 'weight')} rounded to nearest: {step.rounding} works on matrix products and "
            "convolutions, not too wide, that samples reach"
        )
    return notes


def _measure(
    graph: Graph, layers: Sequence[Layer], rounded: Sequence[Rounded], samples: Samples, context: StepContext
) -> dict[str, dict[str, Any]]:
    """What rounding does to the weights and outputs of each layer, by its name."""
    restored = {each.weight.name: each.restored() for each in rounded}

    def quantized(layer: Layer) -> QuantizedLayer:
        return QuantizedLayer(layer, {weight.name or "": restored[weight.name or ""] for weight in layer.weights})

    def progress(share: float) -> None:
        context.progress(_ROUNDED + (1 - _ROUNDED) * share, "measuring each layer alone")

    errors = find_errors(graph, layers, quantized, Pass(samples, len(samples), context.device, progress))
    if errors.note:
        context.record.note(errors.note)
    facts = {}
    for layer in layers:
        pairs = [(graph.array(weight).ravel(), restored[weight.name or ""].ravel()) for weight in layer.weights]
        before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
        facts[layer.name] = {**weight_facts(before, after), **errors.facts.get(layer.name, {})}
    return facts


def _find_integer_layers(rounded: Sequence[Rounded], kernels: KernelCount) -> dict[str, bool | None]:
    """Whether ONNX Runtime multiplies integers for each layer, by its name; None where that cannot be told.

    It does for packed weights, and where it fuses DequantizeLinear with a product; it does not say where, only how
    often.
    """
    readers = {
        form: [each.name for r in rounded if r.weight.form is form for each in r.weight.readers] for form in Form
    }
    fused = kernels.operators["MatMulNBits"] - len(readers[Form.PACKED])
    turned = len(readers[Form.TURNED])
    others = {Form.PACKED: True, Form.TURNED: fused >= turned if fused in (0, turned) else None}
    others[Form.IN_PLACE] = False if fused <= turned else None
    return {name: others[form] for form, names in readers.items() for name in names}
