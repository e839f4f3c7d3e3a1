"""What the server counts: requests by route, and jobs by state at the moment of the scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.db.database import Database
from app.jobs.queue import waiting


class Metrics:
    """The counters of one server. Each has its own registry, so that two servers in one process do not mix."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(JobCollector(database))
        self.requests = Counter(
            "slimline_http_requests", "Answered requests", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "slimline_http_request_seconds",
            "Time to the end of the answer",
            ("method", "route"),
            registry=self.registry,
        )


class JobCollector(Collector):
    """Counts jobs when asked: the database knows, no process has to keep score."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge with a sample per state."""
        gauge = GaugeMetricFamily("slimline_jobs", "Jobs by state", labels=["state"])
        with self._database.read() as session:
            for state, count in waiting.count_by_state(session).items():
                gauge.add_metric([state], count)
        yield gauge
