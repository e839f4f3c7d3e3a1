"""What a pruning in a process of its own is asked, and what it tells. Imports no tool."""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Order:
    """What to prune: the file of a model for ours, the name of a native module for a peer."""

    subject: str
    output: Path
    options: Mapping[str, Any]

    @property
    def answer(self) -> Path:
        """Where the answer goes: beside the output."""
        return self.output.with_suffix(".json")

    def dump(self) -> str:
        """As `serve` reads it."""
        return json.dumps(asdict(self), default=str)


@dataclass
class Answer:
    """What one pruning found and took, filled as it goes: of a failure what was found before is kept.

    `groups`: how many of each kind. `deviation`: how far the pruned model is from the masked one, the largest
    difference over the largest number of an output.
    """

    groups: dict[str, int] = field(default_factory=dict)
    analysis_s: float | None = None
    work_s: float | None = None
    deviation: float | None = None
    failure: str | None = None


def serve(work: Callable[[Order, Answer], None]) -> None:
    """Carry out the order on standard input. Called when everything is imported: that is not the work's time."""
    asked = json.load(sys.stdin)
    order, answer = Order(**asked | {"output": Path(asked["output"])}), Answer()
    try:
        work(order, answer)
    except Exception as error:  # noqa: BLE001 - the edge of the process: it is shown as this tool's result
        traceback.print_exc()
        code = getattr(getattr(error, "failure", None), "code", type(error).__name__)
        answer.failure = f"{code}: {error}".splitlines()[0].rstrip(": ")
    order.answer.write_text(json.dumps(asdict(answer)))
