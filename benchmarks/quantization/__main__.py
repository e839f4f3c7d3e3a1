"""Our quantization beside its peers on models with data: accuracy, SQNR, size, latency, kernels, wall time, memory.

    python -m benchmarks.quantization                              everything; most peers' results are kept, used again
    python -m benchmarks.quantization --models digits32_vit --quick
    python -m benchmarks.quantization --refresh --json out.json    peers measured anew; all figures for machines too
    python -m benchmarks.quantization.peers                        installs NNCF and AIMET-ONNX apart from us

Each compression runs in a process of its own, file to file, on the same calibration samples. Latencies are ratios of
calls that take turns in one process. Ours is judged beside peers of its kind: static by static, dynamic by dynamic. A
missed goal is printed as missed; with --strict it makes the exit code 1.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.comparison.environment import CACHE, installed_versions, python_of
from benchmarks.comparison.goals import Goal
from benchmarks.comparison.processes import REPOSITORY
from benchmarks.comparison.progress import Progress
from benchmarks.comparison.tables import WIDTH
from benchmarks.quantization import rows, sections
from benchmarks.quantization.cases import CASES, Case
from benchmarks.quantization.goals import judge_row
from benchmarks.quantization.peers import ENVIRONMENT
from benchmarks.quantization.report import Results, print_case, print_markdown, print_rest
from benchmarks.quantization.rows import Bench, Row, Scale, measure_case
from benchmarks.quantization.running import Runner
from benchmarks.quantization.tools import ELSEWHERE, PACKAGES, PEERS, Family, is_judged
from worker.surroundings import versions

_QUICK_EVALUATE, _QUICK_SECONDS, _SECONDS = 500, 0.5, 6.0


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and tell whether goals were missed where --strict asks for that."""
    asked = _parser().parse_args(arguments)
    if not (asked.shared / "models").is_dir():
        sys.exit(f"no sample models: {asked.shared} is absent; name the folder with models/ and data/ by --shared")
    cases = [case for case in CASES if not asked.models or case.name in asked.models]
    asked.kept.mkdir(parents=True, exist_ok=True)
    found = _peer_versions(asked)
    progress = Progress(_count_pieces(cases, found))
    with tempfile.TemporaryDirectory(prefix="slimline-bench-") as folder:
        bench = Bench(asked.shared, _runner(asked, Path(folder), found), _scale(asked), progress)
        results = _measure(bench, cases, found, Console(stderr=asked.markdown, width=WIDTH))
    if asked.markdown:
        print_markdown(results)
    if asked.json:
        about = {"machine": _machine(), "peers": found, "samples": asked.samples, "quick": asked.quick}
        asked.json.write_text(json.dumps(about | results.as_json(), indent=2, default=str))
    return 1 if asked.strict and not all(goal.met for goal in results.goals) else 0


def _measure(bench: Bench, cases: Sequence[Case], found: Mapping[Family, str], console: Console) -> Results:
    """Every section; each model's table is printed as soon as it is full."""
    every, goals = list[Row](), list[Goal]()
    for case in cases:
        reference, measured = measure_case(bench, case, found)
        print_case(reference, measured, console)
        every += measured
        for row in measured:
            if is_judged(row.tool, case):
                goals += judge_row(row, measured, labelled=reference.accuracy is not None)
    memory, memory_goals = sections.measure_memory(bench, cases, found)
    int4, int4_goals = sections.measure_int4(bench, cases)
    results = Results(every, memory, int4, [*goals, *memory_goals, *int4_goals])
    print_rest(results, console)
    return results


def _count_pieces(cases: Sequence[Case], found: Mapping[Family, str]) -> int:
    return sum(rows.count_pieces(case, found) for case in cases) + sections.count_pieces(cases, found)


def _peer_versions(asked: argparse.Namespace) -> dict[Family, str]:
    """The peers that can run, with their versions; of the others it is said that they cannot."""
    found: dict[Family, str] = {}
    for family in asked.peers:
        package = PACKAGES[family]
        python = asked.peer_python if family in ELSEWHERE else sys.executable
        if version := installed_versions(python, [package]).get(package):
            found[family] = version
        else:
            print(
                f"{package}: not installed in {python}; see python -m benchmarks.quantization.peers -h", file=sys.stderr
            )
    return found


def _runner(asked: argparse.Namespace, folder: Path, found: Mapping[Family, str]) -> Runner:
    interpreters = {family: str(asked.peer_python if family in ELSEWHERE else sys.executable) for family in found}
    return Runner({**interpreters, "slimline": sys.executable}, found, folder, asked.kept, refresh=asked.refresh)


def _scale(asked: argparse.Namespace) -> Scale:
    if asked.quick:
        return Scale(asked.samples, _QUICK_EVALUATE, _QUICK_SECONDS, whole_jobs=False)
    return Scale(asked.samples, None, _SECONDS, whole_jobs=True)


def _machine() -> dict[str, Any]:
    return {"platform": platform.platform(), "cores": os.cpu_count(), "versions": versions()}


def _families(text: str) -> list[Family]:
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - set(PEERS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(PEERS)}")
    return [family for family in PEERS if family in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shared", type=Path, default=REPOSITORY.parent / "shared", help="folder with models/ and data/")
    add(
        "--models",
        nargs="+",
        choices=[case.name for case in CASES],
        metavar="NAME",
        help="default: all there is data for",
    )
    add("--samples", type=int, default=128, help="to calibrate with, at most (default: %(default)s)")
    add("--peers", type=_families, default=list(PEERS), metavar="NAMES", help=f"of {','.join(PEERS)}; empty: none")
    add("--peer-python", type=Path, default=python_of(ENVIRONMENT), help="has NNCF, AIMET-ONNX (default: %(default)s)")
    add("--kept", type=Path, default=CACHE / "kept", help="where peers' results are kept (default: %(default)s)")
    add("--refresh", action="store_true", help="run peers whose results are kept, too")
    add("--quick", action="store_true", help="fewer evaluation samples, short latencies, no whole jobs")
    add("--json", type=Path, metavar="FILE", help="write every figure there")
    add("--markdown", action="store_true", help="the README's table on standard output, the others on standard error")
    add("--strict", action="store_true", help="exit with 1 where a goal is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
