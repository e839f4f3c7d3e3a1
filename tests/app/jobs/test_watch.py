"""Those who wait for jobs are woken by their own job's change and by nothing else, however they come and go."""

import asyncio
from collections.abc import Callable

from app.context import Context
from app.contracts.job_spec import JobSpec
from app.jobs import repository
from app.jobs.queue import moves
from app.jobs.watch import JobWatch


def make_job(context: Context, model: str) -> str:
    spec = JobSpec.model_validate({"model": model, "recipe": [{"method": "quantize.float16"}]})
    with context.database.write() as session:
        return repository.insert_queued(session, spec).id


def test_many_waiters_that_come_and_go_are_never_woken_early(context: Context, make_model: Callable[..., str]) -> None:
    jobs = [make_job(context, make_model()) for _ in range(100)]
    watch = JobWatch(context.database)

    async def wait(number: int) -> bool:
        await asyncio.sleep(number * 0.003)
        began = asyncio.get_running_loop().time()
        timeout_s = 0.05 + (number % 7) * 0.01
        await watch.until(jobs[number % 100], lambda seen: seen.state.is_final, timeout_s)
        return asyncio.get_running_loop().time() - began >= timeout_s

    async def run() -> list[bool]:
        return await asyncio.gather(*(wait(number) for number in range(200)))

    assert all(asyncio.run(run()))


def test_a_change_wakes_its_waiters_only(context: Context, make_model: Callable[..., str]) -> None:
    changing, still = (make_job(context, make_model()) for _ in range(2))
    watch = JobWatch(context.database)

    async def run() -> None:
        waiters = [
            asyncio.create_task(watch.until(job, lambda seen: seen.state.is_final, 30)) for job in (changing, still)
        ]
        await asyncio.sleep(0.1)
        with context.database.write() as session:
            moves.cancel_queued(session, changing)
        await waiters[0]
        assert not waiters[1].done()
        waiters[1].cancel()

    asyncio.run(run())


def test_an_unknown_job_is_not_waited_for(context: Context) -> None:
    asyncio.run(asyncio.wait_for(JobWatch(context.database).until("job_1", lambda _: False, 30), 10))
