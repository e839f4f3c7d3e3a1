"""A job's events as a stream (server-sent events): what is stored first, then what comes, until the job is final."""

from collections.abc import AsyncIterator, Callable

from fastapi.concurrency import run_in_threadpool
from sse_starlette import ServerSentEvent

from app.context import Context
from app.db.base import utc_now
from app.jobs import repository
from app.jobs.schemas import JobEvent
from app.jobs.tables import JobEventRow
from app.jobs.watch import Seen
from app.keys import repository as keys

_BATCH = 200
_IDLE_S = 60.0


def show(row: JobEventRow) -> JobEvent:
    """The event as clients see it."""
    return JobEvent(id=row.id, type=row.type, created_at=row.created_at, data=row.data)


async def stream(context: Context, job_id: str, after_seq: int) -> AsyncIterator[ServerSentEvent]:
    """Events behind `after_seq`, in order, each once; ends when the job is final and all are sent.

    It ends, too, within a minute of the end of the key that asked: who comes back is told why.
    """
    while True:
        # The revision is read before the events: what comes in between makes the wait below return at once.
        seen = await context.watch.look(job_id)
        rows = await run_in_threadpool(_read, context, job_id, after_seq)
        if rows is None:
            return
        for row in rows:
            yield ServerSentEvent(show(row).model_dump_json(), event=row.type, id=row.id)
            after_seq = row.seq
        if len(rows) == _BATCH:
            continue
        if seen is None or seen.state.is_final:
            return
        await context.watch.until(job_id, _is_newer_than(seen.revision), _IDLE_S)


def _is_newer_than(revision: int) -> Callable[[Seen], bool]:
    return lambda seen: seen.revision > revision


def _read(context: Context, job_id: str, after_seq: int) -> list[JobEventRow] | None:
    """The next events; None once the key is revoked or has expired."""
    key_id = context.principal.key_id
    with context.read() as session:
        if key_id is not None and not keys.is_live(session, key_id, utc_now()):
            return None
        rows, _ = repository.fetch_events(session, job_id, after_seq=after_seq, limit=_BATCH)
    return rows
