"""The teacher's part of an objective: a teacher that knows what it is asked, and the losses on its answers."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.contracts.training import Augmentation, Distillation, FeaturePair, LossName
from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.objective.answers import Answer, why_not_stored
from worker.engine.training.objective.evidence import Evidence
from worker.engine.training.objective.feature_pairs import choose_pairs, inner_shapes, inner_tensors
from worker.engine.training.objective.features import Alignment, FeatureLoss, align
from worker.engine.training.objective.goal import Goal
from worker.engine.training.objective.loss import Loss
from worker.engine.training.objective.outputs import Scores, scores_at
from worker.engine.training.objective.task_loss import ClassLabels
from worker.engine.training.objective.teacher import Teacher, TeacherGraph, Wanted, match_outputs
from worker.engine.training.objective.teacher_losses import DecoupledLoss, OutputLoss, SoftLoss
from worker.engine.training.objective.watching import Call, Watch
from worker.engine.wording import shortened


@dataclass(frozen=True)
class Lesson:
    """A teacher, the losses on its answers, and what people should know of the choices made."""

    teacher: Teacher | None = None
    losses: Mapping[LossName, Loss] = field(default_factory=dict)
    notes: Sequence[str] = ()


Aligned = Sequence[tuple[FeaturePair, Alignment]]


@dataclass(frozen=True)
class Preparation:
    """What a lesson is made from. `graph` is what `student` stands for: its names are those of inputs and outputs."""

    student: TorchGraph
    graph: Graph
    goal: Goal
    evidence: Evidence
    labels: ClassLabels | None

    def make(self, losses: Collection[LossName]) -> Lesson:
        """The lesson with those losses, which all need a teacher.

        Raises SlimlineError TEACHER_MISMATCH or FEATURES_NOT_FOUND.
        """
        graph = self.teacher
        run = TeacherGraph(graph, self.graph, self.goal.device)
        call = run.run(Watch(run.module, ()), self.evidence.sample)
        pairs = self._pairs(run) if "feature" in losses else []
        wanted = Wanted(
            self._scores(graph, call) if {"soft", "dkd"} & set(losses) else None,
            self._match(graph, call, self.evidence.float_outputs) if "logits" in losses else (),
            [pair.teacher for pair, _ in pairs],
        )
        teacher = Teacher(run, wanted)
        example = teacher.answer(self.evidence.sample)
        is_fixed = self.goal.options.augment == Augmentation()
        too_large = why_not_stored(example, self.goal.samples, asked=self.options.cache)
        obstacle = too_large if is_fixed else "inputs change from epoch to epoch"
        teacher.is_storing = obstacle is None
        made = {name: self._loss(name, example, pairs) for name in losses}
        return Lesson(teacher, made, list(self._notes(losses, obstacle, pairs)))

    @property
    def teacher(self) -> Graph:
        """The one to learn from."""
        if self.goal.teacher is None:
            raise ValueError("there is no teacher")
        return self.goal.teacher

    @property
    def options(self) -> Distillation:
        """How to learn from it."""
        return self.goal.options.distill or Distillation()

    def _scores(self, graph: Graph, call: Call) -> Scores:
        """Where the teacher has the class scores that the student has."""
        own = self._own_scores
        [number] = self._match(graph, call, [own.output])
        return scores_at(graph, number, own.axis, call.outputs[number].dim())

    @property
    def _own_scores(self) -> Scores:
        if self.evidence.scores is None:
            raise ValueError("a loss on class scores where there are none")
        return self.evidence.scores

    def _match(self, graph: Graph, call: Call, numbers: Sequence[int]) -> list[int]:
        return match_outputs(self.graph, graph, numbers, (self.evidence.call, call))

    def _pairs(self, run: TeacherGraph) -> Aligned:
        sample, asked = self.evidence.sample, self.options.features
        is_auto = asked == "auto"
        names = inner_tensors(self.student.graph) if asked == "auto" else [pair.student for pair in asked]
        others = inner_tensors(run.graph) if asked == "auto" else [pair.teacher for pair in asked]
        own_shapes = inner_shapes(self.student, names, sample, only_learning=is_auto)
        their_shapes = inner_shapes(run.module, others, run.adapt(sample))
        pairs = choose_pairs(asked, own_shapes, their_shapes)
        return [(pair, align(pair, own_shapes[pair.student], their_shapes[pair.teacher])) for pair in pairs]

    def _loss(self, name: LossName, example: Answer, pairs: Aligned) -> Loss:
        match name:
            case "soft":
                return SoftLoss(self._own_scores, self.options)
            case "dkd" if self.labels is not None:
                return DecoupledLoss(self._own_scores, self.options, self.labels)
            case "logits":
                return OutputLoss(self.evidence.float_outputs, example)
            case "feature":
                return FeatureLoss(pairs, example)
            case _:
                raise ValueError(f"{name} is no loss on a teacher's answers")

    def _notes(self, losses: Collection[LossName], obstacle: str | None, pairs: Aligned) -> Iterator[str]:
        """What was chosen that the recipe leaves open, and what it asks that is not done."""
        if self.options.features == "auto" and pairs:
            told = ", ".join(f"{shortened(pair.student)} with {shortened(pair.teacher)}" for pair, _ in pairs)
            yield f"features compared with the teacher's: {told}"
        if self.options.cache and obstacle:
            yield f"the teacher's answers were not stored: {obstacle}"
        if self.options.loss == "auto" and "soft" in losses and len(self.evidence.float_outputs) > 1:
            yield "only class scores were learned from the teacher; weigh `logits` too for the other outputs"
