"""What the processes of a training tell the one that started them: a line of JSON for each."""

from pydantic import BaseModel

from app.contracts.events import Trained
from app.contracts.failure import Failure


class Progress(BaseModel):
    """The share done, a message, and the seconds left where they are known."""

    share: float
    message: str
    remaining_s: float | None = None


class End(BaseModel):
    """The training is done, and its graph lies in the folder."""

    curve: list[Trained]
    notes: list[str]


class Word(BaseModel):
    """One of these. `state` is a file in the folder; `defect` is an error that is nobody's refusal."""

    progress: Progress | None = None
    warning: str | None = None
    point: Trained | None = None
    state: str | None = None
    end: End | None = None
    failure: Failure | None = None
    defect: str | None = None
