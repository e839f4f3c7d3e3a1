"""How an uploading operation is described: FastAPI cannot see a body that is read from the stream."""

from typing import Any

from app.examples import UPLOAD_ID
from app.uploads.fields import JSON_FIELDS, UploadFields

_FILE = {"type": "string", "format": "binary"}


def describe_upload(fields: type[UploadFields], filename: str) -> dict[str, Any]:
    """The `openapi_extra` of an operation that takes a file: as a form, bare with its fields in the query, or named."""
    texts = {name: _describe_field(fields, name) for name in fields.model_fields}
    examples = {name: field["example"] for name, field in texts.items()}
    form = {"type": "object", "required": ["file"], "properties": {"file": _FILE, **texts}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form, "example": {"file": f"@{filename}", **examples}},
                "application/octet-stream": {"schema": _FILE, "example": f"@{filename}"},
                "application/json": {"schema": _describe_reference(fields), "example": {"upload": UPLOAD_ID}},
            },
        },
        "parameters": [_describe_parameter(name, text) for name, text in texts.items()],
    }


def _describe_reference(fields: type[UploadFields]) -> dict[str, Any]:
    """Of a file that came by tus: its upload's id, and the fields as JSON."""
    schema = fields.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # what they refer to is among the answers' schemas
    upload = {"type": "string", "description": "An upload that is whole: see POST /v1/uploads", "example": UPLOAD_ID}
    return {**schema, "required": ["upload"], "properties": {"upload": upload, **schema["properties"]}}


def _describe_field(fields: type[UploadFields], name: str) -> dict[str, Any]:
    field = fields.model_fields[name]
    coding = {"contentMediaType": "application/json"} if name in JSON_FIELDS else {}
    example = field.examples[0] if field.examples else None
    return {"type": "string", "description": field.description, "example": example, **coding}


def _describe_parameter(name: str, text: dict[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in text.items() if key != "description"}
    description = f"With a bare body. {text['description']}"
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
