"""The methods: one file each, called `<family>_<name>.py`, found by looking. The list itself is written nowhere.

A method without a step model in `app.contracts.recipe`, or the other way round, is fatal, and so is a duplicate.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from app.contracts.facts import Applicability
from app.contracts.recipe import METHODS
from worker.engine.graph import Graph
from worker.engine.methods.method import Method

__all__ = ["Method", "applicability", "find_method", "registry"]


@cache
def registry() -> Mapping[str, Method[Any]]:
    """Every method by its name. Raises TypeError where files and step models do not match one to one."""
    found: dict[str, Method[Any]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "method"):
        method = _only_method_in(module)
        name = str(method.step_type.model_fields["method"].default)
        if name in found or name.replace(".", "_") != module:
            raise TypeError(f"methods/{module}.py implements {name!r}: one file per method, named after it")
        found[name] = method
    if found.keys() != METHODS.keys():
        raise TypeError(f"methods and step models differ: {sorted(found.keys() ^ METHODS.keys())}")
    return found


def find_method(name: str) -> Method[Any]:
    """The method called `name`. Raises KeyError: a checked recipe names only methods that exist."""
    return registry()[name]


def applicability(graph: Graph) -> dict[str, dict[str, Applicability]]:
    """For each layer by name: which methods work on it and, if not, why."""
    obstacles = {name: method.obstacles(graph) for name, method in registry().items()}
    return {
        layer.name: {
            name: Applicability(applies=found[layer.name] is None, why=found[layer.name])
            for name, found in obstacles.items()
        }
        for layer in graph.layers()
    }


def _only_method_in(module: str) -> Method[Any]:
    full_name = f"{__name__}.{module}"
    kinds = [
        kind
        for kind in vars(importlib.import_module(full_name)).values()
        if isinstance(kind, type) and issubclass(kind, Method) and kind.__module__ == full_name
    ]
    if len(kinds) != 1:
        raise TypeError(f"methods/{module}.py must hold exactly one method, it holds {len(kinds)}")
    method: Method[Any] = kinds[0]()
    return method
