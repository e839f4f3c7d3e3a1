"""What a recipe refers to besides its own model: other uploaded models, and the results of its own earlier steps."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import BaseModel

from app.contracts.recipe import Step
from app.contracts.training import Distillation, TrainingOptions


class Reference(NamedTuple):
    """A teacher or student that is not the job's own model.

    `path` leads to it in the recipe. `target` is the index of a step, from 0, or the name of another model.
    """

    path: tuple[int | str, ...]
    target: int | str

    @property
    def step(self) -> int:
        """Index of the step that has it, from 0."""
        return int(self.path[0])

    @property
    def pointer(self) -> str:
        """Its place in the job (RFC 6901)."""
        return "/".join(("/recipe", *map(str, self.path)))


def find_references(recipe: Sequence[Step]) -> Iterator[Reference]:
    """Every teacher and student of `recipe` but the original model, in order."""
    for index, step in enumerate(recipe):
        for path, distillation in _find_distillations(step):
            if distillation.teacher != "original":
                yield Reference((index, *path, "teacher"), distillation.teacher)
            if distillation.student and distillation.student.model is not None:
                yield Reference((index, *path, "student", "model"), distillation.student.model)


def find_other_models(recipe: Sequence[Step]) -> list[str]:
    """The other models that `recipe` names, each once."""
    return list(dict.fromkeys(each.target for each in find_references(recipe) if isinstance(each.target, str)))


def find_teaching_steps(recipe: Sequence[Step]) -> set[int]:
    """The steps of `recipe` whose results teach later ones."""
    return {each.target for each in find_references(recipe) if isinstance(each.target, int)}


def find_replacement(recipe: Sequence[Step]) -> int:
    """Index of the first step that goes on with another model in place of the job's own; the length where none does."""
    others = (each.step for each in find_references(recipe) if each.path[-2:] == ("student", "model"))
    return next(others, len(recipe))


def _find_distillations(
    options: BaseModel, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Distillation]]:
    """Of the step itself, and of training inside its options, as between the rounds of iterative pruning."""
    if isinstance(options, TrainingOptions) and options.distill:
        yield (*path, "distill"), options.distill
    for name, value in options:
        if isinstance(value, BaseModel):
            yield from _find_distillations(value, (*path, name))
