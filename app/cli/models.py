"""`slimline models`: upload, list, show, download and delete models."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.deletion import Yes, delete_each
from app.cli.downloads import DownloadOption, save_model
from app.cli.output import AsJson, Limit, print_json, print_resource, print_resources
from app.cli.uploads import NameOption, upload_and_check
from app.client import Resource
from app.contracts.facts import ChannelFacts

models = typer.Typer(no_args_is_help=True, help="Upload, list and show models.")

ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="A model's id, mdl_….")]
ModelIds = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Ids, mdl_….")]

_COLUMNS = ("id", "state", "name", "format", "size_bytes", "parameters", "created_at")
_LAYER_COLUMNS = ("name", "op", "parameters", "macs", "channels", "can go", "why not")


@models.command("list")
def list_models(*, limit: Limit = 50, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List models, newest first."""
    with connect(url) as client:
        print_resources(_COLUMNS, client.list("/v1/models", limit=limit), as_json=as_json)


@models.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    *,
    name: NameOption = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload a model and wait until it has been checked; status 1 when it is rejected.

    Example: slimline models upload resnet20.onnx
    """
    with connect(url) as client:
        upload_and_check(client, "models", file, name=name, as_json=as_json)


@models.command()
def show(model_id: ModelId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a model: its state, inputs, outputs and size."""
    with connect(url) as client:
        print_resource(client.get(f"/v1/models/{model_id}"), as_json=as_json)


@models.command()
def layers(model_id: ModelId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the layers that methods can work on, by the names `include` and `exclude` match, and what can go of them."""
    with connect(url) as client:
        found = client.get(f"/v1/models/{model_id}/layers")["data"]
    if as_json:
        print_json(found)
    else:
        print_resources(_LAYER_COLUMNS, map(_with_removable, found), as_json=False)


@models.command()
def download(
    model_id: ModelId,
    *,
    output: DownloadOption = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download a model as it was uploaded."""
    with connect(url) as client:
        saved = save_model(client, client.get(f"/v1/models/{model_id}"), output)
    if as_json:
        print_json(saved)


@models.command()
def delete(model_ids: ModelIds, *, yes: Yes = False, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete models that no unfinished job reads. What jobs have made of them stays."""
    delete_each("models", model_ids, url, yes=yes, as_json=as_json)


def _with_removable(layer: Resource) -> Resource:
    """The layer with its channels as cells."""
    if layer["channels"] is None:
        return layer
    channels = ChannelFacts.model_validate(layer["channels"])
    return {**layer, "channels": channels.total, "can go": str(channels), "why not": channels.why}
