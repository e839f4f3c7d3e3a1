"""How far a step is that trains for a part of its time. The training itself is in `training`."""

from worker.engine.methods.method import TellProgress


def part_of(progress: TellProgress, begin: float, end: float, prefix: str = "") -> TellProgress:
    """Tells of a part of the work, from the share `begin` to `end`.

    Seconds left are for all of it, at the pace of this part.
    """

    def tell(share: float, message: str, remaining_s: float | None = None) -> None:
        left = None
        if remaining_s is not None and share < 1:
            left = remaining_s * (1 + (1 - end) / (end - begin) / (1 - share))
        progress(begin + (end - begin) * share, f"{prefix}{message}", left)

    return tell
