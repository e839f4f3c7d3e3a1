"""The goals, and how far each figure of ours is from its own."""

from benchmarks.comparison.goals import Goal
from benchmarks.pruning.accuracy import Comparison
from benchmarks.pruning.analysis import Analysis
from benchmarks.pruning.natives import Network
from benchmarks.pruning.rows import AMOUNTS, Pruned, Row, equal_to

MOST_PARAMETERS, MOST_WIDTH = 0.9, 0.75
"""Left at 50 %: of the parameters, and of every attention and MLP, which may have few heads."""
MOST_DEVIATION = 1e-5
SHARE_OF_SPEED = 0.95
MOST_ANALYSIS_S = 5.0
_HALF = "50 %"


def judge_pruning(row: Row) -> list[Goal]:
    """What a model of ours must lose at 50 %, and that what is left computes what the masked model does."""
    half = row.at[_HALF]
    left, note = half.left, half.failure or ""
    parameters = left.parameters if left else None
    goals = [Goal(row.case, f"parameters left at {_HALF}", parameters, "at most", MOST_PARAMETERS, "", note)]
    for what, width in (("attention", left.attention if left else None), ("MLP", left.mlp if left else None)):
        if width is not None:
            goals.append(Goal(row.case, f"{what} left at {_HALF}", width, "at most", MOST_WIDTH, "", note))
    deviation = half.run.answer.deviation
    exact = None if deviation is None else deviation / MOST_DEVIATION
    return [*goals, Goal(row.case, "deviation from masked", exact, "at most", 1.0, f"of {MOST_DEVIATION:g}", note)]


def judge_duel(ours: Row, theirs: Row, network: Network) -> list[Goal]:
    """Groups, of convolutional networks, and latency at equal MACs, where the peer gave something."""
    goals = _judge_groups(ours, theirs) if network == "convolutional" else []
    for amount in AMOUNTS:
        if (rival := theirs.at[amount]).speed is not None and equal_to(amount) in ours.at:
            goals.append(_judge_speed(ours, rival, amount))
    return goals


def judge_accuracy(found: Comparison) -> list[Goal]:
    """Top-1 beside the peer's with as many MACs, where it has any."""
    ours, theirs = found.equal, found.theirs
    if ours is None or theirs.top1 is None:
        return []
    what = f"top-1, {equal_to('30 %')}, {ours.criterion}"
    return [Goal(ours.case, what, ours.top1, "at least", theirs.top1, "%", ours.failure or "")]


def judge_analysis(found: Analysis) -> Goal:
    """Of 100 million parameters."""
    note = found.failure or f"{found.parameters / 1e6:.0f} million parameters"
    return Goal(found.case, "analysis", found.seconds, "at most", MOST_ANALYSIS_S, "s", note)


def _judge_groups(ours: Row, theirs: Row) -> list[Goal]:
    counts = [sum(row.first.run.answer.groups.values()) for row in (ours, theirs)]
    if not theirs.first.run.answer.groups:
        return []
    note = ours.first.failure or f"Torch-Pruning is {_exactness(theirs.first)}"
    return [Goal(ours.case, "groups", counts[0], "at least", counts[1], "", note)]


def _judge_speed(ours: Row, rival: Pruned, amount: str) -> Goal:
    equal = ours.at[equal_to(amount)]
    speed = rival.speed or 0.0
    note = equal.failure or f"Torch-Pruning {speed:.2f} x, {_exactness(rival)}"
    return Goal(
        ours.case, f"latency ratio, {equal_to(amount)}", equal.speed, "at least", speed * SHARE_OF_SPEED, "x", note
    )


def _exactness(rival: Pruned) -> str:
    deviation = rival.run.answer.deviation
    return "not compared with masked" if deviation is None else f"{deviation:.0e} from masked"
