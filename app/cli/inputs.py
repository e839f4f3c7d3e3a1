"""What the caller wrote, checked before anything is sent: recipes, targets, preprocessing and job files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from app.contracts.recipe import RecipeStep
from app.contracts.recipe.notation import parse_recipe, validate_recipe
from app.contracts.targets import Targets

_FILE_SUFFIXES = {".json", ".yaml", ".yml"}

Checked = TypeVar("Checked", bound=BaseModel)


def read_recipe(text: str) -> list[RecipeStep]:
    """The steps of a JSON or YAML file, or of a string such as `prune.magnitude:amount=0.5 + quantize.static`.

    Raises SlimlineError RECIPE_SYNTAX, METHOD_UNKNOWN, … or FILE_UNREADABLE.
    """
    return validate_recipe(read_document(Path(text))) if _is_file_name(text) else parse_recipe(text)


def read_preprocess(text: str | None) -> Preprocess | None:
    """Preprocessing from a file or a JSON text. Raises SlimlineError PREPROCESS_INVALID or FILE_UNREADABLE."""
    if text is None:
        return None
    given = read_document(Path(text)) if _is_file_name(text) else _parse(text, "--preprocess")
    return _check(Preprocess, given, "PREPROCESS_INVALID", "--preprocess")


def read_targets(clauses: Sequence[str]) -> Targets:
    """Targets from `name=number` clauses. Raises SlimlineError TARGETS_INVALID."""
    return _check(Targets, dict(map(_split_clause, clauses)), "TARGETS_INVALID", "--target")


def read_document(path: Path) -> Any:
    """The data in a JSON or YAML file. Raises SlimlineError FILE_UNREADABLE."""
    try:
        return _parse(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as refused:
        raise SlimlineError("FILE_UNREADABLE", f"{path} cannot be read: {refused}") from refused


def _is_file_name(text: str) -> bool:
    return Path(text).suffix.lower() in _FILE_SUFFIXES and not text.lstrip().startswith(("{", "["))


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)  # JSON is YAML too
    except yaml.YAMLError as malformed:
        raise SlimlineError("FILE_UNREADABLE", f"{source} is neither JSON nor YAML: {malformed}") from malformed


def _split_clause(clause: str) -> tuple[str, str]:
    name, equals, number = clause.partition("=")
    if not equals:
        raise SlimlineError("TARGETS_INVALID", f"--target {clause} is not `name=number`", hint="as max_size_ratio=0.3")
    return name.strip(), number.strip()


def _check(kind: type[Checked], given: Any, code: str, option: str) -> Checked:
    try:
        return kind.model_validate(given)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(kind.model_fields)
        raise SlimlineError(code, f"{option} {where}: {first['msg']}", hint=f"there are: {known}") from invalid
