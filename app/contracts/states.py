"""The states of models, datasets and jobs, and the one table of legal moves between them."""

from collections.abc import Mapping
from enum import StrEnum


class IngestState(StrEnum):
    """What has become of an uploaded model or dataset."""

    UPLOADED = "uploaded"
    CHECKING = "checking"
    READY = "ready"
    REJECTED = "rejected"


class JobState(StrEnum):
    """What has become of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return not MOVES[self]


class Waiting(StrEnum):
    """What a queued job waits for."""

    INPUTS = "inputs"
    WORKER = "worker"


MOVES: Mapping[JobState, frozenset[JobState]] = {
    # A queued job may fail without running: its model was rejected, or it waited past limits.queue_s.
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    # Running goes back to queued when the worker's lease ran out or it handed the job back.
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED}),
    # A job that finished before the kill reached it keeps its result.
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

INGEST_MOVES: Mapping[IngestState, frozenset[IngestState]] = {
    IngestState.UPLOADED: frozenset({IngestState.CHECKING}),
    # Back to uploaded when the worker that was checking died.
    IngestState.CHECKING: frozenset({IngestState.UPLOADED, IngestState.READY, IngestState.REJECTED}),
    IngestState.READY: frozenset(),
    IngestState.REJECTED: frozenset(),
}
