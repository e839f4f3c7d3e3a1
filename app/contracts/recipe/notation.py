"""The ways to write a recipe: the string notation and plain data. Files and YAML are read by the commands, not here.

`prune.magnitude:amount=0.5,scope=layer + quantize.static:weights.bits=8`: steps joined by `+`, options after `:`,
joined by `,`, nested with dots. A value is JSON where it reads as JSON, else text. Quote a text that holds `+` or `,`;
write a list as `include=["a","b"]`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from app.contracts.failure import SlimlineError
from app.contracts.recipe import METHODS, Recipe, RecipeStep

_RECIPE: TypeAdapter[list[RecipeStep]] = TypeAdapter(Recipe)
_EXAMPLE = "prune.magnitude:amount=0.5 + quantize.static"
# A `+` before a digit is of a number, as in 1e+3.
_PLUS = re.compile(r"\+(?!\d)")
_COMMA = re.compile(",")


def parse_recipe(text: str) -> list[RecipeStep]:
    """The steps that `text`, the string notation or JSON, stands for.

    Raises:
        SlimlineError: RECIPE_SYNTAX, RECIPE_EMPTY, METHOD_UNKNOWN or OPTION_INVALID, naming the step.
    """
    text = text.strip()
    return validate_recipe(_read_json(text) if text.startswith(("[", "{")) else _read_notation(text))


def validate_recipe(steps: Any) -> list[RecipeStep]:
    """The checked steps of a recipe given as plain data: a list of steps, or one step alone.

    Raises:
        SlimlineError: RECIPE_EMPTY, METHOD_UNKNOWN or OPTION_INVALID, naming the step.
    """
    if isinstance(steps, dict):
        steps = [steps]
    if not steps:
        raise SlimlineError("RECIPE_EMPTY", "the recipe has no step", hint=f"Write for example `{_EXAMPLE}`.")
    try:
        return _RECIPE.validate_python(steps)
    except ValidationError as error:
        raise _refusal(error) from None


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SlimlineError("RECIPE_SYNTAX", f"the recipe is not valid JSON: {error}") from None


def _read_notation(text: str) -> list[dict[str, Any]]:
    return [_read_step(part, index) for index, part in enumerate(_split(text, _PLUS))] if text else []


def _read_step(text: str, index: int) -> dict[str, Any]:
    method, _, options = text.partition(":")
    step: dict[str, Any] = {"method": method.strip()}
    for option in _split(options, _COMMA) if options.strip() else ():
        name, equals, value = option.partition("=")
        if not equals or not name.strip():
            raise SlimlineError(
                "RECIPE_SYNTAX",
                f"step {index + 1} ({step['method']}): {option.strip()!r} is not `option=value`",
                step=index,
                hint=f"Write for example `{_EXAMPLE}`.",
            )
        _place(step, name.strip().split("."), _read_value(value.strip()), index)
    return _lists_from_single_values(step)


def _place(step: dict[str, Any], path: list[str], value: Any, index: int) -> None:
    *parents, leaf = path
    target = step
    for name in parents:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            break
    if not isinstance(target, dict) or leaf in target:
        raise SlimlineError(
            "RECIPE_SYNTAX", f"step {index + 1} ({step['method']}): {'.'.join(path)!r} is given twice", step=index
        )
    target[leaf] = value


def _lists_from_single_values(step: dict[str, Any]) -> dict[str, Any]:
    """`include=conv1` means a list of one."""
    kind = METHODS.get(step["method"])
    fields = kind.model_fields if kind else {}
    return {
        name: [value] if name in fields and fields[name].default == () and isinstance(value, str) else value
        for name, value in step.items()
    }


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _split(text: str, separator: re.Pattern[str]) -> Iterator[str]:
    """The parts of `text` between separators that lie outside quotes and brackets."""
    start, depth, is_quoted = 0, 0, False
    for position, character in enumerate(text):
        if character == '"':
            is_quoted = not is_quoted
        elif is_quoted:
            continue
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif depth == 0 and separator.match(text, position):
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _refusal(error: ValidationError) -> SlimlineError:
    problems = error.errors(include_url=False, include_context=True)
    first = problems[0]
    unknown = first["type"].startswith("union_tag")
    step = next((part for part in first["loc"] if isinstance(part, int)), None)
    return SlimlineError(
        "METHOD_UNKNOWN" if unknown else "OPTION_INVALID",
        "; ".join(_sentence(dict(problem)) for problem in problems),
        step=step,
        hint=f"Methods: {', '.join(METHODS)}." if unknown else None,
    )


def _sentence(problem: dict[str, Any]) -> str:
    place = [part for part in problem["loc"] if part not in METHODS]  # pydantic puts the method between
    method = next((part for part in problem["loc"] if part in METHODS), None)
    match place:
        case [int(index), *option]:
            where = f"step {index + 1}" + (f" ({method})" if method else "")
        case _:
            return f"the recipe: {problem['msg']}"
    match problem["type"]:
        case "union_tag_invalid":
            return f"{where}: there is no method {problem['ctx']['tag']!r}"
        case "union_tag_not_found":
            return f"{where}: no `method` is given"
        case _ if not option:
            return f"{where}: not a mapping with a `method` and its options"
        case "extra_forbidden":
            allowed = ", ".join(_options_beside(str(method), [str(name) for name in option]))
            return f"{where}: there is no option `{'.'.join(map(str, option))}`; there are {allowed}"
        case _:
            return f"{where}: option `{'.'.join(map(str, option))}`: {problem['msg'].lower()}"


def _options_beside(method: str, path: list[str]) -> list[str]:
    """The names allowed where the last part of `path` stands."""
    kind: type[BaseModel] = METHODS[method]
    for name in path[:-1]:
        annotation = kind.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        kind = annotation
    return [name for name in kind.model_fields if name != "method"]
