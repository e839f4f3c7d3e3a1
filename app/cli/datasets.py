"""`slimline datasets`: upload, list, show and delete datasets."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.deletion import Yes, delete_each
from app.cli.inputs import read_preprocess
from app.cli.job_options import PreprocessOption
from app.cli.output import AsJson, Limit, print_resource, print_resources
from app.cli.uploads import NameOption, upload_and_check

datasets = typer.Typer(no_args_is_help=True, help="Upload, list and show datasets.")

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's id, dst_….")]
DatasetIds = Annotated[list[str], typer.Argument(metavar="DATASET...", help="Ids, dst_….")]

_COLUMNS = ("id", "state", "name", "format", "samples", "size_bytes", "created_at")


@datasets.command("list")
def list_datasets(*, limit: Limit = 50, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List datasets, newest first."""
    with connect(url) as client:
        print_resources(_COLUMNS, client.list("/v1/datasets", limit=limit), as_json=as_json)


@datasets.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    *,
    name: NameOption = None,
    preprocess: PreprocessOption = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload a dataset (.npz, or .zip of class folders) and wait until it has been checked.

    Example: slimline datasets upload photos.zip --preprocess '{"resize": [224, 224], "scale": 0.00392}'
    """
    with connect(url) as client:
        given = read_preprocess(preprocess)
        upload_and_check(client, "datasets", file, name=name, preprocess=given, as_json=as_json)


@datasets.command()
def show(dataset_id: DatasetId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a dataset: its state, samples and arrays."""
    with connect(url) as client:
        print_resource(client.get(f"/v1/datasets/{dataset_id}"), as_json=as_json)


@datasets.command()
def delete(dataset_ids: DatasetIds, *, yes: Yes = False, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete datasets that no unfinished job reads."""
    delete_each("datasets", dataset_ids, url, yes=yes, as_json=as_json)
