"""Two workers on machines of their own; the cable of one is pulled while it works on a job, for longer than its lease.

The other takes over. What the first one still writes when its cable is back must change nothing, and it must work on.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.books import read_books
from benchmarks.faults.client import StubbornClient
from benchmarks.faults.house import find_children
from benchmarks.faults.lock import measure_lock
from benchmarks.faults.program import Program, wait_until
from benchmarks.faults.site import Site, open_site
from benchmarks.faults.workload import make_network

STEPS = 16
_CUT_AT_STEP = 3
_FINISH_S = 240
_SETTLE_S = 90
_GAVE_UP = "another attempt has it now"


@dataclass
class Round:
    """One cable pulled, and put back at `mended_at`: "takeover" or "end" of the job. Times count from the cut, seconds.

    `late_writes`: how many of the old worker's reached the database once another attempt had begun; `let_through`: of
    these, what was written. `repeated_steps`: how many the new attempt did again. `next_job_s`: from sending
    the next job, for the old worker alone, to its end.
    """

    mended_at: str
    attempts: int = 0
    taken_over_s: float = 0
    ended_s: float = 0
    mended_s: float = 0
    repeated_steps: int = 0
    late_writes: int = 0
    let_through: list[str] = field(default_factory=list)
    next_job_s: float = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Seen:
    """What came of all rounds."""

    calm_s: float
    rounds: list[Round] = field(default_factory=list)
    lock_s: float | None = None
    """For how long after a cut the row stayed locked that the machine had locked just before; None: over a minute."""

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        found = [f"mended at {each.mended_at}: {fault}" for each in self.rounds for fault in each.faults]
        if not any(each.late_writes for each in self.rounds):
            found.append("no late write came, so none was seen to lose")
        if self.lock_s is None:
            found.append("a row that the lost machine had locked stayed locked")
        return found

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


class _Client(StubbornClient):
    """Sends jobs of so many steps, no two alike but for their seed, and looks at them."""

    def __init__(self, url: str, model: Path) -> None:
        super().__init__(url)
        self._model = self.upload("models", model, "model")

    def send(self, steps: int, key: str) -> str:
        recipe = [{"method": "prune.magnitude", "amount": (step + 1) / (steps + 1)} for step in range(steps)]
        spec = {"model": self._model, "recipe": recipe, "reuse": False}
        return str(self.post("/v1/jobs", spec, key)["id"])

    def events(self, job: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            after = f"&after={found[-1]['id']}" if found else ""
            page = self.get(f"/v1/jobs/{job}/events?limit=200{after}")
            found += page["data"]
            if not page["has_more"]:
                return found

    def content(self, job: Any) -> bytes:
        [artifact] = job["artifacts"]
        return self.request("GET", f"/v1/artifacts/{artifact['id']}/content").content

    def snapshot(self, job: str) -> tuple[str, list[dict[str, Any]], Any]:
        """All that a late write could change."""
        answer = self.request("GET", f"/v1/jobs/{job}")
        return answer.headers["etag"], self.events(job), answer.json()


class _Pull:
    """One round, from a job sent to the old worker's having done another."""

    def __init__(self, site: Site, client: _Client, mended_at: str) -> None:
        self._site, self._client = site, client
        self._seen = Round(mended_at)
        self._job = client.send(STEPS, mended_at)
        self._began = self._taken_over = 0.0

    def run(self, right: bytes) -> Round:
        """`right`: the artifact of the same job in calm."""
        site, seen = self._site, self._seen
        self._until(lambda job: job["state"] == "running")
        site.start_worker(site.worker_b)
        self._until(lambda job: job["progress"]["step"] >= _CUT_AT_STEP)
        site.network.cut(site.worker_a.name)
        self._began = time.monotonic()
        self._until(lambda job: job["attempt"] > 1)
        self._taken_over, seen.taken_over_s = time.time(), self._passed()
        if seen.mended_at == "takeover":
            self._mend()
        ended = self._client.finish(self._job, _FINISH_S)
        seen.ended_s, seen.attempts = self._passed(), ended["attempt"]
        if seen.mended_at == "end":
            self._mend()
        before = self._client.snapshot(self._job)
        self._recover()
        self._judge(before, right)
        return seen

    def _mend(self) -> None:
        self._site.network.mend(self._site.worker_a.name)
        self._seen.mended_s = self._passed()

    def _recover(self) -> None:
        """The old worker, alone now, does another job."""
        site = self._site
        site.worker_b.stop()
        sent = time.monotonic()
        again = self._client.finish(self._client.send(1, f"again, {self._seen.mended_at}"), _SETTLE_S)
        self._seen.next_job_s = time.monotonic() - sent
        self._expect(again["state"] == "succeeded" and again["attempt"] == 1, f"the next job {again['state']}")
        self._expect(not find_children(site.worker_a), "the old worker still computes")
        self._expect(_gave_up(site.worker_a, self._job), "the old worker's log does not say that it lost the job")

    def _judge(self, before: tuple[str, list[dict[str, Any]], Any], right: bytes) -> None:
        seen, after = self._seen, self._client.snapshot(self._job)
        _, events, job = after
        writes = self._site.find_writes(self._site.worker_a, self._job, self._taken_over)
        seen.late_writes = sum(write == "UPDATE jobs" for write in writes)
        seen.let_through = [write for write in writes if write != "UPDATE jobs"]
        states = [event["data"]["state"] for event in events if event["type"] == "state"]
        seen.repeated_steps = _count_repeated(events)
        content = self._client.content(job)
        books = read_books(self._site.postgres.url, self._site.house.folder)
        self._expect(not books.gaps, "events have gaps")
        self._expect(not books.without_one_artifact, "a job has not one artifact")
        self._expect(before == after, "the job changed after its end")
        self._expect(not seen.let_through, f"late writes went through: {seen.let_through}")
        self._expect(job["state"] == "succeeded" and seen.attempts == 2, f"{job['state']}, attempt {seen.attempts}")
        self._expect(states.count("running") == 2 and states.count("succeeded") == 1, f"it was {states}")
        self._expect(seen.repeated_steps <= 1, f"{seen.repeated_steps} steps were done again")
        self._expect(hashlib.sha256(content).hexdigest() == job["artifacts"][0]["sha256"], "the digest is wrong")
        self._expect(content == right, "the artifact is not what it is in calm")

    def _expect(self, holds: bool, fault: str) -> None:  # noqa: FBT001 - what is looked at
        if not holds:
            self._seen.faults.append(fault)

    def _until(self, holds: Callable[[Any], bool]) -> None:
        wait_until(lambda: holds(self._client.get(f"/v1/jobs/{self._job}")), f"{self._job} does not get there")

    def _passed(self) -> float:
        return time.monotonic() - self._began


