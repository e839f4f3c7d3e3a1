"""What the pipeline is asked to do and what it gives back. Checked words only: no file is opened here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.contracts.events import ArtifactFile, LayerRecord
from app.contracts.job_spec import Device, Task
from app.contracts.measurement import Comparison
from app.contracts.recipe import DataRole, Step
from app.contracts.targets import Targets, Verdict
from worker.engine.measure.clean import DataFile


@dataclass(frozen=True)
class Job:
    """A compression to run. The artifact goes to `output`; everything else is written below `workspace`."""

    model: Path
    recipe: Sequence[Step]
    output: Path
    workspace: Path
    model_filename: str | None = None
    data: Mapping[DataRole, DataFile] = field(default_factory=dict)
    task: Task | None = None
    targets: Targets = field(default_factory=Targets)
    seed: int = 0
    device: Device = "auto"
    models: Mapping[str, Path] = field(default_factory=dict)
    """Other models, teachers and students, by what the recipe calls them; what is not here is taken for a path."""
    resume_from: tuple[int, Path] | None = None
    """Index of the last recipe step done, from 0, and its checkpoint."""
    resume_within: tuple[int, Path] | None = None
    """Index of the step that was at work, and what it had left by then."""
    step_graphs: Mapping[int, Path] = field(default_factory=dict)
    """Checkpoints of steps done before, which later steps may have for a teacher."""

    @property
    def artifact_filename(self) -> str:
        """What the artifact is called when it is downloaded."""
        return f"{Path(self.model_filename or self.model.name).stem}-compressed.onnx"


@dataclass(frozen=True)
class Result:
    """What a finished job made and measured."""

    comparison: Comparison
    layers: list[LayerRecord]
    artifacts: list[ArtifactFile]
    verdict: Verdict | None
    notes: list[str]
    device: str
    versions: dict[str, str]
    engine_s: float
