"""Reads the catalogue: one row of a table per code."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from app.problems.schemas import ProblemType

_ROW = re.compile(r"^\| `([A-Z0-9_]+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


@cache
def read_catalogue() -> Mapping[str, ProblemType]:
    """Every kind of problem by the last part of its `type`."""
    text = resources.files("app.problems").joinpath("catalogue.md").read_text()
    types = (ProblemType(code=code, meaning=meaning, cure=cure) for code, meaning, cure in _ROW.findall(text))
    return {kind.code.lower().replace("_", "-"): kind for kind in types}
