"""Our training: what it brings back after pruning and quantization, and what an update costs beside plain torch.

    python -m benchmarks.training                          everything
    python -m benchmarks.training --quick                  few images, one seed: minutes on one core
    python -m benchmarks.training --sections qat step_time
    python -m benchmarks.training --json out.json --markdown

Sections: recovery (ResNet-20 without half of its MACs: fine-tuned, and distilled from itself and from ResNet-56), qat
(networks for digits in 8 and 4 bits), pruning (at once, in rounds and soft, with as many updates), student (thin,
on labels alone and distilled), step_time (beside plain torch). Trials that are compared have the same budget, data and
seeds, and are told from noise pair by pair. A missed goal is printed as missed; with --strict it makes the exit code 1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console

from benchmarks.comparison.command import add_output, add_shared, describe_machine
from benchmarks.comparison.environment import CACHE
from benchmarks.comparison.progress import Progress
from benchmarks.comparison.tables import WIDTH
from benchmarks.training import pruning, qat, recovery, student
from benchmarks.training.found import Found
from benchmarks.training.material import DIGITS, RESNET56, Material, prepare_cifar, prepare_digits
from benchmarks.training.recipes import FULL, QUICK, Scale
from benchmarks.training.report import Results, print_markdown, print_tables
from benchmarks.training.running import Bench
from benchmarks.training.step_time import DISTILLED, MODULES, judge_step_time, measure_step_time
from benchmarks.training.teachers import prepare_teacher

SECTIONS = ("recovery", "qat", "pruning", "student", "step_time")
_ON_PICTURES = frozenset({"recovery", "pruning", "student"})


@dataclass
class Study:
    """Measures section after section, and judges."""

    shared: Path
    scale: Scale
    bench: Bench
    kept: Path
    refresh: bool
    results: Results = field(default_factory=Results)

    def measure(self, sections: Collection[str]) -> Results:
        """Those sections."""
        if _ON_PICTURES & set(sections):
            self._measure_pictures(sections)
        if "qat" in sections:
            materials = prepare_digits(self.shared, self.bench.folder)
            found, self.results.agreements = qat.measure_qat(self.bench, materials, self.scale.digits)
            self._add(found)
        if "step_time" in sections:
            self._measure_time()
        return self.results

    def _measure_pictures(self, sections: Collection[str]) -> None:
        material = prepare_cifar(self.shared, self.scale.images, self.scale.tested, self.bench.folder)
        if "recovery" in sections:
            self._measure_recovery(material)
        if "pruning" in sections:
            self._add(pruning.measure_pruning(self.bench, material, self.scale.pruning, self.scale.pruning_updates))
        if "student" in sections:
            self._add(student.measure_student(self.bench, material, self.scale.student))

    def _measure_recovery(self, material: Material) -> None:
        large = replace(material, model=self.shared / "models" / f"{RESNET56}.onnx")
        self.bench.tell(f"{large.name}: trained before, as a teacher")
        self.results.teacher = prepare_teacher(large, self.scale.teacher, self.kept, refresh=self.refresh)
        self._add(recovery.measure_recovery(self.bench, material, self.results.teacher, self.scale.recovery))

    def _measure_time(self) -> None:
        for name in MODULES:
            for is_distilled in (False, True) if name in DISTILLED else (False,):
                self.bench.tell(f"{name}: time of an update")
                times = measure_step_time(
                    name, is_distilled=is_distilled, pairs=self.scale.pairs, folder=self.bench.folder
                )
                self.results.step_times.append(times)
                self.results.goals.append(judge_step_time(times))

    def _add(self, found: Found) -> None:
        self.results.found.append(found)
        self.results.goals += found.goals


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and tell whether goals were missed where --strict asks for that."""
    asked = _parser().parse_args(arguments)
    if not (asked.shared / "models").is_dir():
        sys.exit(f"no sample models: {asked.shared} is absent; name the folder with models/ and data/ by --shared")
    asked.kept.mkdir(parents=True, exist_ok=True)
    scale = _scale(asked)
    with tempfile.TemporaryDirectory(prefix="slimline-bench-") as folder:
        bench = Bench(Path(folder), scale.seeds, Progress(_count_pieces(asked.sections, len(scale.seeds))))
        results = Study(asked.shared, scale, bench, asked.kept, asked.refresh).measure(asked.sections)
    print_tables(results, Console(stderr=asked.markdown, width=WIDTH))
    if asked.markdown:
        print_markdown(results)
    if asked.json:
        about = {"machine": describe_machine(), "scale": asdict(scale)}
        asked.json.write_text(json.dumps(about | results.as_json(), indent=2, default=str))
    return 1 if asked.strict and not all(goal.met for goal in results.goals) else 0


def _scale(asked: argparse.Namespace) -> Scale:
    scale = QUICK if asked.quick else FULL
    return replace(scale, seeds=tuple(asked.seeds)) if asked.seeds else scale


def _count_pieces(sections: Sequence[str], seeds: int) -> int:
    """How often measuring them tells what it is doing."""
    counts = {
        "recovery": 2 + recovery.TRIALS * seeds,
        "qat": len(DIGITS) * (1 + qat.TRIALS * seeds),
        "pruning": pruning.TRIALS * seeds,
        "student": student.TRIALS * seeds,
        "step_time": len(MODULES) + len(DISTILLED),
    }
    return sum(counts[section] for section in sections)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_shared(parser)
    add("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    add("--seeds", nargs="+", type=int, metavar="N", help=f"default: {', '.join(map(str, FULL.seeds))}")
    add("--kept", type=Path, default=CACHE / "kept-training", help="where the teacher is kept (default: %(default)s)")
    add("--refresh", action="store_true", help="train the teacher anew")
    add("--quick", action="store_true", help="few images and epochs, one seed")
    add_output(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
