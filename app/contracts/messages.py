"""Broker messages: names and ids only. A message is a hint that may be lost or come twice; the row is the truth."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Queue(StrEnum):
    """Which workers take a message."""

    INGEST = "ingest"  # apart, so that an upload is checked while every worker is busy with a long job
    CPU = "cpu"
    CUDA = "cuda"


class TaskName(StrEnum):
    """The tasks of the worker, by the name they are sent under. Each takes one id."""

    INGEST_MODEL = "slimline.ingest_model"
    INGEST_DATASET = "slimline.ingest_dataset"
    RUN_JOB = "slimline.run_job"


class Message(BaseModel):
    """Asks a worker to look at the row `id`."""

    model_config = ConfigDict(frozen=True)

    task: TaskName
    id: str
    queue: Queue
