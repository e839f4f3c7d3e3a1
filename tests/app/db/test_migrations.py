"""Migrations go up and down on both databases and make exactly the tables in the code."""

from sqlalchemy import inspect, text

from app.db.database import make_engine
from app.db.migrate import downgrade, is_current, upgrade
from app.db.schema import find_drift, load_metadata


def test_up_makes_the_tables_in_the_code_and_down_removes_them(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    assert set(inspect(engine).get_table_names()) == {*load_metadata().tables, "alembic_version"}
    assert find_drift(engine) == []
    assert is_current(engine)
    engine.dispose()

    downgrade(empty_database_url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert not is_current(engine)
    engine.dispose()


def test_up_twice_changes_nothing(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    assert is_current(engine)
    engine.dispose()


def test_rows_of_the_first_schema_live_through_the_second_and_back(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0001")
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        for statement in _A_JOB:
            connection.execute(text(statement))
    for move, revision in ((upgrade, "0002"), (downgrade, "0001"), (upgrade, "0002")):
        move(empty_database_url, revision)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id, attempt FROM jobs")).all() == [("job_1", 2)]
            assert connection.execute(text("SELECT job_id, type FROM job_events")).all() == [("job_1", "state")]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT counted_from, partial_sha256 FROM jobs")).all() == [(1, None)]
    engine.dispose()


_NOW = "'2026-11-22 09:00:00'"
_A_JOB = (
    f"""INSERT INTO models (id, name, filename, tags, sha256, size_bytes, state, attempt, revision, created_at)
    VALUES ('mdl_1', 'n', 'f', '{{}}', '0', 1, 'ready', 1, 1, {_NOW})""",
    f"""INSERT INTO jobs (id, state, revision, spec, priority, model_id, created_at, queued_at, attempt, handed_back,
    notes, input_sha256, versions)
    VALUES ('job_1', 'running', 1, '{{}}', 5, 'mdl_1', {_NOW}, {_NOW}, 2, 0, '[]', '{{}}', '{{}}')""",
    f"""INSERT INTO job_events (job_id, seq, id, type, data, created_at)
    VALUES ('job_1', 1, 'evt_1', 'state', '{{}}', {_NOW})""",
)
