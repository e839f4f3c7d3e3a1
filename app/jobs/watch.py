"""Waiting for jobs to change: one query per tick for all who wait in this process, however many they are."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from fastapi.concurrency import run_in_threadpool

from app.contracts.states import JobState
from app.db.database import Database
from app.jobs import repository

TICK_S = 0.05


class Seen(NamedTuple):
    """What was last seen of a job."""

    state: JobState
    revision: int


class JobWatch:
    """Lets long-polls and event streams wait without each asking the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: Counter[str] = Counter()
        self._seen: dict[str, Seen] = {}
        self._ticked = asyncio.Condition()
        self._ticker: asyncio.Task[None] | None = None

    async def until(self, job_id: str, is_enough: Callable[[Seen], bool], timeout_s: float) -> None:
        """Return once the job satisfies `is_enough`, is gone, or `timeout_s` has passed."""
        self._waiting[job_id] += 1
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        try:
            async with asyncio.timeout(timeout_s), self._ticked:
                await self._ticked.wait_for(lambda: (seen := self._seen.get(job_id)) is not None and is_enough(seen))
        except TimeoutError:
            pass
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                self._seen.pop(job_id, None)

    async def _tick(self) -> None:
        while self._waiting:
            seen = await run_in_threadpool(self._look, list(self._waiting))
            async with self._ticked:
                self._seen = seen
                self._ticked.notify_all()
            await asyncio.sleep(TICK_S)

    def _look(self, job_ids: list[str]) -> dict[str, Seen]:
        with self._database.connection() as connection:
            return {
                job_id: Seen(JobState(state), revision)
                for job_id, state, revision in repository.read_revisions(connection, job_ids)
            }
