"""`make_student`: a smaller network made of a graph: shallower, thinner or begun anew. How is in the files beside."""

from app.contracts.training import Student
from worker.engine.graph import Graph
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.students.context import StudentContext
from worker.engine.students.initialization import initialize, tell
from worker.engine.students.restoration import keep_all, restore
from worker.engine.students.roles import Role
from worker.engine.students.shallower import make_shallower
from worker.engine.students.thinner import make_thinner
from worker.engine.students.unit_variance import scale_to_unit_variance


def make_student(graph: Graph, student: Student, context: StudentContext) -> Graph:
    """A graph of its own with the inputs and outputs of `graph`; `student.model` is not looked at.

    Shallower first, as blocks are judged best while they are whole; then thinner; then new weights, or statistics
    restored on the samples.
    Raises SlimlineError ALREADY_QUANTIZED, NOTHING_TO_DROP, NOTHING_TO_PRUNE, or for a graph that torch cannot run.
    """
    refuse_quantized(graph, "a student")
    made, kept = graph.clone(), keep_all(graph)
    if student.depth is not None:
        made = make_shallower(made, student.depth, context)
    if student.width is not None:
        made, kept = make_thinner(made, student.width, context)
    if student.weights == "random":
        context.note(_begin_anew(made, context))
    elif student.depth is not None or student.width is not None:
        restore(made, graph, kept, context)
    return made


def _begin_anew(graph: Graph, context: StudentContext) -> str:
    """Random weights, in place; what was done, in words."""
    parts = initialize(graph, context.seed)
    weights = {part.value.name or "" for part in parts if part.role is Role.WEIGHT}
    count = scale_to_unit_variance(graph, weights, context.samples, context.device)
    scaled = f"{count} weights scaled for outputs of unit variance on data, less where residual branches end"
    return f"new random weights (seed {context.seed}): {tell(parts)}; {scaled}"
