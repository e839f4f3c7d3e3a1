"""Python numbers as a scalar or as a vector: files often hold the one where the specification asks for the other."""

from typing import Any


def as_scalar(numbers: Any) -> Any:
    """The number itself, or the only one of a list. Raises ValueError for a list of several."""
    if isinstance(numbers, list):
        (numbers,) = numbers
    return numbers


def as_list(numbers: Any) -> list[Any]:
    """The list itself, or a list of the one number."""
    return numbers if isinstance(numbers, list) else [numbers]
