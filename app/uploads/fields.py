"""The text that comes beside an uploaded file: its common fields, and how a slice's fields are checked."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError

from app.contracts.job_spec import PRINTABLE, Tags
from app.errors import unprocessable

# Sent as text that holds JSON.
JSON_FIELDS = frozenset({"tags", "preprocess"})

MAX_NAME = 200

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME, pattern=PRINTABLE)]


class UploadFields(BaseModel):
    """What may be said of any uploaded file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = Field(None, description="Default: the file's name without its ending", examples=["baseline"])
    tags: Tags = Field(default_factory=dict, description="JSON object of text by text", examples=['{"team": "vision"}'])


_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)

Fields = TypeVar("Fields", bound=UploadFields)


def parse_fields(kind: type[Fields], given: Mapping[str, JsonValue]) -> Fields:
    """Check what was said of an upload. Raises 422 problems that point at the field."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        errors = [{**details, "loc": ("body", *details["loc"])} for details in error.errors()]
        raise RequestValidationError(errors, body=dict(given)) from error


def decode_texts(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Fields that came as texts, with JSON read where a field is sent as such. Raises FIELD_NOT_JSON."""
    return {name: _parse_json(name, str(text)) if name in JSON_FIELDS else text for name, text in given.items()}


def entitle(name: str | None, filename: str, kind: str) -> tuple[str, str]:
    """Name and filename of an upload, each made from the other where it was not given, else from `kind`."""
    name = name or PurePath(filename).stem[:MAX_NAME] or kind
    return name, filename or name


def _parse_json(name: str, text: str) -> JsonValue:
    try:
        return _JSON.validate_json(text)
    except ValidationError as error:
        message = f"{name}: {error.errors()[0]['msg']}."
        raise unprocessable(f"/{name}", "FIELD_NOT_JSON", message) from error
