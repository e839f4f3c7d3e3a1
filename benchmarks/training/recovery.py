"""Recovery: half of the MACs pruned away, then the same budget of training with and without a teacher."""

from benchmarks.training.found import Found, best_of
from benchmarks.training.material import Material
from benchmarks.training.recipes import HALF, Options, train
from benchmarks.training.running import Bench
from benchmarks.training.teachers import Teacher
from benchmarks.training.trials import Trial

MOST_LOST = 1.5
"""Points of top-1 that the best may be short of the original."""
TRIALS = 4
"""That are run with every seed; the original is run once."""


def measure_recovery(bench: Bench, material: Material, teacher: Teacher, budget: Options) -> Found:
    """Pruned, fine-tuned, and distilled from the original and from `teacher`."""
    found = Found("Recovery from half of the MACs")
    original, pruned, tuned, *distilled = found.results = [
        bench.measure(material, Trial("original", ())),
        bench.measure(material, Trial("pruned", [HALF])),
        bench.measure(material, Trial("fine-tuned", [HALF, train(budget)])),
        bench.measure(material, Trial("distilled from itself", [HALF, train(budget, distill={})])),
        bench.measure(
            material, Trial(f"distilled from {teacher.name}", [HALF, train(budget, distill=teacher.as_option())])
        ),
    ]
    found.expect(tuned, pruned)
    for each in distilled:
        found.expect(each, tuned)
    found.expect_near(best_of([tuned, *distilled]), original, MOST_LOST)
    return found
