"""The last section: how long the analysis of models with 100 million parameters takes."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.pruning.natives import Native
from benchmarks.pruning.running import Runner
from benchmarks.zoo import Entry
from benchmarks.zoo.convolutional import resnet
from benchmarks.zoo.entry import Scale
from benchmarks.zoo.inputs import pictures, sequences
from benchmarks.zoo.sequential import Encoder
from worker.engine.graph import Graph
from worker.engine.graph.cost import count_weights

LARGE = (
    Native(Entry("encoder, 15 layers of 768", Scale(768, 15, 64), Encoder, sequences, {}), "transformer"),
    Native(Entry("resnet, 320 to 1280 wide", Scale(320, 3, 64), resnet, pictures, {}), "convolutional"),
)


@dataclass(frozen=True)
class Analysis:
    """Seconds from a graph in memory to its groups, in a process of its own."""

    case: str
    parameters: int
    groups: int
    seconds: float | None
    failure: str | None


def measure_analysis(runner: Runner, native: Native, tell: Callable[[str], None]) -> Analysis:
    """Export one large model and analyse it."""
    tell(f"{native.entry.name}: analysis")
    path = runner.export(native)
    answer = runner.run_ours(path, None).answer
    parameters = count_weights(Graph.load(path)).count
    return Analysis(native.entry.name, parameters, sum(answer.groups.values()), answer.analysis_s, answer.failure)
