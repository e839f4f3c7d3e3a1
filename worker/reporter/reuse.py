"""Answering a job from an identical one that is done: when two are identical, and taking over what the first found."""

import hashlib
import json
from dataclasses import asdict

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.contracts.events import Log, Progress
from app.contracts.states import JobState
from app.jobs import repository as jobs
from app.jobs.queue import attempts
from app.jobs.tables import JobRow
from worker.reporter.claims import Claim
from worker.surroundings import processor, sees_gpu, versions

_NO_MATTER = {"model", "data", "name", "tags", "priority", "limits", "reuse"}
"""Parts of a job that its result does not depend on, or that are digested by content instead of by id."""


def answer_from_twin(session: Session, claim: Claim) -> bool:
    """End a job that was just claimed with the result of an identical one; False: there is none, or none is wanted.

    Results come over from the same versions on the same kind of processor only. A GPU's are never taken over: its name
    says too little of what was measured on it.
    """
    digest = fingerprint(claim)
    jobs.set_fingerprint(session, claim.id, digest)
    if not claim.spec.reuse or (sees_gpu() and claim.spec.device != "cpu"):
        return False
    twin = _find_twin(session, claim.id, digest)
    if twin is None:
        return False
    log = Log(message=f"answered from {twin.id}, which is identical; post it with `reuse` false to have it done again")
    jobs.add_event(session, claim.id, log.type, log.model_dump(mode="json", exclude={"type"}))
    jobs.copy_measurements(session, twin.id, claim.id)
    artifacts.copy(session, twin.id, claim.id)
    return attempts.end(session, claim.id, claim.attempt, JobState.SUCCEEDED, _result_of(twin))


def fingerprint(claim: Claim) -> str:
    """The sha256 of everything that the result depends on but versions and device: 64 hexadecimal digits."""
    recipe_and_all = json.dumps(claim.spec.model_dump(mode="json", exclude=_NO_MATTER), sort_keys=True)
    for id_, file in claim.other_models.items():
        recipe_and_all = recipe_and_all.replace(id_, file.sha256)
    files = {"model": claim.model, **{role.value: file for role, file in claim.data.items()}}
    described = {
        name: {**asdict(file), "preprocess": file.preprocess and file.preprocess.model_dump(mode="json")}
        for name, file in files.items()
    }
    return hashlib.sha256(f"{recipe_and_all}{json.dumps(described, sort_keys=True)}".encode()).hexdigest()


def _find_twin(session: Session, job_id: str, digest: str) -> JobRow | None:
    here = (versions(), f"cpu {processor()}")
    found = jobs.find_succeeded(session, job_id, digest)
    same = (job for job in found if (job.versions, job.device) == here)
    # An artifact may have been deleted on its own.
    return next((job for job in same if artifacts.of_job(session, job.id)), None)


def _result_of(twin: JobRow) -> dict[str, object]:
    steps = len(twin.spec.recipe)
    told = ("verdict", "layers", "versions", "device", "engine_s")
    return {
        "progress": Progress(fraction=1, step=steps, steps=steps, phase="measure", message="done", eta_s=0),
        "notes": [*twin.notes, f"answered from the identical job {twin.id}; nothing was measured anew"],
        "reused_job_id": twin.id,
        **{name: getattr(twin, name) for name in told},
    }
