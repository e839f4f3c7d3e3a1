"""The options that describe a job, as typer declares them."""

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[str, typer.Argument(help="A model: a file, or the mdl_… id of one already uploaded.")]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Steps, or a JSON or YAML file of them.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where the result goes: a file or a folder.")]
DataOption = Annotated[str | None, typer.Option(metavar="DATA", help="A dataset: a file, or a dst_… id.")]
TargetOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=NUMBER", help="As max_size_ratio=0.3; may be repeated.")
]
PreprocessOption = Annotated[
    str | None, typer.Option(metavar="FILE|JSON", help='As \'{"scale": 0.0039, "mean": [0.5]}\'.')
]
SeedOption = Annotated[int, typer.Option(min=0, help="Same seed, same bytes on the same kind of machine.")]
