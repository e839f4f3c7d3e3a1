"""How steps name layers: by name or glob. Which layers there are is in the facts of a model."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matches(name: str, pattern: str) -> bool:
    """Whether `pattern` is this name, or a glob that it matches; case counts."""
    return name == pattern or fnmatchcase(name, pattern)


def is_chosen(name: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Whether a step works on the layer of this name: an empty `include` means all, `exclude` wins."""
    include = tuple(include)
    is_included = not include or any(matches(name, pattern) for pattern in include)
    return is_included and not any(matches(name, pattern) for pattern in exclude)


def matches_none(pattern: str, names: Sequence[str]) -> bool:
    """Whether no layer is called so."""
    return not any(matches(name, pattern) for name in names)
