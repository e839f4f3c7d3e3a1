"""Two workers on machines of their own (network namespaces): one is cut off in mid-job, then its cable is put back."""

import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.database import make_engine
from benchmarks.faults.backends import Postgres
from benchmarks.faults.machines import Seen, part_machines
from benchmarks.faults.network import NoNetworkError
from benchmarks.faults.site import LEASE_S

pytestmark = pytest.mark.xdist_group("faults-house")


@pytest.fixture(scope="module")
def seen() -> Seen:
    # Not below pytest's folder, which is root's alone: PostgreSQL runs as another user.
    with tempfile.TemporaryDirectory(prefix="slimline-machines-") as folder:
        Path(folder).chmod(0o755)
        try:
            return part_machines(Path(folder), print)
        except NoNetworkError as error:
            pytest.skip(f"namespaces cannot be made or joined here: {error}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_other_worker_takes_over_and_late_writes_lose(seen: Seen) -> None:
    assert seen.faults == []
    assert [each.mended_at for each in seen.rounds] == ["takeover", "end"]
    for each in seen.rounds:
        assert each.attempts == 2
        assert LEASE_S / 2 < each.taken_over_s <= each.mended_s
        assert each.let_through == []
    assert seen.rounds[0].late_writes > 0


@pytest.mark.slow
def test_a_lost_machine_does_not_keep_what_it_had_locked(seen: Seen) -> None:
    assert seen.lock_s is not None


def test_postgresql_is_told_to_miss_a_dead_client(own_postgres: Postgres) -> None:
    engine = make_engine(own_postgres.url)
    with engine.connect() as connection:
        connection.rollback()
        told = {name: connection.scalar(text(f"SHOW tcp_{name}")) for name in ("keepalives_idle", "user_timeout")}
    engine.dispose()
    assert told == {"keepalives_idle": "5", "user_timeout": "10000"}
