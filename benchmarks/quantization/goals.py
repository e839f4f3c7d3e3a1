"""The goals, and how far each figure of ours is from its own. Ours is judged beside peers' results of the same kind."""

from collections.abc import Sequence

from benchmarks.comparison.goals import Goal
from benchmarks.quantization.latency import SETTINGS
from benchmarks.quantization.quality import Quality
from benchmarks.quantization.rows import Row
from benchmarks.quantization.tools import PERCENTILE

MOST_DROP, MOST_DROP_INT4 = 0.3, 1.0
SHARE_OF_SPEED, SHARE_OF_WALL = 0.95, 0.5
MOST_RISE_MIB = 64.0
"""What an allocator may keep; the samples themselves are 11 MiB more."""
SHRUNK = 0.95
BIT_EQUAL_DB = 200.0
"""Stands for the SQNR of outputs without any noise."""


def judge_row(ours: Row, rows: Sequence[Row], *, labelled: bool) -> list[Goal]:
    """Accuracy where data is labelled, SQNR, latency and, of static quantization, wall time.

    `rows` are those of the same case.
    """
    peers = [row for row in rows if row.tool.kind == ours.tool.kind and _is_rival(row)]
    named = f"{ours.case}, {ours.tool.kind}"
    return [
        *(_judge_accuracy(named, ours) if labelled else ()),
        *_judge_sqnr(named, ours, peers),
        *_judge_speed(named, ours, peers),
        *_judge_wall(named, ours, rows),
    ]


def _is_rival(row: Row) -> bool:
    """Whether it is a peer's that quantized something: a file that did not shrink is as good and as fast as before."""
    return row.tool.family != "slimline" and row.quality is not None and row.quality.size_ratio < SHRUNK


def judge_memory(name: str, fewest_mib: float | None, most_mib: float | None, failure: str) -> Goal:
    """Peak memory of calibrating with the fewest and the most samples."""
    rise = None if fewest_mib is None or most_mib is None else most_mib - fewest_mib
    return Goal(name, "rise of peak memory", rise, "at most", MOST_RISE_MIB, "MiB", failure)


def judge_int4(case: str, drop: float | None, failure: str) -> Goal:
    """Accuracy lost by 4-bit weights with rounding `gptq`."""
    return Goal(case, "accuracy lost, int4 gptq", drop, "at most", MOST_DROP_INT4, "pt", failure)


def _judge_accuracy(named: str, ours: Row) -> list[Goal]:
    drop = ours.quality.drop if ours.quality else None
    return [Goal(named, "accuracy lost", drop, "at most", MOST_DROP, "pt", ours.failure or "")]


def _judge_sqnr(named: str, ours: Row, peers: Sequence[Row]) -> list[Goal]:
    values = {row.tool.name: _decibels(row.quality) for row in peers if row.quality}
    if not values:
        return []
    best = max(values, key=values.__getitem__)
    value = _decibels(ours.quality) if ours.quality else None
    return [Goal(named, "SQNR", value, "at least", values[best], "dB", ours.failure or f"best peer: {best}")]


def _judge_speed(named: str, ours: Row, peers: Sequence[Row]) -> list[Goal]:
    goals = []
    for setting in (each for each in SETTINGS if each.has_goal):
        values = {row.tool.name: row.speed[setting.name] for row in peers if row.speed}
        if values:
            best = max(values, key=values.__getitem__)
            value = ours.speed[setting.name] if ours.speed else None
            note = ours.failure or f"best peer: {best}, {values[best]:.2f} x"
            limit = values[best] * SHARE_OF_SPEED
            goals.append(Goal(named, f"latency ratio, {setting.name}", value, "at least", limit, "x", note))
    return goals


def _judge_wall(named: str, ours: Row, rows: Sequence[Row]) -> list[Goal]:
    other = next((row.run.answer.work_s for row in rows if row.tool is PERCENTILE and row.run.model), None)
    if other is None or ours.tool.kind != "static":
        return []
    share = ours.run.answer.work_s / other if ours.run.model else None
    note = ours.failure or f"{ours.run.answer.work_s:.2f} s, {PERCENTILE.name} {other:.2f} s"
    return [Goal(named, "wall time", share, "at most", SHARE_OF_WALL, "of Percentile's", note)]


def _decibels(quality: Quality) -> float:
    return BIT_EQUAL_DB if quality.sqnr_db is None else quality.sqnr_db
