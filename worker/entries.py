"""What a child can be asked to do: check a model, check a dataset, compress. Here arguments become engine calls.

The engine is imported inside the functions: the worker process reads this file for the orders only.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.contracts.job_spec import JobSpec
from app.contracts.preprocess import Preprocess
from app.contracts.recipe import DataRole
from worker.pipe import Checked, Say

GRAPH_FILE = "ingested.onnx"
ARTIFACT_FILE = "artifact.onnx"


class Upload(BaseModel):
    """A file that was fetched into the child's folder as `name`; `filename` is what its user calls it."""

    name: str
    filename: str
    format: str | None = None
    preprocess: Preprocess | None = None


class Compression(BaseModel):
    """A job whose files were fetched.

    `resume` is the last recipe step done, from 0, and the name of its checkpoint; `within` the step that was at work,
    and the name of what it had left. `models` are teachers and students by id, `step_graphs` the names of checkpoints
    of steps that teach later ones.
    """

    spec: JobSpec
    model: Upload
    models: dict[str, Upload] = {}
    data: dict[DataRole, Upload]
    resume: tuple[int, str] | None = None
    within: tuple[int, str] | None = None
    step_graphs: dict[int, str] = {}


def ingest_model(arguments: dict[str, Any], say: Say) -> None:
    """Check an `Upload` and leave its graph as GRAPH_FILE."""
    from worker.engine.ingest import ingest_model as ingest  # noqa: PLC0415 - see above
    from worker.engine.methods import applicability  # noqa: PLC0415 - see above
    from worker.engine.pruning.report import describe_channels  # noqa: PLC0415 - see above

    upload = Upload.model_validate(arguments)
    _, facts = ingest(
        Path(upload.name),
        filename=upload.filename,
        format=upload.format,
        output=Path(GRAPH_FILE),
        applicability=applicability,
        channels=describe_channels,
    )
    say(Checked(facts=facts))


def ingest_dataset(arguments: dict[str, Any], say: Say) -> None:
    """Check an `Upload` of samples."""
    from worker.engine.data import check_dataset  # noqa: PLC0415 - see above

    upload = Upload.model_validate(arguments)
    say(Checked(facts=check_dataset(Path(upload.name), upload.preprocess, filename=upload.filename)))


def compress(arguments: dict[str, Any], say: Say) -> None:
    """Carry out a `Compression` and leave the artifact as ARTIFACT_FILE."""
    from worker.engine.measure.clean import DataFile  # noqa: PLC0415 - see above
    from worker.engine.pipeline import run  # noqa: PLC0415 - see above
    from worker.engine.stages.job import Job  # noqa: PLC0415 - see above

    work = Compression.model_validate(arguments)
    spec, folder = work.spec, Path.cwd()
    job = Job(
        model=folder / work.model.name,
        model_filename=work.model.filename,
        recipe=spec.recipe,
        output=folder / ARTIFACT_FILE,
        workspace=folder,
        data={
            role: DataFile(
                path=folder / file.name, filename=file.filename, preprocess=spec.preprocess or file.preprocess
            )
            for role, file in work.data.items()
        },
        task=spec.task,
        targets=spec.targets,
        seed=spec.seed,
        device=spec.device,
        models={id_: folder / file.name for id_, file in work.models.items()},
        resume_from=(work.resume[0], folder / work.resume[1]) if work.resume else None,
        resume_within=(work.within[0], folder / work.within[1]) if work.within else None,
        step_graphs={step: folder / name for step, name in work.step_graphs.items()},
    )
    run(job, say)
