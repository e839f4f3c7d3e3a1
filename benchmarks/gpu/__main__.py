"""Slimline on a GPU: parity with the CPU, step time beside native torch, a training on both, and the paper's table.

    python -m benchmarks.gpu --prepare FOLDER          where everything is installed: exports models, decodes pictures
    python -m benchmarks.gpu --prepared FOLDER         on the machine with CUDA: all sections
    python -m benchmarks.gpu --cpu-smoke               the same code at tiny sizes on a CPU, which shows no goal

The machine with CUDA needs torch, onnx, onnx-ir, onnxruntime, numpy and pydantic, and FOLDER. Torch-Pruning's line of
the paper's table appears where torch_pruning can be imported. Without --prepared, models are exported on the spot where
that is possible, and nothing is trained.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.comparison.goals import Goal
from benchmarks.comparison.processes import REPOSITORY
from benchmarks.comparison.progress import Progress
from benchmarks.gpu.paper import Contest, judge_paper
from benchmarks.gpu.parity import judge_parity, measure_parity
from benchmarks.gpu.pictures import Pictures
from benchmarks.gpu.prepared import (
    IN_THE_PAPER,
    TRAINED,
    Subject,
    find_sample_model,
    find_subjects,
    prepare_models,
    prepare_pictures,
    prepare_sample_models,
    prepared_or_made,
)
from benchmarks.gpu.step_time import Turns, judge_step_time, measure_step_time
from benchmarks.gpu.text import print_goals, print_table
from benchmarks.gpu.training_parity import judge_training, measure_training
from benchmarks.zoo import Size, zoo

SECTIONS = ("parity", "step_time", "training", "paper")
_SMOKE = ("resnet", "lstm")
_TIMED = ("resnet", "mobilenet", "convnext", "unet", "lstm", "encoder", "vit", "bert")
"""The last two where transformers is installed."""


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    size: Size
    rounds: int
    batch: int
    updates: int
    epochs: int
    compiler: str


FULL, SMOKE = Scale("large", 50, 32, 300, 40, "inductor"), Scale("tiny", 3, 4, 2, 1, "eager")


@dataclass
class Bench:
    """Measures section after section, prints and judges."""

    folder: Path
    device: str
    scale: Scale
    tell: Progress
    goals: list[Goal] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def measure(self, subjects: Sequence[Subject], sections: Collection[str]) -> None:
        """Those sections; of what cannot run it is said why."""
        if "parity" in sections:
            self._parity(subjects)
        if "step_time" in sections:
            self._step_time(subjects)
        pictures = Pictures.find(self.folder)
        for section, model, measure in (("training", TRAINED, self._training), ("paper", IN_THE_PAPER, self._paper)):
            if section in sections:
                self.tell(section)
                path = find_sample_model(self.folder, model)
                if pictures is None or not path.is_file():
                    print(f"{section}: not run, as no pictures and sample models were prepared")
                    continue
                with tempfile.TemporaryDirectory() as scratch:
                    measure(path, pictures, Path(scratch))

    def _parity(self, subjects: Sequence[Subject]) -> None:
        rows = []
        for subject in subjects:
            self.tell(f"parity: {subject.name}")
            row = measure_parity(subject, self.device)
            rows.append(row)
            self.goals += judge_parity(row)
        lines = [(row.name, f"{row.output:.1e}", f"{row.gradient:.1e}", row.where) for row in rows]
        print_table("CPU against GPU, largest differences", ("model", "outputs", "gradients", "of"), lines)
        self.found["parity"] = [asdict(row) for row in rows]

    def _step_time(self, subjects: Sequence[Subject]) -> None:
        rows = []
        for subject in subjects:
            if subject.name not in _TIMED:
                continue
            self.tell(f"step time: {subject.name}")
            entry = zoo(self.scale.size)[subject.name]
            try:
                turns = Turns(self.device, self.scale.rounds, self.scale.batch, self.scale.compiler)
                row = measure_step_time(subject, entry, turns)
            except ImportError as error:
                print(f"{subject.name}: no native module, {error}")
                continue
            rows.append(row)
            self.goals += judge_step_time(row)
        lines = [(row.name, *map(_number, (row.native_ms, row.compiled_ms, row.eager, row.compiled))) for row in rows]
        columns = ("model", "native ms", "compiled ms", "ours x eager", "ours x compiled")
        print_table("Update: forward, backward, AdamW", columns, lines)
        self.found["step_time"] = [asdict(row) for row in rows]

    def _training(self, model: Path, pictures: Pictures, scratch: Path) -> None:
        here, there = measure_training(model, pictures, self.device, self.scale.updates, scratch)
        self.goals.append(judge_training(model.stem, here, there))
        lines = [(each.device, f"{each.accuracy.value:.2%}", f"{each.wall_s:.0f}") for each in (here, there)]
        print_table(f"{model.stem}, half of its MACs, {self.scale.updates} updates", ("on", "top-1", "s"), lines)
        self.found["training"] = [asdict(each) | {"accuracy": each.accuracy.model_dump()} for each in (here, there)]

    def _paper(self, model: Path, pictures: Pictures, scratch: Path) -> None:
        entries = Contest(model, pictures, self.device, self.scale.epochs, scratch).measure()
        self.goals += judge_paper(entries)
        lines = [
            (each.name, _number(each.top1), _number(each.times_fewer), f"{each.wall_s:.0f}", each.note)
            for each in entries
        ]
        title = f"{model.stem}, {self.scale.epochs} epochs each"
        print_table(title, ("", "top-1 %", "x fewer MACs", "s", ""), lines)
        self.found["paper"] = [asdict(each) for each in entries]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; where there is no CUDA, say so."""
    asked = _parser().parse_args(arguments)
    if asked.prepare:
        prepare_models(asked.prepare, "tiny" if asked.cpu_smoke else "large", _names(asked))
        prepare_sample_models(asked.prepare, asked.shared)
        prepare_pictures(asked.prepare, asked.shared, asked.pictures)
        return 0
    has_cuda = torch.cuda.is_available()
    if not has_cuda:
        print("no CUDA device here: nothing of this benchmark was measured on a GPU")
    if not has_cuda and not asked.cpu_smoke:
        return 0
    scale = SMOKE if asked.cpu_smoke else FULL
    try:
        with prepared_or_made(asked.prepared, scale.size, _names(asked)) as folder:
            _measure(asked, scale, folder)
    except ModuleNotFoundError as error:
        sys.exit(f"models cannot be exported here ({error}): prepare a folder elsewhere, see --prepare")
    return 0


