"""The graphs that a recipe names beside the one it compresses: teachers and students."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.ingest import ingest_model

ORIGINAL = "original"


@dataclass
class RecipeModels:
    """`files` are other models by the name the recipe has for them; `steps` results of steps by index, from 0."""

    original: Graph
    files: Mapping[str, Path]
    steps: dict[int, Path] = field(default_factory=dict)

    def find(self, name: str | int) -> Graph:
        """See `Models.find`. Raises SlimlineError MODEL_UNKNOWN, TEACHER_NOT_EARLIER, or what ingest refuses."""
        if name == ORIGINAL:
            return self.original
        if isinstance(name, int):
            return self._find_step(name)
        path = self.files.get(name, Path(name))
        if not path.is_file():
            raise SlimlineError("MODEL_UNKNOWN", f"there is no model {name!r}", hint="Give the path of an .onnx file.")
        with tempfile.TemporaryDirectory(prefix="slimline-model-") as folder:
            graph, _ = ingest_model(path, output=Path(folder) / "ingested.onnx")
        return graph

    def _find_step(self, index: int) -> Graph:
        if index not in self.steps:
            raise SlimlineError(
                "TEACHER_NOT_EARLIER",
                f"step {index + 1} has no result yet that could teach",
                hint="`teacher` counts steps from 0 and names one before this one.",
            )
        return Graph.load(self.steps[index])
