"""Our structured pruning: on the sample models alone, and on native modules beside Torch-Pruning.

    python -m benchmarks.pruning                          everything; what Torch-Pruning made is kept and used again
    python -m benchmarks.pruning --quick                  few and small models, short latencies
    python -m benchmarks.pruning --sections native --models resnet vit
    python -m benchmarks.pruning --refresh --json out.json
    python -m benchmarks.pruning.peers                    installs Torch-Pruning apart from us

Sections: samples (files as users have them), native (the same native module pruned by both: the export of it by us, the
module itself by Torch-Pruning, then exported), accuracy (top-1 with statistics estimated again), analysis (of models
with 100 million parameters). Each pruning runs in a process of its own. Latencies are ratios of calls that take turns
in one process on one thread. A missed goal is printed as missed; with --strict it makes the exit code 1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.comparison.command import add_output, add_shared, describe_machine
from benchmarks.comparison.environment import CACHE, installed_versions, python_of
from benchmarks.comparison.goals import Goal
from benchmarks.comparison.progress import Progress
from benchmarks.comparison.tables import WIDTH
from benchmarks.pruning.accuracy import CLASSIFIERS, Comparison, Contest
from benchmarks.pruning.analysis import LARGE, Analysis, measure_analysis
from benchmarks.pruning.duels import Duel
from benchmarks.pruning.goals import judge_accuracy, judge_analysis, judge_duel, judge_pruning
from benchmarks.pruning.natives import Native, natives
from benchmarks.pruning.peers import ENVIRONMENT, PACKAGE
from benchmarks.pruning.report import Results, print_markdown, print_tables
from benchmarks.pruning.rows import Row
from benchmarks.pruning.running import Runner
from benchmarks.pruning.samples import measure_file, sample_files
from benchmarks.zoo import Size

SECTIONS = ("samples", "native", "accuracy", "analysis")
QUICK: Collection[str] = ("digits", "resnet20_cifar10_jpegtuned", "lstm", "hfvit", "resnet", "shufflenet", "vit")
_PIECES = {"samples": 1, "native": 3, "accuracy": 2, "analysis": 1}
"""How often one model's measuring tells what it is doing."""


@dataclass(frozen=True)
class Scale:
    """How much is done: samples to calibrate and to evaluate with (None: all), seconds per race, size of natives."""

    samples: int
    evaluate: int | None
    seconds: float
    size: Size


@dataclass(frozen=True)
class Plan:
    """The models of each section."""

    files: Mapping[str, Path]
    natives: Mapping[str, Native]
    classifiers: Sequence[str]
    large: Sequence[Native]

    @property
    def pieces(self) -> int:
        """How often measuring them tells what it is doing."""
        counts = map(len, (self.files, self.natives, self.classifiers, self.large))
        return sum(pieces * number for pieces, number in zip(_PIECES.values(), counts, strict=True))


@dataclass
class Bench:
    """Measures section after section, and judges."""

    runner: Runner
    scale: Scale
    tell: Progress
    goals: list[Goal] = field(default_factory=list)

    def measure_files(self, files: Mapping[str, Path]) -> list[Row]:
        """Ours alone."""
        rows = [measure_file(self.runner, *item, self.scale.seconds, self.tell) for item in files.items()]
        self.goals += [goal for row in rows for goal in judge_pruning(row)]
        return rows

    def measure_natives(self, modules: Mapping[str, Native]) -> list[Row]:
        """Ours and the peer's, two rows for each module."""
        rows = list[Row]()
        for native in modules.values():
            duel = Duel.prepare(native, self.scale.size, self.runner)
            ours, theirs = duel.measure(self.scale.seconds, self.tell)
            self.goals += [*judge_pruning(ours), *judge_duel(ours, theirs, native.network)]
            rows += [ours, theirs]
        return rows

    def measure_classifiers(self, names: Sequence[str], shared: Path) -> list[Comparison]:
        """Both tools by every criterion."""
        found = list[Comparison]()
        for name in names:
            contest = Contest.prepare(name, shared, self.scale.samples, self.scale.evaluate, self.runner.folder)
            found += contest.measure(self.runner, self.tell)
        self.goals += [goal for each in found for goal in judge_accuracy(each)]
        return found

    def measure_large(self, modules: Sequence[Native]) -> list[Analysis]:
        """The analysis alone."""
        found = [measure_analysis(self.runner, native, self.tell) for native in modules]
        self.goals += map(judge_analysis, found)
        return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and tell whether goals were missed where --strict asks for that."""
    asked = _parser().parse_args(arguments)
    if not (asked.shared / "models").is_dir():
        sys.exit(f"no sample models: {asked.shared} is absent; name the folder with models/ and data/ by --shared")
    asked.kept.mkdir(parents=True, exist_ok=True)
    scale = Scale(512, 1000, 0.5, "tiny") if asked.quick else Scale(512, None, 6.0, "large")
    plan = _plan(asked, scale)
    with tempfile.TemporaryDirectory(prefix="slimline-bench-") as folder:
        bench = Bench(_runner(asked, Path(folder)), scale, Progress(plan.pieces))
        results = Results(
            bench.measure_files(plan.files),
            bench.measure_natives(plan.natives),
            bench.measure_classifiers(plan.classifiers, asked.shared),
            bench.measure_large(plan.large),
            bench.goals,
        )
    print_tables(results, Console(stderr=asked.markdown, width=WIDTH))
    if asked.markdown:
        print_markdown(results)
    if asked.json:
        about = {"machine": describe_machine(), "torch-pruning": bench.runner.version, "quick": asked.quick}
        asked.json.write_text(json.dumps(about | results.as_json(), indent=2, default=str))
    return 1 if asked.strict and not all(goal.met for goal in results.goals) else 0


def _plan(asked: argparse.Namespace, scale: Scale) -> Plan:
    chosen = asked.models or (QUICK if asked.quick else None)

    def wanted(section: str, names: Collection[str]) -> list[str]:
        return [name for name in names if section in asked.sections and (chosen is None or name in chosen)]

    files, modules, large = sample_files(asked.shared), natives(scale.size), {each.entry.name: each for each in LARGE}
    return Plan(
        {name: files[name] for name in wanted("samples", files)},
        {name: modules[name] for name in wanted("native", modules)},
        wanted("accuracy", CLASSIFIERS),
        [large[name] for name in wanted("analysis", large)],
    )


def _runner(asked: argparse.Namespace, folder: Path) -> Runner:
    version = installed_versions(asked.peer_python, [PACKAGE]).get(PACKAGE)
    if version is None:
        print(
            f"{PACKAGE}: not installed in {asked.peer_python}; see python -m benchmarks.pruning.peers -h",
            file=sys.stderr,
        )
    return Runner(asked.peer_python if version else None, version or "", folder, asked.kept, refresh=asked.refresh)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_shared(parser)
    add("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    add("--models", nargs="+", metavar="NAME", help="names in any section; default: all")
    add("--peer-python", type=Path, default=python_of(ENVIRONMENT), help="has Torch-Pruning (default: %(default)s)")
    add("--kept", type=Path, default=CACHE / "kept-pruning", help="where exports and the peer's results are kept")
    add("--refresh", action="store_true", help="export and run the peer anew")
    add("--quick", action="store_true", help="few and small models, fewer evaluation samples, short latencies")
    add_output(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
