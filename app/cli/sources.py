"""Models and data that a command names by file or id: what is a file is uploaded, what has an id is there already."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from app.cli.progress import transfer_bar
from app.client import Client
from app.client.client import Kind
from app.contracts.failure import SlimlineError

_ID_PREFIX: Mapping[Kind, str] = {"models": "mdl_", "datasets": "dst_"}


def require_sources(model: str, datasets: Iterable[str]) -> None:
    """Raises SlimlineError FILE_UNREADABLE before anything is sent."""
    kinds: dict[str, Kind] = {**dict.fromkeys(datasets, "datasets"), model: "models"}
    for source, kind in kinds.items():
        if not _is_id(kind, source) and not Path(source).is_file():
            raise SlimlineError("FILE_UNREADABLE", f"{source} is no file", hint="give a file, or an id of an upload")


def send_data(client: Client, roles: Mapping[str, str]) -> dict[str, str]:
    """The ids of datasets by role; a file that plays two roles is uploaded once."""
    sent = {source: send(client, "datasets", source) for source in dict.fromkeys(roles.values())}
    return {role: sent[source] for role, source in roles.items()}


def send(client: Client, kind: Kind, source: str) -> str:
    """The id of `source`, uploaded where it is a file."""
    if _is_id(kind, source):
        return source
    with transfer_bar("upload", Path(source).name) as on_bytes:
        return str(client.upload(kind, Path(source), on_bytes=on_bytes)["id"])


def _is_id(kind: Kind, source: str) -> bool:
    return source.startswith(_ID_PREFIX[kind]) and not Path(source).exists()
