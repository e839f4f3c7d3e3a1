"""A transaction whose machine is cut off in the midst of it: how long its lock keeps everybody else from the row."""

import sys
import time

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.db.database import make_engine
from benchmarks.faults.program import Program, wait_until
from benchmarks.faults.site import Site

_LIMIT_S = 60
_LOCK = text("SELECT id FROM jobs WHERE id = :job FOR UPDATE")


def measure_lock(site: Site, job: str) -> float | None:
    """Seconds from the cut until the row is free; None when it is not after a minute."""
    holder = Program(
        "holder", [sys.executable, "-m", __name__, site.postgres.url, job], site.house.folder / "holder.log"
    )
    site.network.place(holder, site.worker_a.name)
    try:
        holder.start()
        wait_until(lambda: "held" in holder.tail(), f"the row is not held: {holder.tail()}")
        site.network.cut(site.worker_a.name)
        began = time.monotonic()
        with make_engine(site.postgres.url).begin() as connection:
            connection.execute(text(f"SET lock_timeout = '{_LIMIT_S}s'"))
            connection.execute(_LOCK, {"job": job})
        return time.monotonic() - began
    except OperationalError:
        return None
    finally:
        site.network.mend(site.worker_a.name)
        holder.kill()


def _hold(url: str, job: str) -> None:
    with make_engine(url).begin() as connection:
        connection.execute(_LOCK, {"job": job})
        print("held", flush=True)
        time.sleep(2 * _LIMIT_S)


if __name__ == "__main__":
    _hold(*sys.argv[1:])
