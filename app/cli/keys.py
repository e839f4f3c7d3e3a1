"""`slimline keys`: make, list, rotate and revoke API keys, in the database itself; no server need run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from app.cli.edge import complain, usage
from app.cli.environment import read_settings
from app.cli.output import AsJson, print_json, print_resource, print_resources
from app.contracts.failure import SlimlineError
from app.db.base import utc_now
from app.errors import Problem
from app.identity import DEFAULT_PROJECT, Role
from app.keys import offline, repository, service
from app.keys.keyring import OPEN_FOR_S, REMEMBERED_S
from app.keys.schemas import KeyName, KeyView, MintedKey, NewKey, ProjectName
from app.settings import Settings


def _check(kind: Any) -> Callable[[str], str]:
    """Has an option or argument be what the API takes for it."""
    adapter: TypeAdapter[str] = TypeAdapter(kind)

    def check(value: str) -> str:
        try:
            return adapter.validate_python(value)
        except ValidationError as invalid:
            raise typer.BadParameter(invalid.errors()[0]["msg"]) from None

    return check


keys = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys, in the database itself.")

DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of `slimline up`; default: SLIMLINE_DATA. SLIMLINE_DATABASE_URL goes before."),
]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="A key's id, key_….")]

_COLUMNS = ("id", "name", "role", "project", "created_at", "expires_at", "revoked_at", "last_used_at")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, such as `ci`.", callback=_check(KeyName))],
    *,
    role: Annotated[Role, typer.Option(help="read; submit: also change; admin: also keys and webhooks.")] = Role.SUBMIT,
    project: Annotated[
        str, typer.Option(help="Made with its first key.", callback=_check(ProjectName))
    ] = DEFAULT_PROJECT,
    expires: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days that it works; default: for ever.")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once. From the first key on the service lets nobody in without one.

    It is in force when the command returns. The role is `submit` unless another is named, for the first key too.

    Example: slimline keys create ops --role admin
    """
    expires_at = utc_now() + timedelta(days=expires) if expires else None
    with _writing(data) as session:
        is_first = not repository.has_any_key(session.connection())
        wanted = NewKey(name=name, role=role, expires_at=expires_at)
        minted = service.create(session, project, wanted)
    if is_first:
        time.sleep(OPEN_FOR_S)
    _print_minted(minted, as_json=as_json)


@keys.command("list")
def list_keys(
    *,
    project: Annotated[str | None, typer.Option(help="Of this project alone.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List keys of all projects, newest first, revoked ones too."""
    with _writing(data) as session:
        rows = repository.fetch_all(session, project)
    print_resources(_COLUMNS, [_view(KeyView.model_validate(row)) for row in rows], as_json=as_json)


@keys.command()
def rotate(
    key_id: KeyId,
    *,
    grace: Annotated[int, typer.Option(min=0, max=604_800, help="Seconds that the old secret works on.")] = 0,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print it, this once."""
    with _writing(data) as session:
        minted = service.rotate(session, key_id, grace)
    if not grace:
        time.sleep(REMEMBERED_S)
    _print_minted(minted, as_json=as_json)


@keys.command()
def revoke(key_id: KeyId, *, data: DataFolder = None) -> None:
    """Revoke a key, for good. It opens nothing any more when the command returns."""
    with _writing(data) as session:
        service.revoke(session, key_id)
    time.sleep(REMEMBERED_S)


@contextmanager
def _writing(data: Path | None) -> Iterator[Session]:
    settings: Settings = read_settings(data=data) if data else read_settings()
    with usage():
        try:
            with offline.writing(settings) as session:
                yield session
        except Problem as refused:
            raise SlimlineError(refused.code, refused.detail) from None


def _print_minted(minted: service.Minted, *, as_json: bool) -> None:
    view = _view(MintedKey(**KeyView.model_validate(minted.row).model_dump(), key=minted.token))
    if as_json:
        print_json(view)
        return
    print_resource(view, as_json=False)
    complain("this is the only time the key is shown; send it as `Authorization: Bearer …`, or set SLIMLINE_API_KEY")


def _view(key: KeyView) -> dict[str, object]:
    return key.model_dump(mode="json")
