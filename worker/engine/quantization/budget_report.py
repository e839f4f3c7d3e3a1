"""Tells what came of a budget: what is reached, with how many bits, how well it was predicted. Nothing is decided."""

from collections import Counter

import numpy as np

from app.contracts.recipe.quantize_mixed import QuantizeMixed
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.quantization.bit_options import FLOAT
from worker.engine.quantization.mixed import Found, Outcome
from worker.engine.wording import counted

_SMALL = 4


def tell_budget(graph: Graph, step: QuantizeMixed, found: Found) -> list[str]:
    """Notes for the user on what became of `graph` as it came."""
    outcome = found.outcome
    notes = [_kept(graph, step, found), _counts(graph, outcome), _fidelity(found)]
    if step.asks_for_speed:
        notes.append("times were measured on this machine: another run may choose otherwise")
    elif FLOAT in outcome.bits.values():
        notes.append("layers in float beside integers cost conversions: without 32 in `choices` there are fewer")
    if _SMALL in outcome.bits.values():
        notes.append(
            "4 bits save size and cost speed: CPUs have no kernel for them and unpack the weights in each call"
        )
    return notes


def _kept(graph: Graph, step: QuantizeMixed, found: Found) -> str:
    ((name, limit),) = step.budget.model_dump(exclude_none=True).items()
    outcome = found.outcome
    reached = {
        "size_ratio": f"{outcome.size / size_of_weights(graph.model):.4f}",
        "size_bytes": str(outcome.size),
        "latency_ratio": f"{outcome.latency:.3f}",
        "sqnr_db": f"{outcome.candidate.decibels:.2f}",
    }
    kept = "is kept" if found.is_within else "cannot be kept, this is what comes nearest"
    return f"the budget {name}={limit:.12g} {kept}: {reached[name]}"


def _counts(graph: Graph, outcome: Outcome) -> str:
    counts = Counter(outcome.bits.values())
    layers = [f"{counted(counts[bits], 'layer')} at {bits} bits" for bits in sorted(counts) if bits != FLOAT]
    floats = [f"{counted(counts[FLOAT], 'layer')} in float"] if counts[FLOAT] else []
    size = f"weights take {outcome.size:,} bytes instead of {size_of_weights(graph.model):,}"
    return f"{', '.join(layers + floats)}; {size}"


def _fidelity(found: Found) -> str:
    predicted = -10 * np.log10(max(found.predicted_noise, np.finfo(float).tiny))
    measured = f"{found.outcome.candidate.decibels:.1f} dB on the samples"
    return f"the outputs have {measured}; the errors of layers measured alone add up to {predicted:.1f} dB"
