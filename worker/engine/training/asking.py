"""The training that a step asks for, from its options and its context. The loop is in `loop`."""

from app.contracts.recipe import Step
from app.contracts.training import TrainingOptions
from worker.engine.graph import Graph
from worker.engine.methods.method import StepContext
from worker.engine.training.request import Request


def ask_for_training(graph: Graph, step: Step, options: TrainingOptions, context: StepContext) -> Request:
    """A training of `graph` within `step`; layers that the step leaves out do not learn.

    Rounds of one step share a seed, so that the same samples judge in all of them. Raises what finding a teacher
    raises.
    """
    if context.training is None:
        raise ValueError("the recipe was not checked for its data")
    is_partial = bool(step.include or step.exclude)
    return Request(
        graph=graph,
        options=options,
        data=context.training,
        device=context.device,
        seed=context.seed,
        task=context.task,
        teacher=context.models.find(options.distill.teacher) if options.distill else None,
        layers=frozenset(layer.name for layer in graph.select(step.include, step.exclude)) if is_partial else None,
        checkpoints=context.checkpoints,
        telling=context.telling(),
        processes=context.devices,
    )
