"""Teachers that are trained before the trials and kept. What they teach is said in `recovery`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training.material import Material
from benchmarks.training.recipes import Options, train
from benchmarks.training.running import carry_out
from benchmarks.training.trials import Trial

_SEED = 0


@dataclass(frozen=True)
class Teacher:
    """A model that was trained outside of anyone's budget. `top1` in percent."""

    name: str
    model: Path
    top1: float

    def as_option(self) -> dict[str, Any]:
        """For `train.distill`."""
        return {"teacher": str(self.model)}


def prepare_teacher(material: Material, options: Options, kept: Path, *, refresh: bool) -> Teacher:
    """`material`'s model trained on its data, unless that was done before."""
    recipe = [train(options)]
    files = [_digest(path) for path in (material.model, material.train)]
    digest = hashlib.sha256(json.dumps([recipe, *files], sort_keys=True).encode()).hexdigest()[:16]
    model = kept / f"{material.name}-{digest}.onnx"
    record = model.with_suffix(".json")
    if refresh or not record.is_file():
        run = carry_out(material, Trial("teacher", recipe), _SEED, model)
        record.write_text(json.dumps({"top1": float(run.right.mean() * 100)}))
    return Teacher(material.name, model, json.loads(record.read_text())["top1"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
