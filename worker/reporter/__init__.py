"""The reporter: the one door from the worker to the rows. Every write names its attempt, and a late writer loses."""

from worker.reporter.claims import Claim, Input
from worker.reporter.fencing import AttemptLostError
from worker.reporter.ingests import IngestAttempt
from worker.reporter.jobs import JobAttempt
from worker.reporter.reporter import Reporter

__all__ = ["AttemptLostError", "Claim", "IngestAttempt", "Input", "JobAttempt", "Reporter"]
