"""What a student is made with. Nothing is made here."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.engine.samples import Samples
from worker.engine.session import Device


@dataclass(frozen=True)
class StudentContext:
    """What a student is made with: inputs to measure on, and where to say what was done."""

    samples: Samples
    seed: int
    device: Device
    note: Callable[[str], None]
