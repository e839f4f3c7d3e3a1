"""What webhooks are told of: the closed set of event types, named after the resource and the state it has reached."""

from enum import StrEnum


class WebhookEvent(StrEnum):
    """Something that happened to a job, a model or a dataset."""

    JOB_QUEUED = "job.queued"
    JOB_RUNNING = "job.running"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    MODEL_READY = "model.ready"
    MODEL_REJECTED = "model.rejected"
    DATASET_READY = "dataset.ready"
    DATASET_REJECTED = "dataset.rejected"


PING = "ping"
"""The type of a test: it is sent when asked for, and no webhook can choose it."""
MAX_URL = 2000
