"""The two sections beside the main table: memory against the number of samples, and 4-bit weights."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.comparison.data import Split, load_digits
from benchmarks.comparison.goals import Goal
from benchmarks.quantization.cases import CASES, Case, input_name
from benchmarks.quantization.goals import judge_int4, judge_memory
from benchmarks.quantization.rows import Bench, Row, measure_tool
from benchmarks.quantization.tools import OURS, PERCENTILE, Family, Tool

MIB = 1 << 20
MEMORY_CASE = CASES[0]
SAMPLE_COUNTS = (64, 256, 1024)
MEMORY_TOOLS: Sequence[Tool] = (
    OURS,
    *(
        replace(OURS, name=f"slimline {name}", options={"recipe": f"quantize.static:calibrator={name},samples=1024"})
        for name in ("minmax", "percentile")
    ),
    PERCENTILE,
)
INT4_CASES: Sequence[Case] = tuple(
    case for case in CASES if case.name in ("digits32_resnet18", "resnet20_cifar10_jpegtuned")
)
_INT4_RECIPE = "quantize.weights:bits=4,rounding="
INT4_TOOLS: Sequence[Tool] = tuple(
    replace(OURS, name=f"slimline int4 {rounding}", kind="weights", options={"recipe": _INT4_RECIPE + rounding})
    for rounding in ("nearest", "gptq")
)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one tool, MiB, for each of `SAMPLE_COUNTS`; None where it failed, and why."""

    tool: str
    peaks: Sequence[float | None]
    failure: str = ""


def measure_memory(
    bench: Bench, cases: Collection[Case], families: Collection[Family]
) -> tuple[list[Memory], list[Goal]]:
    """Calibrate one model, if it is among `cases`, with more and more samples.

    Only memory counts, so held-out samples serve as well.
    """
    if MEMORY_CASE not in cases:
        return [], []
    model = MEMORY_CASE.model(bench.shared)
    whole = _all_digits(bench.shared)
    found = []
    for tool in _memory_tools(families):
        peaks, failure = list[float | None](), ""
        for count in SAMPLE_COUNTS:
            bench.tell(f"memory: {tool.name}, {count} samples")
            calibrate = Split(whole[:count], None).save(bench.runner.folder / f"memory-{count}.npz")
            run = bench.runner.run(tool, model, input_name(model), calibrate)
            peaks.append(run.answer.peak_bytes / MIB if run.model else None)
            failure = run.answer.failure or failure
        found.append(Memory(tool.name, peaks, failure))
    ours = [each for each in found if each.tool != PERCENTILE.name]
    named = f"{MEMORY_CASE.name}, {SAMPLE_COUNTS[0]} to {SAMPLE_COUNTS[-1]} samples, "
    return found, [judge_memory(named + each.tool, each.peaks[0], each.peaks[-1], each.failure) for each in ours]


def measure_int4(bench: Bench, cases: Collection[Case]) -> tuple[list[Row], list[Goal]]:
    """4-bit weights, rounded to nearest and by GPTQ, for those of `cases` that have a goal."""
    rows, goals = list[Row](), list[Goal]()
    bench = replace(bench, scale=replace(bench.scale, whole_jobs=False))
    for case in (case for case in INT4_CASES if case in cases):
        reference, calibrate = bench.prepare(case)
        found = [measure_tool(bench, case, tool, reference, calibrate) for tool in INT4_TOOLS]
        gptq = found[-1]
        rows += found
        goals.append(judge_int4(case.name, gptq.quality.drop if gptq.quality else None, told_failure(gptq)))
    return rows, goals


def count_pieces(cases: Collection[Case], families: Collection[Family]) -> int:
    """How often the two sections tell what they are doing."""
    memory = len(_memory_tools(families)) * len(SAMPLE_COUNTS) if MEMORY_CASE in cases else 0
    return memory + sum(case in cases for case in INT4_CASES) * (1 + len(INT4_TOOLS))


def told_failure(row: Row) -> str:
    """Why there is no result; a method that this version does not have is not available."""
    failure = row.failure or ""
    return f"not available: {failure}" if failure.startswith("METHOD_UNKNOWN") else failure


def _memory_tools(families: Collection[Family]) -> list[Tool]:
    return [tool for tool in MEMORY_TOOLS if tool.family in ("slimline", *families)]


def _all_digits(shared: Path) -> np.ndarray:
    pool, held_out = load_digits(shared, max(SAMPLE_COUNTS))
    return np.concatenate([pool.x, held_out.x])