def _gave_up(worker: Program, job: str) -> bool:
    return any(_GAVE_UP in line and job in line for line in worker.log.read_text(errors="replace").splitlines())


def _count_repeated(events: list[dict[str, Any]]) -> int:
    """How many steps both attempts have worked on."""
    steps: list[set[int]] = []
    for event in events:
        if event["type"] == "state" and event["data"]["state"] == "running":
            steps.append(set())
        elif event["type"] == "progress" and event["data"]["phase"] == "compress":
            steps[-1].add(event["data"]["step"])
    return len(set.intersection(*steps)) if steps else 0


def part_machines(folder: Path, tell: Callable[[str], None]) -> Seen:
    """A job in calm; then one whose cable is back at the takeover, and one whose cable is back when all is over.

    Raises NoNetworkError where machines cannot be had.
    """
    with open_site(folder) as site:
        site.start_worker(site.worker_a)
        client = _Client(site.house.url, make_network(folder / "slow.onnx", width=96, side=64, layers=6))
        began = time.monotonic()
        calm = client.finish(client.send(STEPS, "calm"), _FINISH_S)
        seen = Seen(time.monotonic() - began)
        tell(f"in calm the job takes {seen.calm_s:.0f} s")
        for mended_at in ("takeover", "end"):
            seen.rounds.append(_Pull(site, client, mended_at).run(client.content(calm)))
            tell(str(seen.rounds[-1]))
        seen.lock_s = measure_lock(site, calm["id"])
        return seen
