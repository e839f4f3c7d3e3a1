"""Tells per layer what quantization did: bits, range, errors, the kernel that runs it. Nothing is quantized here."""

from collections.abc import Sequence

from worker.engine.graph import Layer
from worker.engine.methods.method import Record
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.layer_errors import find_errors
from worker.engine.quantization.search import Story
from worker.engine.quantization.trials import Candidate
from worker.engine.quantization.weight_facts import weight_facts

NOT_PLACED = "a tensor it reads or writes held NaN or infinity on the samples, or none of them reached it"


def record_layers(layers: Sequence[Layer], best: Candidate, story: Story, record: Record, run: Pass) -> None:
    """Record every one of `layers`, of the graph that was to be quantized; those that `best` has are done."""
    quantized, source = best.layers(), best.plan.source
    done = [each.layer for each in quantized.values()]
    found = find_errors(source, done, lambda layer: quantized[layer.node.name or ""], run)
    if found.note:
        record.note(found.note)
    for layer in layers:
        name = layer.node.name or ""
        if name not in quantized:
            record.skipped(layer, _why_not(name, story))
            continue
        weight, quantizer = best.quantized.weights[name], best.quantized.inputs[name]
        record.done(
            layer,
            bits=weight.bits,
            activation_bits=8 * quantizer.zero_point.dtype.itemsize,
            range=quantizer.range,
            integer_kernel=best.kernels.multiplies_integers(name),
            repairs=story.repairs,
            **weight_facts(source.array(layer.weight.name or ""), best.quantized.restored(name)),
            **found.facts.get(layer.name, {}),
        )


def _why_not(layer: str, story: Story) -> str:
    if layer in story.reverted:
        return f"left in float: that brings {story.reverted[layer]:.1f} dB"
    return NOT_PLACED
