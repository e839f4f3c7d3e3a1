"""The table of rules: how each ONNX operator ties the indices of its inputs and outputs. The rules are in `rules/`."""

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from worker.engine.graph.channels.walk import Walk

Rule = Callable[["Walk", ir.Node], None]
"""Unites and blocks the labels of a node's inputs, and gives its outputs theirs by `Walk.give`."""

DEFAULT = ""
MICROSOFT = "com.microsoft"
_RULES: dict[tuple[str, str], Rule] = {}


def rule(*names: str, domain: str = DEFAULT) -> Callable[[Rule], Rule]:
    """Enter the decorated rule for operators `names`."""

    def enter(function: Rule) -> Rule:
        for name in names:
            if (domain, name) in _RULES:
                raise RuntimeError(f"operator {domain}::{name} has two rules")
            _RULES[domain, name] = function
        return function

    return enter


def find_rule(domain: str, name: str) -> Rule | None:
    """The rule of an operator, None where it is unknown."""
    _load()
    return _RULES.get((domain.removeprefix("ai.onnx"), name))


def known_operators() -> list[tuple[str, str]]:
    """(domain, name) of every operator with a rule, sorted."""
    _load()
    return sorted(_RULES)


@cache
def _load() -> None:
    package = importlib.import_module("worker.engine.graph.channels.rules")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
