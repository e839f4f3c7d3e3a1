"""The storm: jobs come in over HTTP while every few seconds something is killed with `kill -9`. Then all must end."""

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.background import repeating
from benchmarks.faults.books import read_books
from benchmarks.faults.client import FINAL, StubbornClient

AMOUNTS = (0.3, 0.4, 0.5, 0.6, 0.7)
KILL_EVERY_S = (2.0, 4.0)
AFTER_S = 900
"""How long what is left may take when the storm is over."""
GRACE_S = 45
"""Longer than a blob is spared (`SLIMLINE_COLLECT_AFTER_S` of the house) and two runs of the collector take."""

Kill = Callable[[random.Random], bool]
"""Kills something; False when there was nothing of its kind."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to do to a service at `url`. `kills` by kind; `tend` starts again what was killed and is called often."""

    url: str
    database_url: str
    blobs: Path
    model: Path
    jobs: int
    minutes: float
    seed: int
    kills: Mapping[str, Kill]
    tend: Callable[[], None]


@dataclass
class Found:
    """What came of it. `troubles`: requests that got a 5xx or no answer, by kind; they were sent again."""

    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    troubles: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    attempts: int = 0
    most_attempts: int = 0
    doubled: int = 0
    wrong_digests: int = 0
    wrong_events: int = 0
    orphans: int = 0
    storm_s: float = 0
    end_s: float = 0

    def faults(self, jobs: int) -> list[str]:
        """What is not as it should be."""
        lost = jobs - sum(self.ends.values())
        server_errors = sum(number for kind, number in self.troubles.items() if kind[:1] == "5")
        counted = {
            "jobs lost": lost,
            "jobs that did not succeed": jobs - lost - self.ends["succeeded"],
            "jobs doubled": self.doubled,
            "artifacts with a wrong digest": self.wrong_digests,
            "jobs whose events have gaps or not one end": self.wrong_events,
            "blobs without an owner": self.orphans,
            "answers of 500 and above": server_errors,
        }
        return [f"{number} {what}" for what, number in counted.items() if number]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def weather(plan: Plan, tell: Tell) -> Found:
    """A few jobs in calm, for the digests that are right; then the storm; then the end of everything."""
    found, client = Found(), StubbornClient(plan.url)
    with repeating(plan.tend, 0.1):
        model = client.upload("models", plan.model, f"model-{plan.seed}")
        calm = {amount: _digest(client.finish(_submit(client, model, amount, 0, "calm"))) for amount in AMOUNTS}
        tell(f"{len(calm)} jobs done in calm")
        jobs = _in_the_storm(plan, client, model, found, tell)
        began = time.monotonic()
        ended = _wait_for_all(client, jobs, tell)
        found.end_s = time.monotonic() - began
        time.sleep(GRACE_S)  # until the collector has taken away what the killed left behind
    _judge(client, ended, calm, found)
    _check_books(plan, len(jobs) + len(calm), found)
    found.troubles, found.requests = dict(client.troubles), client.requests
    return found


def _submit(client: StubbornClient, model: str, amount: float, seed: int, name: str) -> str:
    recipe = [{"method": "prune.magnitude", "amount": amount}, {"method": "quantize.dynamic"}]
    spec = {"model": model, "recipe": recipe, "seed": seed, "name": name}
    return str(client.post("/v1/jobs", spec, f"{name}-{seed}-{amount}")["id"])


def _in_the_storm(plan: Plan, client: StubbornClient, model: str, found: Found, tell: Tell) -> dict[str, float]:
    """Ids of the jobs, with the amount each was to prune. Submitting takes three quarters of the storm."""
    jobs: dict[str, float] = {}
    began, storm_s = time.monotonic(), plan.minutes * 60

    def submit_all() -> None:
        for number in range(plan.jobs):
            due = began + 0.75 * storm_s * number / plan.jobs
            time.sleep(max(0.0, due - time.monotonic()))
            amount = AMOUNTS[number % len(AMOUNTS)]
            jobs[_submit(client, model, amount, 1 + number, "storm")] = amount

    submitting = threading.Thread(target=submit_all)
    submitting.start()
    rng = random.Random(plan.seed)
    while (passed := time.monotonic() - began) < storm_s:
        time.sleep(rng.uniform(*KILL_EVERY_S))
        kind = rng.choice(sorted(plan.kills))
        if plan.kills[kind](rng):
            found.kills[kind] += 1
        tell(f"storm {passed:.0f} of {storm_s:.0f} s: {found.kills.total()} kills, {len(jobs)} jobs sent")
    submitting.join()
    found.storm_s = time.monotonic() - began
    return jobs


def _wait_for_all(client: StubbornClient, jobs: Mapping[str, float], tell: Tell) -> dict[str, Any]:
    """The jobs that have come to an end, by id."""
    ended: dict[str, Any] = {}
    began = time.monotonic()
    for job in jobs:
        left_s = began + AFTER_S - time.monotonic()
        try:
            ended[job] = client.finish(job, max(left_s, 1))
        except TimeoutError:
            tell(f"{job} has not ended")
        passed = time.monotonic() - began
        eta_s = passed / len(ended) * (len(jobs) - len(ended)) if ended else 0
        tell(f"{len(ended)} of {len(jobs)} jobs have ended, about {eta_s:.0f} s left")
    return ended


def _judge(client: StubbornClient, ended: Mapping[str, Any], calm: Mapping[float, str], found: Found) -> None:
    for job in ended.values():
        found.ends[job["state"]] += job["state"] in FINAL
        found.attempts += job["attempt"]
        found.most_attempts = max(found.most_attempts, job["attempt"])
        if job["failure"]:
            found.failures[f"{job['failure']['code']}: {job['failure']['message']}"] += 1
        if job["state"] == "succeeded":
            is_right = _digest(job) == calm[job["spec"]["recipe"][0]["amount"]] == _downloaded(client, job)
            found.wrong_digests += not is_right


def _check_books(plan: Plan, jobs: int, found: Found) -> None:
    books = read_books(plan.database_url, plan.blobs)
    found.doubled = books.jobs - jobs + len(books.without_one_artifact)
    found.wrong_events = len({*books.gaps, *books.with_wrong_end})
    found.orphans = len(books.orphans)


def _digest(job: Any) -> str:
    return str(job["artifacts"][0]["sha256"]) if job["artifacts"] else f"none: {job['failure']}"


def _downloaded(client: StubbornClient, job: Any) -> str:
    answer = client.request("GET", f"/v1/artifacts/{job['artifacts'][0]['id']}/content")
    return hashlib.sha256(answer.content).hexdigest()
