"""Migrations go up and down on both databases and make exactly the tables in the code."""

from sqlalchemy import inspect

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
