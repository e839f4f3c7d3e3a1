"""The tasks: what a message has this worker do, from claim to report. No SQL, no engine, no broker in it."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, assert_never

import structlog

from app.contracts.events import Checkpoint, Finished, Log, Measured, PartialCheckpoint, Progress, Trained
from app.contracts.facts import DatasetFacts, ModelFacts
from app.contracts.failure import Failure, SlimlineError
from app.settings import Settings
from app.tracing import TraceParent, span
from worker import entries
from worker.child import Order, explain
from worker.confinement import Confinement
from worker.forkserver import ForkServer
from worker.lease import Lease
from worker.outcome import (
    Cancelled,
    Completed,
    Crashed,
    Lost,
    Outcome,
    OutOfMemory,
    Refused,
    Released,
    TimedOut,
    failure_of,
)
from worker.pipe import Checked, ChildEvent, Say
from worker.reporter import AttemptLostError, Claim, IngestAttempt, Input, JobAttempt, Reporter
from worker.supervisor import Command, Supervisor, Watch
from worker.surroundings import sees_gpu
from worker.workspace import Workspace, Workspaces

Entry = Callable[[dict[str, Any], Say], None]
Claimed = TypeVar("Claimed")

_LOST = {"BLOB_MISSING", "BLOB_CORRUPT"}
_log = structlog.get_logger(__name__)


class HandedBackError(Exception):
    """This worker stops; the message must go to another."""


class Attempt(Protocol):
    """What jobs and uploads have in common while they are worked on."""

    def renew(self) -> Command:
        """Keep the lease."""

    def fail(self, failure: Failure) -> None:
        """It cannot be done."""

    def release(self) -> None:
        """Another worker is to do it."""


class Tasks:
    """The tasks of one worker, with what they share."""

    def __init__(self, settings: Settings, server: ForkServer) -> None:
        self._settings = settings
        self._server = server
        self._supervisor = Supervisor(self._server)
        self._workspaces = Workspaces.open(settings)
        self._reporter = Reporter(settings)

    def start(self) -> None:
        """Have the engine loaded before the first message comes; clear away what a killed worker left."""
        self._server.start()
        self._workspaces.remove_abandoned()

    def stop(self) -> None:
        """Begin nothing; what runs gets `drain_s` to end, then it is handed back. Safe in a signal handler."""
        self._supervisor.stop(self._settings.drain_s)

    def close(self) -> None:
        """Close every connection."""
        self._reporter.close()

    def run_job(self, hint: str) -> None:
        """Compress, the job that goes next in the queue of job `hint`. Raises HandedBackError."""
        if job := self._claim(self._reporter.claim_job, hint):
            with _traced(job.claim), self._working_on(job, job.claim.id) as (workspace, lease):
                outcome = self._compress(job, workspace, lease)
                if isinstance(outcome, Completed) and isinstance(outcome.event, Finished):
                    for file in outcome.event.artifacts:
                        workspace.keep_artifact(file)
                    job.succeed(outcome.event)
                elif isinstance(outcome, Cancelled):
                    job.cancel()
                else:
                    _give_up(job, outcome)

    def ingest_model(self, model_id: str) -> None:
        """Check an uploaded model and keep its graph. Raises HandedBackError."""
        if model := self._claim(self._reporter.claim_model, model_id):
            with self._working_on(model, model_id) as (workspace, lease):
                facts = self._check(entries.ingest_model, model, workspace, lease)
                if isinstance(facts, ModelFacts):
                    graph = workspace.keep(entries.GRAPH_FILE)
                    model.accept(
                        facts, format=facts.format, graph_sha256=graph.sha256, graph_size_bytes=graph.size_bytes
                    )

    def ingest_dataset(self, dataset_id: str) -> None:
        """Check an uploaded dataset. Raises HandedBackError."""
        if dataset := self._claim(self._reporter.claim_dataset, dataset_id):
            with self._working_on(dataset, dataset_id) as (workspace, lease):
                facts = self._check(entries.ingest_dataset, dataset, workspace, lease)
                if isinstance(facts, DatasetFacts):
                    dataset.accept(facts)

    def _claim(self, claim: Callable[[str], Claimed | None], id_: str) -> Claimed | None:
        if self._supervisor.is_stopping:
            raise HandedBackError
        return claim(id_)

    @contextmanager
    def _working_on(self, attempt: Attempt, id_: str) -> Iterator[tuple[Workspace, Lease]]:
        """A workspace and a kept lease for a claimed row; the edge where whatever goes wrong becomes its failure."""
        with structlog.contextvars.bound_contextvars(id=id_):
            try:
                with (
                    self._ending(attempt),
                    Lease(attempt.renew, self._settings.heartbeat_s) as lease,
                    self._workspaces.make(id_, partial(self._require_wanted, lease)) as workspace,
                ):
                    yield workspace, lease
            except AttemptLostError:
                _log.warning("another attempt has it now, or will")

    @contextmanager
    def _ending(self, attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except AttemptLostError:
            raise
        except HandedBackError:
            attempt.release()
            raise
        except Exception as error:  # noqa: BLE001 - the task's edge
            _log.exception("it failed on this side of the fork")
            attempt.fail(explain(error))

    def _require_wanted(self, lease: Lease) -> None:
        """For work that waits. Raises AttemptLostError; HandedBackError when it is cancelled or this worker stops."""
        if lease.command == Command.GIVE_UP:
            raise AttemptLostError
        if lease.command == Command.CANCEL or self._supervisor.is_over():
            raise HandedBackError

    def _compress(self, job: JobAttempt, workspace: Workspace, lease: Lease) -> Outcome:
        spec = job.claim.spec

        def on_tick() -> Command:
            job.flush()
            return lease.command

        watch = Watch(spec.limits.run_s, self._settings.memory_limit, partial(_pass_on, job, workspace), on_tick)
        order = Order(
            entry=_name(entries.compress),
            arguments=_fetch_inputs(job, workspace).model_dump(mode="json"),
            confinement=self._confine(spec.limits.run_s, may_use_gpu=spec.device != "cpu", may_start_processes=True),
        )
        return self._supervisor.run(order, workspace.folder, watch)

    def _check(
        self, entry: Entry, attempt: IngestAttempt, workspace: Workspace, lease: Lease
    ) -> ModelFacts | DatasetFacts | None:
        """What the child found; None when the attempt came to another end, which has been reported."""
        upload, run_s = attempt.upload, self._settings.ingest_run_s
        arguments = entries.Upload(
            name=workspace.fetch(upload.sha256, "upload"),
            filename=upload.filename,
            format=upload.format,
            preprocess=upload.preprocess,
        )
        order = Order(
            entry=_name(entry),
            arguments=arguments.model_dump(mode="json"),
            confinement=self._confine(run_s, may_use_gpu=False, may_start_processes=False),
        )
        watch = Watch(run_s, self._settings.memory_limit, lambda _: None, lambda: lease.command)
        outcome = self._supervisor.run(order, workspace.folder, watch)
        if isinstance(outcome, Completed) and isinstance(outcome.event, Checked):
            return outcome.event.facts
        _give_up(attempt, outcome)
        return None

    def _confine(self, run_s: float, *, may_use_gpu: bool, may_start_processes: bool) -> Confinement:
        limited = not (may_use_gpu and sees_gpu())
        return Confinement(
            memory_bytes=self._settings.memory_limit if limited else None,
            cpu_s=math.ceil(run_s * (os.cpu_count() or 1)),
            file_bytes=self._settings.job_file_bytes,
            may_start_processes=may_start_processes,
        )


@contextmanager
def _traced(claim: Claim) -> Iterator[None]:
    """A span in the trace of the request that asked for the job; log lines name that request."""
    parent = TraceParent.parse(claim.traceparent)
    with structlog.contextvars.bound_contextvars(request_id=claim.request_id), span("run job", parent) as work:
        work.attributes.update({"slimline.job": claim.id, "slimline.attempt": claim.attempt})
        yield


def _pass_on(job: JobAttempt, workspace: Workspace, event: ChildEvent) -> None:
    match event:
        case Progress() | Log() | Measured() | Trained():
            job.record(event)
        case Checkpoint(step=step, path=path) if not workspace.is_in_parts(path):
            if superseded := job.save_checkpoint(step, workspace.keep(path).sha256):
                workspace.discard(superseded)
        case PartialCheckpoint(step=step, path=path) if job.can_resume_within(step):
            blob = workspace.keep_if_there(path)
            if blob and (superseded := job.save_partial_checkpoint(step, blob.sha256)):
                workspace.discard(superseded)


def _fetch_inputs(job: JobAttempt, workspace: Workspace) -> entries.Compression:
    claim, resume = job.claim, None
    if claim.checkpoint:
        step, sha256 = claim.checkpoint
        resume = (step, workspace.fetch(sha256, "resumed.onnx"))
    return entries.Compression(
        spec=claim.spec,
        model=_fetch(claim.model, "model", workspace),
        models={id_: _fetch(file, id_, workspace) for id_, file in claim.other_models.items()},
        data={role: _fetch(file, role.value, workspace) for role, file in claim.data.items()},
        resume=resume,
        within=_fetch_partial(job, workspace),
        step_graphs={step: workspace.fetch(sha256, f"resumed-{step}.onnx") for step, sha256 in claim.graphs.items()},
    )


def _fetch_partial(job: JobAttempt, workspace: Workspace) -> tuple[int, str] | None:
    """What the step at work had left; None, too, where it is lost, and then the step begins anew."""
    if job.claim.partial_checkpoint is None:
        return None
    step, sha256 = job.claim.partial_checkpoint
    try:
        return step, workspace.fetch(sha256, "resumed.npz")
    except SlimlineError as error:
        if error.failure.code not in _LOST:
            raise
        job.record(Log(level="warning", message=f"step {step + 1} begins anew: {error.failure.message}"))
        return None


def _fetch(file: Input, name: str, workspace: Workspace) -> entries.Upload:
    return entries.Upload(name=workspace.fetch(file.sha256, name), filename=file.filename, preprocess=file.preprocess)


def _give_up(attempt: Attempt, outcome: Outcome) -> None:
    """Report every end but a good one and a cancel."""
    match outcome:
        case Released():
            raise HandedBackError
        case Lost() | Cancelled():
            raise AttemptLostError
        case Refused() | TimedOut() | OutOfMemory() | Crashed():
            attempt.fail(failure_of(outcome))
        case Completed(event):
            raise TypeError(f"the child was asked for something else than {event.type}")
        case _:
            assert_never(outcome)


def _name(entry: Entry) -> str:
    return f"{entry.__module__}:{entry.__name__}"
