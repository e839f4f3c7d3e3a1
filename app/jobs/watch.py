"""Seeing jobs change: those who ask at the same time share one query, however many poll, wait or stream."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fastapi.concurrency import run_in_threadpool

from app.contracts.states import JobState
from app.db.database import Database
from app.db.patience import AWAY, PAUSE_S
from app.jobs import repository

TICK_S = 0.05


class Seen(NamedTuple):
    """What was last seen of a job."""

    project: str
    state: JobState
    revision: int


@dataclass(eq=False)
class _Batch:
    """Jobs asked for since the last query began, and the query that will answer."""

    job_ids: set[str] = field(default_factory=set)
    answer: "asyncio.Task[Mapping[str, Seen]] | None" = None


@dataclass(eq=False)
class _Waiter:
    job_id: str
    is_enough: Callable[[Seen], bool]
    woken: asyncio.Future[None]


class JobWatch:
    """Looks at jobs for one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._querying = asyncio.Lock()
        self._gathering: _Batch | None = None
        self._waiters: set[_Waiter] = set()
        self._ticker: asyncio.Task[None] | None = None

    async def look(self, job_id: str) -> Seen | None:
        """The job as it is now; None: there is no such job. The query begins after the call, so nothing seen is old."""
        return (await self._look_at({job_id})).get(job_id)

    async def until(self, job_id: str, is_enough: Callable[[Seen], bool], timeout_s: float) -> None:
        """Return once the job satisfies `is_enough`, or `timeout_s` has passed; at once when there is no such job."""
        seen = await self.look(job_id)
        if seen is None or is_enough(seen):
            return
        waiter = _Waiter(job_id, is_enough, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        try:
            await asyncio.wait_for(waiter.woken, timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    async def _tick(self) -> None:
        while self._waiters:
            await asyncio.sleep(TICK_S)
            waiting = list(self._waiters)  # those who come during the query were not asked for
            try:
                seen = await self._look_at({waiter.job_id for waiter in waiting})
            except AWAY:
                await asyncio.sleep(PAUSE_S)
                continue
            for waiter in waiting:
                now = seen.get(waiter.job_id)
                if (now is None or waiter.is_enough(now)) and not waiter.woken.done():
                    waiter.woken.set_result(None)

    async def _look_at(self, job_ids: set[str]) -> Mapping[str, Seen]:
        batch = self._gathering
        if batch is None:
            batch = self._gathering = _Batch()
            batch.answer = asyncio.create_task(self._query(batch))
        assert batch.answer is not None
        batch.job_ids |= job_ids
        return await asyncio.shield(batch.answer)  # one asker may hang up, the others still want it

    async def _query(self, batch: _Batch) -> Mapping[str, Seen]:
        async with self._querying:  # while one query runs, the next batch gathers
            self._gathering = None
            return await run_in_threadpool(self._read, list(batch.job_ids))

    def _read(self, job_ids: list[str]) -> Mapping[str, Seen]:
        with self._database.connection() as connection:
            rows = repository.read_revisions(connection, job_ids)
        return {job_id: Seen(project, JobState(state), revision) for job_id, project, state, revision in rows}
