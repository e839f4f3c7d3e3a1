"""The recipe: a list of steps, each one method with its options. A file in this folder is a method's step model.

Every `Step` subclass found here joins the union; the file is the method's documentation, JSON Schema and OpenAPI type.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from app.contracts.recipe.step import DataRole, MethodCard, Step

__all__ = ["METHODS", "DataRole", "MethodCard", "Recipe", "RecipeStep", "Step"]

_NO_METHODS = {"channel_pruning", "notation", "step"}


def _collect() -> dict[str, type[Step]]:
    found: dict[str, type[Step]] = {}
    for module in sorted({info.name for info in pkgutil.iter_modules(__path__)} - _NO_METHODS):
        for kind in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if (
                isinstance(kind, type)
                and issubclass(kind, Step)
                and kind is not Step
                and kind.__module__.endswith(module)
            ):
                name = kind.model_fields["method"].default
                if name in found:
                    raise TypeError(f"two step models claim the method {name!r}: {found[name]} and {kind}")
                found[name] = kind
    return found


METHODS: Mapping[str, type[Step]] = _collect()
"""Every method by its name: the catalogue."""

if TYPE_CHECKING:
    RecipeStep = Step
else:
    RecipeStep = Annotated[reduce(or_, METHODS.values()), Field(discriminator="method")]

Recipe = Annotated[list[RecipeStep], Field(min_length=1, max_length=32)]
