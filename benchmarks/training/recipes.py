"""The recipes' steps, and how much each section trains. What is compared is said in the sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contracts.training import TrainingOptions

Options = Mapping[str, Any]
HALF: Options = {"method": "prune.structured", "target": {"macs": 0.5}}
BATCH = 64
_PICTURES: Options = {"batch_size": BATCH, "augment": {"flip": True, "crop": 4}}


@dataclass(frozen=True)
class Scale:
    """How much is done. `images` of CIFAR-10 to train on, `tested` to test on (None: all), `pairs` of timed updates.

    Epochs are those of one trial; where there are rounds, of all together.
    """

    images: int
    tested: int | None
    seeds: Sequence[int]
    recovery_epochs: int
    teacher_epochs: int
    student_epochs: int
    digits_epochs: int
    pairs: int

    @property
    def recovery(self) -> Options:
        """Of ResNet-20 with half of its MACs."""
        return {"epochs": self.recovery_epochs, **_PICTURES}

    @property
    def pruning(self) -> Options:
        """Of ResNet-20 on the way to half of its MACs, without its end."""
        return _PICTURES

    @property
    def pruning_updates(self) -> int:
        """Of the weights, in one trial: as many as the epochs of `recovery` take."""
        trained_on = self.images * (1 - TrainingOptions().validation)
        return self.recovery_epochs * int(trained_on // BATCH)

    @property
    def teacher(self) -> Options:
        """Of ResNet-56."""
        return {"epochs": self.teacher_epochs, **_PICTURES}

    @property
    def student(self) -> Options:
        """Of a thin ResNet-20."""
        return {"epochs": self.student_epochs, **_PICTURES}

    @property
    def digits(self) -> Options:
        """Of a network for digits, quantized or not."""
        return {"epochs": self.digits_epochs}


FULL = Scale(20_000, None, (0, 1), 3, 2, 3, 10, 60)
QUICK = Scale(2_000, 2_000, (0,), 4, 2, 4, 4, 30)


def train(budget: Options, **more: Any) -> dict[str, Any]:
    """The step `train`."""
    return {"method": "train", **budget, **more}
