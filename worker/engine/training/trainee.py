"""The network in training, and all that acts on its weights around an update. No loss, data or time is known here."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.batch_norm import BatchNorms
from worker.engine.training.batches import TrainingData
from worker.engine.training.layer_choice import initializer_of, weights_of_layers
from worker.engine.training.objective.objective import Objective
from worker.engine.training.optimization import Average
from worker.engine.training.preservation import Zeros
from worker.engine.training.request import Request
from worker.engine.training.rewriting import Rewriting
from worker.engine.training.selection import Judgement, judge
from worker.engine.training.snapshot import Tensors, put_back, take, trained_tensors

SMALLEST_NORMED = 16
"""Samples that a batch must have for its own statistics to normalise it; below, the running ones do."""
_STATISTICS_BATCHES, _STATISTICS_SHARE = (8, 32), 1 / 4
"""How many batches statistics are estimated on, at least and at most; between, that share of an epoch's."""


class Trainee:
    """The student within its objective, whose zeros, integers and averages are kept as they should be."""

    def __init__(self, objective: Objective, rewriting: Rewriting, request: Request) -> None:
        self.objective, self._rewriting, self._regularizer = objective, rewriting, request.regularizer
        self._task, options = request.task, request.options
        self._tensors = trained_tensors(objective)
        sparse = weights_of_layers(rewriting.graph).difference(rewriting.rounded) if options.keep_zeros else ()
        learning = objective.student.named_parameters()
        self.zeros = Zeros(each for name, each in learning if each.requires_grad and initializer_of(name) in sparse)
        self.norms = BatchNorms(rewriting.graph, objective.student)
        self._average = Average(self._tensors, options.ema) if options.ema else None

    @property
    def student(self) -> TorchGraph:
        """The module in training."""
        return self.objective.student

    def train(self, samples: int) -> None:
        """Training mode for `samples` at once; too few to normalise by run as when it is used."""
        self.student.train(not self.norms or samples >= SMALLEST_NORMED)

    def after_backward(self) -> None:
        """Let the regularizer change gradients."""
        if self._regularizer is not None:
            self._regularizer.after_backward(self.student)

    def after_update(self, update: int, done: float) -> None:
        """Bring the weights back to what they may be, and average them."""
        if self._regularizer is not None:
            self._regularizer.after_update(self.student, done)
        self.zeros.keep()
        self._rewriting.constrain(self.student)
        if self._average is not None:
            self._average.add(self._tensors, update)

    @contextmanager
    def as_it_would_be_kept(self, data: TrainingData) -> Iterator[Tensors]:
        """Within, the student has averaged weights and fresh statistics; gives a copy of them."""
        own = take(self._tensors)
        if self._average is not None:
            put_back(self._tensors, self._average.tensors)
            self.zeros.keep()
            self._rewriting.constrain(self.student)
        if self.norms:
            least, most = _STATISTICS_BATCHES
            limit = min(most, max(least, round(data.steps_per_epoch * _STATISTICS_SHARE)))
            with closing(data.training_batches(limit * data.batch_size)) as batches:
                self.norms.estimate(batches)
        try:
            yield take(self._tensors)
        finally:
            put_back(self._tensors, own)

    def judge(self, batches: Iterator[TrainingBatch]) -> Judgement | None:
        """How good it is on samples it was not trained on."""
        return judge(self.objective, batches, self._task)

    def put_back(self, tensors: Tensors) -> None:
        """Be in that state."""
        put_back(self._tensors, tensors)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "tensors": take(self._tensors),
            "average": take(self._average.tensors) if self._average else None,
            "regularizer": self._regularizer.state() if self._regularizer else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.put_back(state["tensors"])
        if self._average is not None:
            put_back(self._average.tensors, state["average"])
        if self._regularizer is not None:
            self._regularizer.load_state(state["regularizer"])
