"""What the methods endpoints send."""

from typing import Any

from pydantic import ConfigDict, Field

from app.contracts.recipe import METHODS, MethodCard, Step


class MethodView(MethodCard):
    """A method: what it does, what it needs, and the JSON Schema of its step."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra=lambda schema: schema.update(
            examples=[show(METHODS["prune.magnitude"]).model_dump(mode="json")]
        ),
    )

    name: str
    step_schema: dict[str, Any] = Field(description="JSON Schema of the recipe step")


def show(kind: type[Step]) -> MethodView:
    """The method of a step model."""
    return MethodView(
        **kind.card.model_dump(), name=kind.model_fields["method"].default, step_schema=kind.model_json_schema()
    )
