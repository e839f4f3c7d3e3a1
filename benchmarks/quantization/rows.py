"""Measures one case: every tool's result becomes a row. Latencies, and what is not kept, are measured every time."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from app.contracts.failure import SlimlineError
from benchmarks.comparison.data import Split
from benchmarks.comparison.latency import speed_ups
from benchmarks.quantization.cases import Case, input_name
from benchmarks.quantization.latency import SETTINGS
from benchmarks.quantization.quality import Quality, Reference, measure_quality, measure_reference
from benchmarks.quantization.running import Run, Runner
from benchmarks.quantization.tools import Family, Tool, tools_for


@dataclass(frozen=True)
class Row:
    """What one tool made of one model.

    `failure`: why there is no quality. `speed`: by the setting's name, above 1 is faster than the original.
    `compress_s`: of ours, the whole job with its checks and measurements.
    """

    case: str
    tool: Tool
    run: Run
    quality: Quality | None = None
    failure: str | None = None
    speed: dict[str, float] | None = None
    compress_s: float | None = None


@dataclass(frozen=True)
class Scale:
    """How much is done: calibration samples, evaluation samples (None: all), seconds per latency setting."""

    samples: int
    evaluate: int | None
    seconds: float
    whole_jobs: bool


@dataclass(frozen=True)
class Bench:
    """What all cases share. `tell` is called with a few words before each piece of work."""

    shared: Path
    runner: Runner
    scale: Scale
    tell: Callable[[str], None]

    def prepare(self, case: Case) -> tuple[Reference, Path]:
        """The original with its scores, and the file of calibration samples."""
        self.tell(f"{case.name}: reading data, running the original")
        model = case.model(self.shared)
        pool, held_out = case.load(self.shared, self.scale.samples)
        calibrate = pool.save(self.runner.folder / f"{case.name}.npz")
        return measure_reference(model, input_name(model), _at_most(held_out, self.scale.evaluate)), calibrate


def measure_case(bench: Bench, case: Case, families: Collection[Family]) -> tuple[Reference, list[Row]]:
    """The original and a row for each tool that suits the case."""
    reference, calibrate = bench.prepare(case)
    rows = [measure_tool(bench, case, tool, reference, calibrate) for tool in tools_for(case, families)]
    return reference, _with_speed(bench, case, reference, rows)


def count_pieces(case: Case, families: Collection[Family]) -> int:
    """How often `measure_case` tells what it is doing."""
    return 1 + len(tools_for(case, families)) + len(SETTINGS)


def measure_tool(bench: Bench, case: Case, tool: Tool, reference: Reference, calibrate: Path) -> Row:
    """Quantize with one tool and look at what came out."""
    bench.tell(f"{case.name}: {tool.name}")
    run = bench.runner.run(tool, reference.model, reference.input_name, calibrate)
    row = Row(case.name, tool, run, failure=run.answer.failure)
    if run.model is None:
        return row
    try:
        row = replace(row, quality=_quality(run.model, reference, is_kept=tool.is_kept))
    except SlimlineError as error:
        return replace(row, failure=str(error))
    if tool.family == "slimline" and bench.scale.whole_jobs:
        whole = replace(tool, options={**tool.options, "whole": True})
        job = bench.runner.run(whole, reference.model, reference.input_name, calibrate)
        row = replace(row, compress_s=job.answer.work_s, failure=job.answer.failure)
    return row


def _quality(model: Path, reference: Reference, *, is_kept: bool) -> Quality:
    """Of a model that is kept it is kept beside the file."""
    record = model.with_name(f"{model.stem}.{reference.digest}.quality.json")
    if is_kept and record.is_file() and record.stat().st_mtime > model.stat().st_mtime:
        return Quality(**json.loads(record.read_text()))
    quality = measure_quality(model, reference)
    if is_kept:
        record.write_text(json.dumps(asdict(quality)))
    return quality


def _with_speed(bench: Bench, case: Case, reference: Reference, rows: Sequence[Row]) -> list[Row]:
    files = [row.run.model for row in rows if row.run.model and row.quality]
    speeds: list[dict[str, float]] = [{} for _ in files]
    for setting in SETTINGS:
        bench.tell(f"{case.name}: latency, {setting.name}")
        feed = reference.feed(setting.batch)
        ratios = speed_ups(reference.model, files, feed, setting.threads, bench.scale.seconds)
        for speed, ratio in zip(speeds, ratios, strict=True):
            speed[setting.name] = ratio
    found = iter(speeds)
    return [replace(row, speed=next(found)) if row.run.model and row.quality else row for row in rows]


def _at_most(split: Split, count: int | None) -> Split:
    return split if count is None else split.sample(count)
