"""Reading the books of a service after a storm: what its database and its folder of blobs say. Looks, never mends."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData, String, Table, create_engine, func, select, text


@dataclass(frozen=True)
class Books:
    """What was found. `gaps`: jobs whose events are not numbered 1, 2, 3 …; `orphans`: blobs that no row names."""

    jobs: int
    without_one_artifact: list[str]
    with_wrong_end: list[str]
    gaps: list[str]
    orphans: list[str]


def read_books(database_url: str, blobs: Path) -> Books:
    """Look through every job and every blob."""
    engine = create_engine(database_url)
    try:
        schema = MetaData()
        schema.reflect(engine)
        with engine.connect() as connection:
            return Books(
                jobs=connection.scalar(text("SELECT count(*) FROM jobs")) or 0,
                without_one_artifact=_without_one_artifact(connection),
                with_wrong_end=_with_wrong_end(connection, schema.tables["job_events"]),
                gaps=_with_gaps(connection, schema.tables["job_events"]),
                orphans=sorted(find_blobs(blobs) - _owned(connection, schema)),
            )
    finally:
        engine.dispose()


def find_blobs(folder: Path) -> set[str]:
    """Digests of the blobs that lie in a folder."""
    return {blob.name for blob in folder.glob("??/*")}


def _without_one_artifact(connection: Connection) -> list[str]:
    counted = "SELECT jobs.id FROM jobs LEFT JOIN artifacts ON artifacts.job_id = jobs.id"
    query = f"{counted} WHERE jobs.state = 'succeeded' GROUP BY jobs.id HAVING count(artifacts.id) <> 1"
    return list(connection.scalars(text(query)))


def _with_gaps(connection: Connection, events: Table) -> list[str]:
    per_job = select(events.c.job_id).group_by(events.c.job_id)
    return list(connection.scalars(per_job.having(func.count() != func.max(events.c.seq))))


def _with_wrong_end(connection: Connection, events: Table) -> list[str]:
    """Jobs that came to an end more than once, or to none."""
    ends: dict[str, int] = {}
    states = select(events.c.job_id, events.c.data).where(events.c.type == "state")
    for job, data in connection.execute(states):
        ends[job] = ends.get(job, 0) + (data["state"] in ("succeeded", "failed", "cancelled"))
    return [job for job, number in ends.items() if number != 1]


def _owned(connection: Connection, schema: MetaData) -> set[str]:
    """Every digest that any row has in a column of digests."""
    columns = [column for table in schema.tables.values() for column in table.columns]
    named = [column for column in columns if column.name.endswith("sha256") and isinstance(column.type, String)]
    return {value for column in named for value in connection.scalars(select(column).distinct()) if value}
