"""Models and data that a command names by file or id: what is a file is uploaded, what has an id is there already."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.cli.progress import transfer_bar
from app.client import Client
from app.client.client import Kind
from app.contracts.failure import SlimlineError
from app.contracts.recipe import Step
from app.contracts.references import find_other_models, find_references

_ID_PREFIX: Mapping[Kind, str] = {"models": "mdl_", "datasets": "dst_"}


def require_sources(models: Iterable[str], datasets: Iterable[str]) -> None:
    """Raises SlimlineError FILE_UNREADABLE before anything is sent."""
    kinds: dict[str, Kind] = {**dict.fromkeys(datasets, "datasets"), **dict.fromkeys(models, "models")}
    for source, kind in kinds.items():
        if not _is_id(kind, source) and not Path(source).is_file():
            raise SlimlineError("FILE_UNREADABLE", f"{source} is no file", hint="give a file, or an id of an upload")


def send_data(client: Client, roles: Mapping[str, str]) -> dict[str, str]:
    """The ids of datasets by role; a file that plays two roles is uploaded once."""
    sent = {source: send(client, "datasets", source) for source in dict.fromkeys(roles.values())}
    return {role: sent[source] for role, source in roles.items()}


def send_recipe(client: Client, recipe: Sequence[Step]) -> list[dict[str, Any]]:
    """The steps as a job has them: teachers and students that are files are uploaded, and named by their ids."""
    steps = [step.model_dump(mode="json", exclude_unset=True) for step in recipe]
    sent = {model: send(client, "models", model) for model in find_other_models(recipe)}
    for path, target in find_references(recipe):
        if isinstance(target, str):
            place: Any = steps
            for part in path[:-1]:
                place = place[part]
            place[path[-1]] = sent[target]
    return steps


def send(client: Client, kind: Kind, source: str) -> str:
    """The id of `source`, uploaded where it is a file."""
    if _is_id(kind, source):
        return source
    with transfer_bar("upload", Path(source).name) as on_bytes:
        return str(client.upload(kind, Path(source), on_bytes=on_bytes)["id"])


def _is_id(kind: Kind, source: str) -> bool:
    return source.startswith(_ID_PREFIX[kind]) and not Path(source).exists()
