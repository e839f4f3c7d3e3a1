"""`Goal`: what a training is asked to reach. Which losses follow from that is in `weighting`."""

from dataclasses import dataclass

from app.contracts.job_spec import Task
from app.contracts.training import TrainingOptions
from worker.engine.graph import Graph
from worker.engine.session import Device


@dataclass(frozen=True)
class Goal:
    """What training is asked to reach.

    `task` is what the job says labels are for; None: what they look like. `teacher` is there where `options.distill`
    is. `samples` is how many are trained on.
    """

    task: Task | None
    options: TrainingOptions
    teacher: Graph | None
    has_labels: bool
    samples: int
    device: Device
