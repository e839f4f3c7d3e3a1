"""Records: the collector's way to the rows. It deletes those that are over, and knows which blobs the others need."""

from collections.abc import Collection

from app.db.clock import read_clock
from app.db.database import Database
from app.retention import repository, service
from app.settings import Settings


class Records:
    """The rows as the collector needs them. Every method raises the driver's error, without patience."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database)

    def read_clock(self) -> float:
        """The time by the clock that ages are measured by, seconds."""
        with self._database.read() as session:
            return read_clock(session)

    def delete_finished_jobs(self) -> bool:
        """Delete a few jobs that are kept no longer; whether there may be more."""
        with self._database.write() as session:
            return service.delete_finished_jobs(session, self._settings.retention_days)

    def forget(self) -> None:
        """Delete what has only been kept in case someone asks again."""
        with self._database.write() as session:
            service.forget(session)

    def find_unreferenced(self, sha256s: Collection[str]) -> set[str]:
        """Those of these blobs that no row refers to."""
        with self._database.read() as session:
            return set(sha256s) - repository.find_referenced(session, sha256s)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