def _measure(asked: argparse.Namespace, scale: Scale, folder: Path) -> None:
    subjects = [each for each in find_subjects(folder) if not asked.models or each.name in asked.models]
    device = "cpu" if asked.cpu_smoke else "cuda"
    timed = sum(subject.name in _TIMED for subject in subjects)
    pieces = {"parity": len(subjects), "step_time": timed, "training": 1, "paper": 1}
    progress = Progress(sum(pieces[section] for section in asked.sections))
    bench = Bench(folder, device, scale, progress)
    bench.measure(subjects, asked.sections)
    if asked.cpu_smoke:
        print("\nCPU beside CPU at tiny sizes: no goal is judged")
    else:
        print_goals(bench.goals)
    if asked.json:
        about = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__}
        goals = [asdict(goal) | {"met": goal.met} for goal in bench.goals]
        asked.json.write_text(json.dumps({**about, **bench.found, "goals": goals}, indent=2))


def _names(asked: argparse.Namespace) -> Collection[str]:
    return asked.models or (_SMOKE if asked.cpu_smoke else zoo("large"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--prepare", type=Path, metavar="FOLDER", help="fill it for another machine, and measure nothing")
    add("--prepared", type=Path, metavar="FOLDER", help="what --prepare has filled")
    add("--pictures", type=int, metavar="N", help="at most so many of each set are prepared (default: all)")
    add("--shared", type=Path, default=REPOSITORY.parent / "shared", help="folder with models/ and data/, to prepare")
    add("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    add("--models", nargs="+", metavar="NAME", help="of the zoo; default: all")
    add("--cpu-smoke", action="store_true", help="tiny models and trainings, CPU beside CPU")
    add("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
