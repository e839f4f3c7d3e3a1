"""Three ways to half of the MACs with as many updates: at once, in rounds, and drawn to zero while training."""

from benchmarks.training.found import Found
from benchmarks.training.material import Material
from benchmarks.training.recipes import HALF, Options, train
from benchmarks.training.running import Bench
from benchmarks.training.trials import Trial

ROUNDS = 3
TRIALS = 3


def measure_pruning(bench: Bench, material: Material, budget: Options, updates: int) -> Found:
    """Rounds share the updates evenly; soft pruning trains once."""
    found = Found("Half of the MACs with as many updates")
    soft: Options = {**HALF, "method": "prune.soft", "train": {**budget, "steps": updates}}
    rounds = {"steps": ROUNDS, "train": {**budget, "steps": updates // ROUNDS}}
    one_shot, *others = found.results = [
        bench.measure(material, Trial("one-shot", [HALF, train(budget, steps=updates)])),
        bench.measure(material, Trial(f"{ROUNDS} rounds", [{**HALF, "schedule": rounds}])),
        bench.measure(material, Trial("soft", [soft])),
    ]
    for other in others:
        found.expect(other, one_shot)
    return found
