"""The first stage of the pipeline: the model and the data are read, and checked against each other and the recipe."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from app.contracts.events import EngineEvent, Measured
from app.contracts.failure import SlimlineError
from app.contracts.measurement import Measurement
from app.contracts.recipe import DataRole
from worker.engine.data import Dataset, open_dataset
from worker.engine.device import resolve_device
from worker.engine.graph import Graph
from worker.engine.ingest import ingest_model
from worker.engine.measure.evaluation import check_labels
from worker.engine.measure.row import static_row
from worker.engine.samples import Samples, make_up
from worker.engine.session import Device, open_session
from worker.engine.stages.job import Job
from worker.engine.stages.preconditions import check_data, check_order, check_targets
from worker.engine.stages.progress import ProgressMeter

Emit = Callable[[EngineEvent], None]


@dataclass(frozen=True)
class Loaded:
    """The ingested model and what it is measured with. `file` is the original that ONNX Runtime can load.

    Training data calibrates where no calibration data is given.
    """

    graph: Graph
    file: Path
    row: Measurement
    samples: Samples
    calibration: Dataset | None
    training: Dataset | None
    device: Device


def load(job: Job, progress: ProgressMeter, emit: Emit, stack: ExitStack) -> Loaded:
    """Ingest the model, open the data and check that they fit; datasets stay open as long as `stack`.

    Raises SlimlineError for whatever would make the job fail later.
    """
    check_order(job.recipe)
    progress.tell("load", 0.0, "reading the model")
    device = resolve_device(job.device)
    ingested = job.workspace / "ingested.onnx"
    graph, facts = ingest_model(job.model, filename=job.model_filename, output=ingested)
    progress.tell("load", 0.5, "reading the data")
    datasets = {
        role: stack.enter_context(open_dataset(file.path, file.preprocess, filename=file.filename))
        for role, file in job.data.items()
    }
    check_data(job.recipe, datasets, graph)
    check_targets(job.targets, datasets.get(DataRole.EVALUATE))
    file, session = _runnable(job.model, ingested, device)
    samples = _choose_samples(graph, datasets, session, job.seed)
    if DataRole.EVALUATE in datasets:
        check_labels(session, samples, job.task)
    row = static_row(graph, job.model, facts.notes)
    emit(Measured(role="original", row=row))
    training = datasets.get(DataRole.TRAIN)
    return Loaded(graph, file, row, samples, datasets.get(DataRole.CALIBRATE, training), training, device)


def _runnable(model: Path, ingested: Path, device: Device) -> tuple[Path, ort.InferenceSession]:
    """The file as uploaded where ONNX Runtime takes it, so that the original is truly the user's; else as ingested."""
    try:
        return model, open_session(model, device=device)
    except SlimlineError:
        return ingested, open_session(ingested, device=device)


def _choose_samples(
    graph: Graph, datasets: dict[DataRole, Dataset], session: ort.InferenceSession, seed: int
) -> Samples:
    if DataRole.EVALUATE in datasets:
        return Samples(graph.inputs, datasets[DataRole.EVALUATE])
    for role in (DataRole.CALIBRATE, DataRole.TRAIN):
        if role in datasets:
            return Samples(
                graph.inputs, datasets[role], f"fidelity is on the {role} data: no evaluation data was given"
            )
    return make_up(graph.inputs, session, seed)
