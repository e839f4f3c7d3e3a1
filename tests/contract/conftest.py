"""The tiny models that every method is run on, and what a step is given to work with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import onnx
import pytest

from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session

# Test folders are no packages: the engine's builders are taken from the file they live in.
_FILE = Path(__file__).parents[1] / "engine" / "conftest.py"
_SPEC = spec_from_loader("engine_builders", SourceFileLoader("engine_builders", str(_FILE)))
assert _SPEC is not None
assert _SPEC.loader is not None
builders = module_from_spec(_SPEC)
_SPEC.loader.exec_module(builders)

TINY: dict[str, Callable[[], onnx.ModelProto]] = {
    "cnn": builders._cnn,
    "mlp": builders._mlp,
    "lstm": builders._lstm,
    "attention": builders._attention,
    "if": builders._if_model,
}


@dataclass(frozen=True)
class Original:
    """Knows one graph: what a teacher is without another word."""

    graph: Graph

    def find(self, name: str | int) -> Graph:
        """The graph."""
        assert name == "original"
        return self.graph


@pytest.fixture(params=TINY)
def graph(request: pytest.FixtureRequest) -> Graph:
    """Each tiny model in turn, shapes inferred as ingest leaves them."""
    tiny = Graph.from_proto(TINY[request.param]())
    tiny.infer_shapes()
    return tiny


@pytest.fixture
def context(graph: Graph, tmp_path: Path) -> Iterator[Callable[[str], StepContext]]:
    """Makes the context of a step: 32 made-up samples, also as calibration data."""
    made_up = make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)
    feeds = [batch.feed for batch in made_up.batches()]
    arrays = {
        name: np.concatenate([feed[name] for feed in feeds]) if array.ndim else array
        for name, array in feeds[0].items()
    }
    np.savez(tmp_path / "samples.npz", allow_pickle=False, **arrays)
    with open_dataset(tmp_path / "samples.npz") as dataset:
        yield lambda method: StepContext(
            record=Record(0, method),
            calibration=dataset,
            samples=Samples(graph.inputs, dataset),
            seed=0,
            device="cpu",
            progress=lambda _share, _message, _remaining_s=None: None,
            training=dataset,
            models=Original(graph),
        )
