"""`TorchGraph`: a graph as an `nn.Module`. How nodes run is in `operators/`, how they are put together in `planner`."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.torch_graph.context import Context
from worker.engine.torch_graph.dtypes import TRAINABLE, to_torch
from worker.engine.torch_graph.inputs import Declared, check_inputs, declare
from worker.engine.torch_graph.plan import Plan
from worker.engine.torch_graph.planner import Planner, Uses
from worker.engine.torch_graph.source import Source
from worker.engine.torch_graph.weights import Holder, Place, find_place, free_prefix, put, write_back

Observer = Callable[[torch.Tensor], torch.Tensor | None]


class TorchGraph(Holder):
    """Runs an ONNX graph with torch, on any device, with gradients.

    Call it with the graph's inputs in order; it gives a tuple of the outputs in order. Parameters and buffers are the
    graph's initializers, and the weights in its Constant nodes, under the graph's own names:

    - floating-point ones are parameters; those that no gradient reaches, and lone numbers of the arithmetic such as
      the 0.5 in GELU, have `requires_grad` False;
    - running statistics, whole numbers and 8-bit floats are buffers.

    Whole numbers and lone numbers are part of the plan; `load_state_dict` and `refresh` have it made again.

    It begins in eval mode. In training mode BatchNormalization uses and updates statistics as `nn.BatchNorm2d` does,
    and Dropout drops. The graph itself changes only by `write_back`.
    """

    def __init__(self, graph: Graph) -> None:
        """Raises SlimlineError: OPERATOR_UNSUPPORTED, GRAPH_CYCLE, GRAPH_TOO_DEEP, VALUE_MISSING, SHAPES_CONFLICT..."""
        super().__init__()
        self.graph = graph
        self._source = Source(graph)
        self._inputs: Sequence[Declared] = declare(self._source.model.graph)
        planner = Planner(self._source, lambda number: to_torch(self._source.weights[number].tensor).tolist())
        self._plan: Plan | None = planner.plan()
        self._observers: dict[str, OrderedDict[int, Observer]] = {}
        self._prefix = free_prefix(weight.name for weight in self._source.weights)
        self._here = find_place(self, f"{self._prefix}.here")
        put(self._here, torch.empty(0), is_saved=False)
        self._places: list[Place] = []
        self._places += [self._put(number, planner.uses) for number in range(len(self._source.weights))]
        self.register_load_state_dict_post_hook(_forget_plan)  # type: ignore[no-untyped-call]  # torch leaves it so
        self.eval()

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """The graph's outputs in order. A sequence is a list of tensors, an optional that is empty None.

        Raises SlimlineError INPUTS_MISMATCH, NODE_FAILED, LOOP_ENDLESS or TENSOR_TOO_LARGE, naming the node.
        """
        check_inputs(self._inputs, inputs)
        plan = self._plan or self._make_plan()
        context = Context(self._here.read().device, self.training, self._weight, self._observers)
        return tuple(plan.run(context, inputs))

    def observe(self, name: str, observer: Observer) -> RemovableHandle:
        """Call `observer` with the tensor `name` each time the graph makes it, also inside bodies.

        Nothing is kept unless the observer keeps it; a tensor it gives back takes the place of the one it saw. The
        handle's `remove()`, or leaving `with`, ends it. Raises SlimlineError TENSOR_UNKNOWN.
        """
        if name not in self._observers:
            if name not in self._source.names:
                raise SlimlineError("TENSOR_UNKNOWN", f"no node or input of the graph gives {name!r}", node=name)
            self._observers[name] = OrderedDict()
            self._plan = None
        handle = RemovableHandle(self._observers[name])
        self._observers[name][handle.id] = observer
        return handle

    def place(self, name: str) -> tuple[nn.Module, str]:
        """The module and attribute that hold the weight `name`, for `torch.nn.utils.parametrize` and pruning.

        Raises SlimlineError TENSOR_UNKNOWN.
        """
        for weight, place in zip(self._source.weights, self._places, strict=True):
            if weight.name == name and not weight.is_number:
                if not place.is_attribute:
                    raise SlimlineError("TENSOR_UNKNOWN", f"{name!r} means something else to torch modules", node=name)
                return place.holder, place.leaf
        raise SlimlineError("TENSOR_UNKNOWN", f"the graph has no weight {name!r}", node=name)

    def refresh(self) -> None:
        """Read whole numbers and lone numbers again, after they were changed in place."""
        self._plan = None

    def write_back(self) -> None:
        """Put every weight, as its parametrizations give it, into the graph it came from.

        Raises SlimlineError WEIGHT_MISMATCH for one whose shape is another now.
        """
        for weight, place in zip(self._source.weights, self._places, strict=True):
            if not weight.is_number:
                write_back(weight, place.read())

    def _put(self, number: int, uses: Uses) -> Place:
        weight = self._source.weights[number]
        tensor = to_torch(weight.tensor)
        if weight.is_number:
            place = find_place(self, f"{self._prefix}.{number}")
            put(place, tensor, is_saved=False)
            return place
        place = find_place(self, weight.name)
        if weight.tensor.dtype in TRAINABLE and number not in uses.statistics:
            tensor = nn.Parameter(tensor, requires_grad=number in uses.trained - uses.planned)
        put(place, tensor)
        return place

    def _weight(self, number: int) -> torch.Tensor:
        return self._places[number].read()

    def _make_plan(self) -> Plan:
        """After new observers, or after whole numbers may have changed, which a plan holds."""
        planner = Planner(self._source, lambda number: self._weight(number).tolist(), self._observers)
        self._plan = planner.plan()
        return self._plan

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A module of its own over the same graph, without observers."""
        for shared in (self.graph, self._source, self._inputs):
            memo[id(shared)] = shared
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy({**self.__dict__, "_observers": {}}, memo)
        return twin


def _forget_plan(module: TorchGraph, _: object) -> None:
    """Numbers that were loaded may differ from those in the plan."""
    module.refresh()
