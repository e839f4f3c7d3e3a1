"""`train`: fine-tuning, distillation and quantization-aware training of whatever graph it is given."""

import numpy as np

from app.contracts.recipe.train import Train
from app.contracts.training import Distillation
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.students.context import StudentContext
from worker.engine.students.student import make_student
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.training.asking import ask_for_training
from worker.engine.training.rewritings import rewrite
from worker.engine.training.training import train


class Training(Method[Train]):
    """Training on `data.train`: on labels, against a teacher, or both."""

    step_type = Train

    def apply(self, graph: Graph, step: Train, context: StepContext) -> Graph:
        """See `Method.apply`; raises what `train` raises, and refusals of students and teachers."""
        student = _find_student(graph, step.distill, context)
        untrained = rewrite(student).untrained
        layers = split_layers(student, step, context, lambda _, layer: untrained.get(layer.name))
        if not layers:
            raise context.record.refusal("NOTHING_TO_TRAIN", "Train before the step that makes integers of weights.")
        outcome = train(ask_for_training(student, step, step, context))
        for layer in layers:
            context.record.done(layer, sqnr_db=_change(student, outcome.graph, layer))
        context.record.notes += outcome.notes
        return outcome.graph

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return self.obstacles(graph)[layer.name]

    def obstacles(self, graph: Graph) -> dict[str, str | None]:
        """See `Method.obstacles`."""
        untrained = rewrite(graph).untrained
        return {layer.name: untrained.get(layer.name) for layer in graph.layers()}


def _find_student(graph: Graph, distill: Distillation | None, context: StepContext) -> Graph:
    if distill is None or distill.student is None:
        return graph
    wanted = distill.student
    if wanted.model is not None:
        graph = context.models.find(wanted.model)
        if wanted.weights == "inherited":
            return graph
    return make_student(
        graph, wanted, StudentContext(context.samples, context.seed, context.device, context.record.note)
    )


def _change(before: Graph, after: Graph, layer: Layer) -> float | None:
    """How near its weights stayed to what they were; None for integers, whose scales have changed too."""
    pairs = [(before.array(weight), after.array(weight.name or "")) for weight in layer.weights]
    if any(old.dtype.kind not in "fV" for old, _ in pairs):
        return None
    return sqnr_db(
        *(np.concatenate([each.astype(np.float32).ravel() for each in side]) for side in zip(*pairs, strict=True))
    )
