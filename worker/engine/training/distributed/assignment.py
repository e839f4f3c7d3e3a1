"""What the processes of a training need, laid into a folder that they share, and taken from there by each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
from pydantic import BaseModel

from app.contracts.job_spec import Task
from app.contracts.preprocess import Preprocess
from app.contracts.training import TrainingOptions
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.session import Device
from worker.engine.training.request import Request, Telling
from worker.engine.training.state import State, read_state, write_state

_ASSIGNMENT, _GRAPH, _TEACHER, _STATE, _TRAINED = (
    "assignment.json",
    "graph.onnx",
    "teacher.onnx",
    "state.npz",
    "trained.onnx",
)


class Assignment(BaseModel):
    """A `Request` without its graphs and callbacks."""

    options: TrainingOptions
    data: Path
    preprocess: Preprocess | None
    device: Device
    seed: int
    task: Task | None
    layers: list[str] | None
    step: int
    round: int | None


def write_assignment(request: Request, folder: Path) -> None:
    """Lay `request` into `folder`, with the state to go on from. Its regularizer is not written.

    Raises ValueError where its dataset is no file.
    """
    if request.data.path is None:
        raise ValueError("only a dataset in a file can be opened by other processes")
    assignment = Assignment(
        options=TrainingOptions(**request.options.model_dump(include=set(TrainingOptions.model_fields))),
        data=request.data.path.absolute(),
        preprocess=request.data.preprocess,
        device=request.device,
        seed=request.seed,
        task=request.task,
        layers=None if request.layers is None else sorted(request.layers),
        step=request.telling.step,
        round=request.telling.round,
    )
    (folder / _ASSIGNMENT).write_text(assignment.model_dump_json())
    request.graph.save(folder / _GRAPH)
    if request.teacher is not None:
        request.teacher.save(folder / _TEACHER)
    state = request.checkpoints.load()
    if state is not None:
        write_state(folder / _STATE, state)


@contextmanager
def open_assignment(folder: Path) -> Iterator[Request]:
    """The request in `folder`, its data open; it tells nobody and keeps nothing. Raises what opening data raises."""
    assignment = Assignment.model_validate_json((folder / _ASSIGNMENT).read_bytes())
    with open_dataset(assignment.data, assignment.preprocess) as data:
        yield Request(
            graph=_load(folder / _GRAPH),
            options=assignment.options,
            data=data,
            device=assignment.device,
            seed=assignment.seed,
            task=assignment.task,
            teacher=_load(folder / _TEACHER) if (folder / _TEACHER).exists() else None,
            layers=None if assignment.layers is None else frozenset(assignment.layers),
            telling=Telling(step=assignment.step, round=assignment.round),
        )


def read_start(folder: Path) -> State | None:
    """The state to go on from; None at the beginning."""
    path = folder / _STATE
    return read_state(path) if path.exists() else None


def write_trained(graph: Graph, folder: Path) -> None:
    """Lay the result into `folder`."""
    graph.save(folder / _TRAINED)


def read_trained(folder: Path) -> Graph:
    """The result, all of it in memory: the folder may go."""
    graph = _load(folder / _TRAINED)
    graph.model = ir.external_data.load_to_model(graph.model)
    return graph


def _load(path: Path) -> Graph:
    graph = Graph.load(path)
    graph.infer_shapes()
    return graph
