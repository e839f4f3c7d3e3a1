"""How the results look: tables for people, Markdown for the documents, JSON for machines. Nothing is judged here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from benchmarks.comparison.goals import Goal
from benchmarks.comparison.section import Section, print_document, print_report
from benchmarks.comparison.tables import number
from benchmarks.training.found import Found
from benchmarks.training.qat import Agreement
from benchmarks.training.step_time import StepTime
from benchmarks.training.teachers import Teacher
from benchmarks.training.trials import Result

LEGEND = """\
top-1: of ONNX Runtime with the artifact, on test samples that nobody was trained on, mean over seeds; ±: half of its
95 % interval over test samples. seeds: lowest and highest. MACs: share of the original's that is left. updates: of the
weights, all trainings of a recipe together. train s: from the state before the first update to the last that was
judged; all s: the whole job, with its checks and measurements. gain: difference on the same samples, ± half of its
95 % interval. x: median of our time of an update over plain torch's right after it; quartiles; all: of all the time,
with the ends of epochs."""


@dataclass
class Results:
    """Everything that was measured and judged."""

    found: list[Found] = field(default_factory=list)
    teacher: Teacher | None = None
    agreements: Sequence[Agreement] = ()
    step_times: list[StepTime] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All of it, and by how much each goal is met."""
        return {
            "sections": {found.title: found.as_json() for found in self.found},
            "teacher": asdict(self.teacher) if self.teacher else None,
            "agreements": [asdict(each) for each in self.agreements],
            "step_times": [asdict(each) for each in self.step_times],
            "goals": [asdict(goal) | {"met": goal.met, "margin": goal.margin} for goal in self.goals],
        }


def print_tables(results: Results, console: Console) -> None:
    """For people."""
    print_report(_sections(results), LEGEND, results.goals, console)


def print_markdown(results: Results) -> None:
    """For docs/training.md."""
    print_document(_sections(results), results.goals)


def _sections(results: Results) -> Sequence[Section]:
    tables = [section for found in results.found for section in (_trial_section(found), _versus_section(found))]
    return (*tables, _agreement_section(results), _time_section(results))


def _trial_section(found: Found) -> Section:
    columns = ("model", "trial", "top-1 %", "±", "seeds", "MACs", "updates", "train s", "all s")
    lines = [_trial_line(result) for result in found.results]
    failures = [f"{each.case}, {each.trial.name}: {each.failure}" for each in found.results if each.failure]
    return Section(found.title, columns, ("model", "trial", "seeds"), lines, failures)


def _trial_line(result: Result) -> Sequence[str]:
    if result.failure:
        return (result.case, result.trial.name, *("-" * 7))
    each = [float(run.right.mean() * 100) for run in result.runs]
    figures = [result.mean(lambda run: run.train_s), result.mean(lambda run: run.total_s)]
    return (
        result.case,
        result.trial.name,
        number(result.top1),
        number(result.noise),
        f"{min(each):.2f} to {max(each):.2f}" if len(each) > 1 else "one",
        number(result.mean(lambda run: run.macs)),
        str(result.updates),
        *(f"{seconds:.0f}" if seconds else "-" for seconds in figures),
    )


def _versus_section(found: Found) -> Section:
    lines = [
        (versus.better.case, versus.name, f"{gain.value:+.2f}", f"{gain.noise:.2f}", gain.told())
        for versus in found.versus
        if (gain := versus.difference)
    ]
    return Section(f"{found.title}: gains", ("model", "of", "gain pt", "±", "note"), ("model", "of", "note"), lines)


def _agreement_section(results: Results) -> Section:
    lines = [(each.case, each.trial, number(each.torch), number(each.onnxruntime)) for each in results.agreements]
    return Section(
        "Accuracy in torch, as trained, and in ONNX Runtime",
        ("model", "trial", "torch top-1 %", "ONNX Runtime top-1 %"),
        ("model", "trial"),
        lines,
    )


def _time_section(results: Results) -> Section:
    lines = [
        (each.case, f"{each.plain_ms:.1f}", *map(number, (each.ratio, each.low, each.high, each.whole)))
        for each in results.step_times
    ]
    columns = ("module", "plain torch ms", "x", "lower quartile", "upper quartile", "all")
    return Section("Time of an update", columns, ("module",), lines)
