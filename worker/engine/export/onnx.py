"""Writes the final ONNX file. The same graph and recipe give the same bytes: no time, no path, no machine in it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from app import __version__
from app.contracts.events import ArtifactFile
from app.contracts.recipe import Step
from worker.engine.graph import Graph
from worker.engine.graph.passes.retie import retie

VERSION_KEY, RECIPE_KEY = "slimline.version", "slimline.recipe"
_CHUNK = 1 << 20


def export_onnx(graph: Graph, recipe: Sequence[Step], path: Path) -> None:
    """Write `graph` to `path`, equal parameters once; its metadata tells the version of Slimline and the recipe."""
    stamped = graph.clone()
    retie(stamped)
    steps = [step.model_dump(mode="json") for step in recipe]
    stamped.model.metadata_props[VERSION_KEY] = __version__
    stamped.model.metadata_props[RECIPE_KEY] = json.dumps(steps, sort_keys=True, separators=(",", ":"))
    stamped.save(path)


def describe(path: Path, shown_path: str, filename: str) -> ArtifactFile:
    """The written file as it is announced."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return ArtifactFile(
        format="onnx",
        path=shown_path,
        filename=filename,
        size_bytes=path.stat().st_size,
        sha256=digest.hexdigest(),
    )
