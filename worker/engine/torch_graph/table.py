"""The operator table: which ONNX operator is run by which function. The functions themselves are in `operators/`."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from worker.engine.torch_graph.node import Node

Run = Callable[..., Any]
"""Takes the node's inputs in order, None for one that is left out; gives its output, or a tuple of them in order."""
Build = Callable[[Node], Run]
"""Reads a node's attributes once and gives what runs at every call. It must hold no tensor: devices change."""
HostBuild = Callable[[Node], Run | None]
"""The same for Python numbers; None where there is no rule for the node at hand."""

DEFAULT = ""
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Operator:
    """How one operator is run.

    `host`: inputs that arrive as Python numbers (a list for a vector), never as tensors. `statistics`: inputs that
    are running statistics, not trained. `fixed`: inputs no gradient can pass. `wants_context`: `Run` takes the
    `Context` first. `gives_host`: its output is a Python number or a list of them, for shapes.
    """

    build: Build
    host: tuple[int, ...] = ()
    statistics: tuple[int, ...] = ()
    fixed: tuple[int, ...] = ()
    wants_context: bool = False
    gives_host: bool = False


_OPERATORS: dict[tuple[str, str], Operator] = {}
_HOST_RULES: dict[str, HostBuild] = {}


def operator(
    *names: str,
    domain: str = DEFAULT,
    host: tuple[int, ...] = (),
    statistics: tuple[int, ...] = (),
    fixed: tuple[int, ...] = (),
    wants_context: bool = False,
    gives_host: bool = False,
) -> Callable[[Build], Build]:
    """Enter the decorated `Build` for operators `names`. The keywords are those of `Operator`."""

    def enter(build: Build) -> Build:
        entry = Operator(build, host, statistics, fixed, wants_context, gives_host)
        for name in names:
            if (domain, name) in _OPERATORS:
                raise RuntimeError(f"operator {domain}::{name} is in the table twice")
            _OPERATORS[domain, name] = entry
        return build

    return enter


def host_rule(*names: str) -> Callable[[HostBuild], HostBuild]:
    """Enter how default-domain operators run on Python integers and booleans, when all their inputs are such.

    The `Build` gives None where it has no rule for the node at hand; the operator then runs on tensors.
    """

    def enter(build: HostBuild) -> HostBuild:
        for name in names:
            if name in _HOST_RULES:
                raise RuntimeError(f"operator {name} has two host rules")
            _HOST_RULES[name] = build
        return build

    return enter


@cache
def _load() -> None:
    package = importlib.import_module("worker.engine.torch_graph.operators")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def find_operator(domain: str, name: str) -> Operator | None:
    """The table's entry, None where there is none."""
    _load()
    return _OPERATORS.get((domain, name))


def find_host_rule(domain: str, name: str) -> HostBuild | None:
    """The rule for Python numbers, None where there is none."""
    _load()
    return _HOST_RULES.get(name) if domain == DEFAULT else None


def known_operators() -> list[tuple[str, str]]:
    """(domain, name) of every entry, sorted."""
    _load()
    return sorted(_OPERATORS)
