"""Which inner tensors of a student and a teacher are compared. Their loss is in `features`.

Legend: N samples.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Literal

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from app.contracts.training import FeaturePair
from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.watching import count_fed

Shape = tuple[int, ...]
_MOST_PAIRS = 4
_MATRIX = 2


def inner_tensors(graph: Graph) -> list[str]:
    """Floating-point tensors on the way to the outputs, in order; not those in bodies, which may not be made.

    Only those that all others pass through, such as the ends of residual blocks, where there are at least 4.
    """
    typed = graph.clone()
    typed.infer_shapes()
    nodes = list(typed.model.graph)
    places = {node: place for place, node in enumerate(nodes)}
    made = [(node, value) for node in nodes if node.op_type != "Constant" for value in node.outputs if _is_float(value)]
    made = [(node, value) for node, value in made if value.uses() and not value.is_graph_output()]
    # A tensor spans the places after which it is still to be read; a body may read it any time.
    spans = [(places[node], max(places.get(reader, len(nodes)) for reader, _ in value.uses())) for node, value in made]
    begins, ends = Counter(begin for begin, _ in spans), Counter(end for _, end in spans)
    crossing = list(accumulate(begins[place] - ends[place] for place in range(len(nodes))))
    names = [value.name or "" for _, value in made]
    trunk = [name for name, span in zip(names, spans, strict=True) if 1 in crossing[slice(*span)]]
    return trunk if len(trunk) >= _MOST_PAIRS else names


def _is_float(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point()


def inner_shapes(
    module: TorchGraph, names: Iterable[str], batch: TrainingBatch, *, only_learning: bool = False
) -> dict[str, Shape]:
    """The shapes of those tensors that hold something of each sample of `batch`, in the order in which they are made.

    `only_learning` leaves out those that no gradient passes. Names that `module` does not know are left out too.
    """
    trial, shapes = copy.deepcopy(module).eval(), dict[str, Shape]()

    def note(name: str, tensor: object) -> None:
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.dim() < _MATRIX:
            return
        if len(tensor) == count_fed(batch) and (tensor.requires_grad or not only_learning):
            shapes[name] = (len(batch), *tensor.shape[1:])

    for name in dict.fromkeys(names):
        with suppress(SlimlineError):
            trial.observe(name, partial(note, name))
    with torch.set_grad_enabled(only_learning):
        trial(*batch.inputs)
    return shapes


def choose_pairs(
    asked: Literal["auto"] | Sequence[FeaturePair], student: Mapping[str, Shape], teacher: Mapping[str, Shape]
) -> list[FeaturePair]:
    """The pairs asked for; for `auto` up to 4 along the depth of the network.

    Those are of one name where most have one in both, or else the ends of stages; shapes differ at most in width.
    Shapes come by name, in the order in which tensors are made. Raises SlimlineError FEATURES_NOT_FOUND.
    """
    if asked != "auto":
        for pair in asked:
            _check_known(pair.student, student, "student")
            _check_known(pair.teacher, teacher, "teacher")
        return list(asked)
    same = [name for name, shape in student.items() if name in teacher and _is_alike(shape, teacher[name])]
    named = [FeaturePair(student=name, teacher=name) for name in same]
    are_most = 2 * len(named) >= min(len(student), len(teacher))
    pairs = named if are_most and named else _pair_stages(student, teacher) or named
    if not pairs:
        raise SlimlineError(
            "FEATURES_NOT_FOUND",
            "no inner tensors of student and teacher are of one name, or of shapes that differ only in width",
            hint="Name them: `features: [{student: TENSOR, teacher: TENSOR}]`, or use the loss soft or logits.",
        )
    return _spread_evenly(pairs)


def _check_known(name: str, shapes: Mapping[str, Shape], whose: str) -> None:
    if name not in shapes:
        raise SlimlineError(
            "FEATURES_NOT_FOUND",
            f"the {whose} makes no tensor {name!r} that holds numbers of each sample",
            node=name,
            hint="`python -m worker.engine inspect` lists the names; or leave `features` out, to have pairs found.",
        )


def _pair_stages(student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> list[FeaturePair]:
    """The end of each stage of the student with the end of the teacher's that is most like it."""
    own, others = _stage_ends(student), _stage_ends(teacher)
    pairs = []
    for shape, (name, depth) in own.items():
        fitting = [
            (shape != each, abs(depth - at), its) for each, (its, at) in others.items() if _is_alike(shape, each)
        ]
        if fitting:
            pairs.append(FeaturePair(student=name, teacher=min(fitting)[-1]))
    return pairs


def _stage_ends(shapes: Mapping[str, Shape]) -> dict[Shape, tuple[str, float]]:
    """The last tensor of each shape, and how deep in the network it is, 0 to 1."""
    last = {shape: (name, place / len(shapes)) for place, (name, shape) in enumerate(shapes.items())}
    return dict(sorted(last.items(), key=lambda item: item[1][1]))


def _is_alike(one: Shape, other: Shape) -> bool:
    return one == other or width_axis(one, other) is not None


def width_axis(one: Shape, other: Shape) -> int | None:
    """The only axis in which shapes differ, if that may be the channels': the first after N, or the last."""
    if len(one) != len(other):
        return None
    differing = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return differing[0] if len(differing) == 1 and differing[0] in (1, len(one) - 1) else None


def _spread_evenly(pairs: list[FeaturePair]) -> list[FeaturePair]:
    """At most 4 of them: the last, and others at equal distances before it."""
    count = min(_MOST_PAIRS, len(pairs))
    return [pairs[len(pairs) * (number + 1) // count - 1] for number in range(count)]
