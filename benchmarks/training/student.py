"""A thin student: trained on labels alone, and the same student, with the same start, distilled from the original."""

from benchmarks.training.found import Found
from benchmarks.training.material import Material
from benchmarks.training.recipes import Options, train
from benchmarks.training.running import Bench
from benchmarks.training.trials import Trial

WIDTH = 0.5
TRIALS = 4
_LABELS_ALONE = {"hard": 1.0}


def measure_student(bench: Bench, material: Material, budget: Options) -> Found:
    """From random weights, which the seed draws, and from the original's best channels."""
    found = Found(f"A student of {WIDTH:.0%} of the width")
    for start in ("random", "inherited"):
        student = {"width": WIDTH, "weights": start}
        labels, distilled = (
            bench.measure(material, Trial(f"{start} weights, {name}", [train(budget, distill=distill)]))
            for name, distill in (
                ("labels", {"student": student, "loss": _LABELS_ALONE}),
                ("distilled", {"student": student}),
            )
        )
        found.results += [labels, distilled]
        found.expect(distilled, labels)
    return found
