"""`train()`: a training from graph to graph. Here its parts are put together; the loop itself is `loop`."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import torch

from app.contracts.failure import SlimlineError
from worker.engine.session import Device
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batches import TrainingData, check_labels_vary
from worker.engine.training.distributed.launch import train_together, why_not_together
from worker.engine.training.distributed.sharing import share_gradients
from worker.engine.training.distributed.team import ALONE, Team
from worker.engine.training.layer_choice import initializer_of, weights_read_by
from worker.engine.training.loop import Loop, Setting
from worker.engine.training.objective.goal import Goal
from worker.engine.training.objective.objective import Objective, build_objective
from worker.engine.training.optimization import Clipper, make_optimizer
from worker.engine.training.request import Outcome, Request
from worker.engine.training.rewriting import Rewriting
from worker.engine.training.rewritings import rewrite
from worker.engine.training.trainee import SMALLEST_NORMED, Trainee
from worker.engine.training.update import Precision, Updater
from worker.engine.wording import counted

_KNOWN_SAMPLES = 2048
"""What rewritings see at most before training begins."""
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(request: Request) -> Outcome:
    """Train the graph of `request`.

    On a CPU the same request gives the same weights, whether it was killed and gone on with or not, unless it ends by
    time. Raises SlimlineError: NOTHING_TO_TRAIN, LABELS_MISSING, LABELS_OUT_OF_RANGE, ONE_CLASS_ONLY,
    TEACHER_MISMATCH, TRAINING_DIVERGED, TIME_BUDGET_TOO_SMALL, OUT_OF_MEMORY, TRAINING_PROCESS_DIED and what its parts
    refuse.
    """
    if request.processes == 1:
        return train_in(ALONE, request)
    obstacle = why_not_together(request)
    if obstacle is None:
        return train_together(request)
    outcome = train_in(ALONE, request)
    return replace(outcome, notes=[*outcome.notes, f"trained in one process of {request.processes}: {obstacle}"])


def train_in(team: Team, request: Request) -> Outcome:
    """The part of this process in a training by `team`; only the leader's outcome is one."""
    data = TrainingData(
        request.data, request.graph, request.options, request.seed, request.device, team.rank, team.world
    )
    rewriting = rewrite(request.graph, may_renormalize=_may_renormalize(request, data))
    student = TorchGraph(rewriting.graph)
    rewriting.attach(student)
    _freeze(student, rewriting, request)
    _place(student, request.device)
    with closing(data.training_batches(_KNOWN_SAMPLES)) as samples:
        rewriting.begin(student, samples)
    objective = _make_objective(student, data, request)
    trainee = Trainee(objective, rewriting, request)
    rate = request.options.rate(is_normalized=bool(trainee.norms))
    updater = _make_updater(objective, trainee, data, request, rate)
    if not team.is_alone:
        _share(updater, trainee, data, team)
    if request.options.compile:
        student.compile()  # losses and the teacher's store stay as they are: they are little work
    setting = Setting(request.options, rate, request.seed, request.device, request.checkpoints, request.telling, team)
    loop = Loop(trainee, data, updater, setting)
    loop.run()
    student.eval().to("cpu")
    notes = [*objective.notes, *_describe(trainee, data, updater, request), *loop.notes]
    return Outcome(rewriting.finish(student), loop.curve.points, notes)


def _may_renormalize(request: Request, data: TrainingData) -> bool:
    """Not of a part, nor with few samples at a time, nor where a regularizer goes by the size of weights."""
    is_borne = request.regularizer is None or request.regularizer.bears_normalization
    return request.options.renormalize and is_borne and request.layers is None and data.batch_size >= SMALLEST_NORMED


def _place(student: TorchGraph, device: Device) -> None:
    """On a GPU convolutions are fastest with channels last."""
    student.to(device)
    if device == "cuda":
        student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out


def _freeze(student: TorchGraph, rewriting: Rewriting, request: Request) -> None:
    """Leave only weights of the chosen layers to move. Raises SlimlineError NOTHING_TO_TRAIN."""
    if request.layers is not None:
        moving = weights_read_by(rewriting.graph, request.layers)
        for name, parameter in student.named_parameters():
            if initializer_of(name) not in moving:
                parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise SlimlineError(
            "NOTHING_TO_TRAIN",
            "no chosen layer has weights that gradients reach",
            hint="Widen `include`; train before steps that make integers of products, such as quantize.dynamic.",
        )


def _make_objective(student: TorchGraph, data: TrainingData, request: Request) -> Objective:
    is_labelled = request.data.facts.has_labels
    if is_labelled and request.options.distill is None:
        check_labels_vary(request.data, request.task)
    goal = Goal(
        task=request.task,
        options=request.options,
        teacher=request.teacher,
        has_labels=is_labelled,
        samples=data.samples,
        device=request.device,
    )
    with closing(data.training_batches(data.batch_size)) as samples:
        objective = build_objective(student, request.graph, goal, next(samples))
    with closing(data.every_sample()) as samples:
        objective.remember(samples)
    return objective


def _make_updater(objective: Objective, trainee: Trainee, data: TrainingData, request: Request, rate: float) -> Updater:
    options, precision = request.options, _choose_precision(request)
    smallest = data.fixed_batch or 1

    def on_halved(part: int) -> None:
        effect = "to the same effect" if not trainee.norms else "normalised by fewer samples"
        request.telling.warn(f"memory is short: {counted(part, 'sample')} at a time from now on, {effect}")

    return Updater(
        forward=objective,
        optimizer=make_optimizer(objective, options, rate),
        precision=precision,
        part=data.fixed_batch or data.batch_size,
        smallest_part=smallest,
        on_halved=on_halved,
        scaler=torch.amp.GradScaler() if precision.dtype is torch.float16 and request.device == "cuda" else None,
        clip=Clipper(objective, options.clip).clip,
        after_backward=trainee.after_backward,
    )


def _share(updater: Updater, trainee: Trainee, data: TrainingData, team: Team) -> None:
    trainee.train(updater.part)
    with closing(data.training_batches(data.batch_size)) as samples:
        share_gradients(updater, trainee.objective, next(samples), team)


def _choose_precision(request: Request) -> Precision:
    match request.options.amp:
        case "off":
            return Precision(request.device, None)
        case "auto":
            is_worth_it = request.device == "cuda" and torch.cuda.is_bf16_supported() and not _is_quantized(request)
            return Precision(request.device, torch.bfloat16 if is_worth_it else None)
        case chosen:
            return Precision(request.device, _HALVES[chosen])


def _is_quantized(request: Request) -> bool:
    return any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in request.graph.nodes())


def _describe(trainee: Trainee, data: TrainingData, updater: Updater, request: Request) -> Iterator[str]:
    """What people should know of how it was trained."""
    held_out = f", {data.held_out} held out to judge" if data.held_out else ""
    size = data.batch_size if updater.part >= data.batch_size else f"{data.batch_size} in parts of {updater.part}"
    times = f"{data.world} processes times " if data.world > 1 else ""
    yield f"trained on {counted(data.samples, 'sample')}{held_out}, {times}{size} at a time"
    if trainee.zeros:
        yield f"kept the zeros in {counted(len(trainee.zeros), 'weight')}, {trainee.zeros.share:.0%} of them"
    if trainee.norms and updater.part < SMALLEST_NORMED:
        yield f"BatchNormalization kept its statistics while training: {updater.part} at a time are too few for others"
    if request.device == "cuda":
        yield "trained on a GPU: the same seed gives nearly, not exactly, the same weights"
