"""The way of a job through the engine: load -> steps -> export -> verify -> measure, as one visible list."""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from app.contracts.events import EngineEvent, Failed, Finished, Log, Measured
from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Task
from app.contracts.measurement import Measurement, compare
from app.contracts.recipe import DataRole
from app.contracts.targets import judge
from worker.engine.device import describe_device
from worker.engine.export.onnx import describe, export_onnx
from worker.engine.graph import Graph
from worker.engine.measure.clean import Answer, Request, Side, measure_cleanly
from worker.engine.measure.evaluation import evaluate
from worker.engine.measure.row import static_row
from worker.engine.samples import Guess
from worker.engine.session import open_session, run_session
from worker.engine.stages.job import Job
from worker.engine.stages.loading import Loaded, load
from worker.engine.stages.models import RecipeModels
from worker.engine.stages.progress import ProgressMeter
from worker.engine.stages.steps import StepRunner, Story, resume
from worker.surroundings import versions

LATENCY_BUDGET_S = 0.6
SLOWER = 1.05
"""Above this latency ratio a result is called slower; what is nearer to 1 is noise."""
Emit = Callable[[EngineEvent], None]


def run(job: Job, emit: Emit) -> Finished:
    """Run `job`, telling `emit` everything; the last event is Finished or Failed.

    A `measured` row may come again with more in it; the later one counts. Raises the SlimlineError it told as Failed.
    """
    try:
        finished = _run(job, emit)
    except SlimlineError as error:
        emit(Failed(failure=error.failure))
        raise
    emit(finished)
    return finished


def _run(job: Job, emit: Emit) -> Finished:
    start, progress = time.monotonic(), ProgressMeter(len(job.recipe), emit)
    with ExitStack() as stack:
        loaded = load(job, progress, emit, stack)
        graph, story = _apply_steps(job, loaded, progress, emit)
        row = _export(job, graph, progress)
        answer = _measure(job, loaded, progress)
    _deliver(job)
    original = _complete(loaded.row, answer.original, answer.notes)
    final = _complete(row, answer.compressed, [*answer.notes, *_what_disappoints(answer), *story.notes], answer)
    emit(Measured(role="original", row=original))
    last = len(job.recipe) - 1
    emit(Measured(role="step", step=last, method=job.recipe[last].method, row=final))
    emit(Measured(role="final", row=final))
    return Finished(
        artifacts=[describe(job.output, _shown(job.output, job.workspace), job.artifact_filename)],
        layers=story.layers,
        verdict=judge(
            job.targets, compare(original, [], final), asks_for_speed=any(step.asks_for_speed for step in job.recipe)
        ),
        device=describe_device(loaded.device),
        versions=versions(),
        engine_s=time.monotonic() - start,
        notes=story.notes,
    )


def _apply_steps(job: Job, loaded: Loaded, progress: ProgressMeter, emit: Emit) -> tuple[Graph, Story]:
    done, graph, story = -1, loaded.graph, Story()
    if job.resume_from:
        done, path = job.resume_from
        graph, story = resume(path)
        emit(Log(message=f"going on after step {done + 1} from its checkpoint"))
    original = open_session(loaded.file, device=loaded.device)
    runner = StepRunner(
        workspace=job.workspace,
        calibration=loaded.calibration,
        training=loaded.training,
        task=job.task,
        models=RecipeModels(loaded.graph, job.models, dict(job.step_graphs)),
        samples=loaded.samples,
        expected=run_session(original, loaded.samples.first()),
        seed=job.seed,
        device=loaded.device,
        progress=progress,
        emit=emit,
    )
    for index in range(done + 1, len(job.recipe)):
        partial = job.resume_within[1] if job.resume_within and job.resume_within[0] == index else None
        graph, record, path = runner.run(graph, job.recipe[index], index, partial)
        story.add(record)
        if index < len(job.recipe) - 1:  # the last step's row is the final one
            emit(Measured(role="step", step=index, method=record.method, row=_step_row(job, loaded, graph, path)))
        runner.checkpoint(graph, story, index)  # after the row: a retry goes on behind it
    return graph, story


def _step_row(job: Job, loaded: Loaded, graph: Graph, path: Path) -> Measurement:
    original, step = (open_session(each, device=loaded.device) for each in (loaded.file, path))
    found = evaluate(original, step, loaded.samples, _task(job), lambda _: None)
    notes = ["latency and memory are measured of the original and the final artifact only", *found.notes]
    row = static_row(graph, path, notes)
    return row.model_copy(update={"accuracy": found.compressed, "fidelity": found.fidelity})


def _export(job: Job, graph: Graph, progress: ProgressMeter) -> Measurement:
    progress.tell("export", 0.0, "writing the artifact")
    path = _staged(job)
    path.parent.mkdir(exist_ok=True)
    export_onnx(graph, job.recipe, path)
    return static_row(Graph.load(path), path, [])


def _staged(job: Job) -> Path:
    """Where the artifact lies until it was measured."""
    return job.workspace / "artifact" / job.output.name


def _deliver(job: Job) -> None:
    """Move the artifact to `job.output`, whole or not at all; of several files the model comes last."""
    for part in sorted(_staged(job).parent.iterdir(), reverse=True):
        arriving = job.output.with_name(f".{part.name}.part")
        shutil.move(part, arriving)
        arriving.replace(job.output.with_name(part.name))


def _measure(job: Job, loaded: Loaded, progress: ProgressMeter) -> Answer:
    """Re-load the artifact in a clean process, run it and measure it beside the original."""
    progress.tell("verify", 0.0, "loading the artifact in a clean process")
    samples = loaded.samples
    source = samples.source if isinstance(samples.source, Guess) else job.data[_measuring_role(job)].absolute()
    request = Request(
        original=loaded.file.absolute(),
        compressed=_staged(job).absolute(),
        inputs=samples.specs,
        source=source,
        note=samples.note,
        task=_task(job),
        device=loaded.device,
        latency_s=LATENCY_BUDGET_S,
    )
    total = 1 if isinstance(samples.source, Guess) else len(samples.source)
    return measure_cleanly(request, partial(_tell_samples, progress, total))


def _tell_samples(progress: ProgressMeter, total: int, done: int) -> None:
    progress.tell("measure", done / total, f"sample {done} of {total}")


def _measuring_role(job: Job) -> DataRole:
    return next(role for role in (DataRole.EVALUATE, DataRole.CALIBRATE, DataRole.TRAIN) if role in job.data)


def _task(job: Job) -> Task | None:
    """Accuracy is of evaluation data only: labels a model was calibrated or trained with flatter it."""
    return job.task if DataRole.EVALUATE in job.data else "none"


def _complete(row: Measurement, side: Side, notes: list[str], answer: Answer | None = None) -> Measurement:
    measured = {
        "accuracy": side.accuracy,
        "latency_ms": side.latency,
        "peak_memory_bytes": side.peak_memory_bytes,
        "fidelity": answer.fidelity if answer else None,
    }
    return row.model_copy(update={**measured, "notes": [*row.notes, *notes]})


def _what_disappoints(answer: Answer) -> list[str]:
    ratio = answer.compressed.latency.p50 / answer.original.latency.p50
    return [f"slower than the original here: {ratio:.2f} times its latency"] if ratio > SLOWER else []


def _shown(path: Path, workspace: Path) -> str:
    """Relative to the workspace where it lies there."""
    return str(path.relative_to(workspace)) if path.is_relative_to(workspace) else str(path)
