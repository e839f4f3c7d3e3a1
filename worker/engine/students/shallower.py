"""Makes a graph shallower: measures what each residual block matters, and drops blocks. What goes is `stages`'s."""

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor, drop_dead, owner_of
from worker.engine.graph.passes.dead import remove_dead
from worker.engine.quantization.calibration import Pass, to_tensors, watch
from worker.engine.students.context import StudentContext
from worker.engine.students.residual_blocks import Block, find_blocks
from worker.engine.students.stages import Shape, Unit, choose_units, find_units
from worker.engine.torch_graph import TorchGraph
from worker.engine.wording import counted

_HINT = "Use `width`, which takes channels out of any layer."
_SAMPLES = 64
"""On so many each block is judged."""
_IDEMPOTENT = frozenset({"Relu"})
"""Twice in a row they do what once does."""


def make_shallower(graph: Graph, share: float, context: StudentContext) -> Graph:
    """A copy of `graph` with about the `share` of its residual blocks: see `choose_units`.

    Raises SlimlineError NOTHING_TO_DROP, or what is raised for a graph that torch cannot run.
    """
    copy, run = graph.clone(), Pass(context.samples, _SAMPLES, context.device)
    units = find_block_units(copy, run)
    if not units:
        raise SlimlineError(
            "NOTHING_TO_DROP",
            "`depth` drops residual blocks, and this model has none: no sum of a tensor and of what is computed from "
            "it with weights, of one shape",
            hint=_HINT,
        )
    gone = choose_units(units, measure_impacts(copy, units, run), share)
    if not gone:
        told = counted(len(units), "residual block")
        raise SlimlineError(
            "NOTHING_TO_DROP",
            f"`depth` {share:g} of {told} leaves them all, as one of each stage stays",
            hint=f"Give a smaller share. {_HINT}",
        )
    names = [block.sum.name or "" for unit in gone for block in unit.blocks]
    drop_blocks(copy, [block for unit in gone for block in unit.blocks])
    total = sum(len(unit.blocks) for unit in units)
    context.note(f"{len(names)} of {counted(total, 'residual block')} dropped: {', '.join(names)}")
    return copy


def find_block_units(graph: Graph, run: Pass) -> list[Unit]:
    """The units of residual blocks whose stream and sum have one shape, as one sample shows it."""
    blocks = find_blocks(graph)
    names = {value.name or "" for block in blocks for value in (block.stream, block.sum.outputs[0])}
    shapes: dict[str, Shape] = {}

    def seen(name: str) -> Callable[[torch.Tensor], None]:
        return lambda tensor: shapes.update({name: tuple(tensor.shape)})

    watch(graph, [(name, seen(name)) for name in names], Pass(run.samples, 1, run.device))
    return find_units([block for block in blocks if _keeps_shape(block, shapes)], shapes)


def measure_impacts(graph: Graph, units: Sequence[Unit], run: Pass) -> list[float]:
    """For each unit the squared error of the outputs without it over their square, the mean over the outputs."""
    module = TorchGraph(graph).to(run.device)
    noise = torch.zeros(len(units), len(graph.outputs), dtype=torch.float64)
    power = torch.zeros(len(graph.outputs), dtype=torch.float64)
    done = 0
    with torch.inference_mode():
        for batch in run.samples.batches(limit=run.limit):
            inputs = to_tensors(graph, batch.feed, run.device)
            expected = _doubles(module(*inputs))
            power += torch.stack([each.square().sum() for each in expected]).cpu()
            for place, unit in enumerate(units):
                found = _doubles(_without(module, unit, inputs))
                errors = [(a - b).square().sum() for a, b in zip(found, expected, strict=True)]
                noise[place] += torch.stack(errors).cpu()
            done += batch.count
            run.progress(min(1.0, done / min(run.limit, len(run.samples))))
    shares = (noise / power.clamp_min(torch.finfo(torch.float64).tiny)).mean(1)
    return [float(each) for each in shares.nan_to_num(torch.inf)]


def drop_blocks(graph: Graph, blocks: Iterable[Block]) -> None:
    """Put the stream of each block in the place of its sum, in place. Outputs of the graph keep their names."""
    editor = Editor(graph)
    for block in blocks:
        _drop(editor, block)
    remove_dead(graph)
    graph.infer_shapes()


def _drop(editor: Editor, block: Block) -> None:
    node, stream, branch = block.sum, block.stream, block.branch
    given = node.outputs[0]
    if given.is_graph_output():
        same = editor.node("Identity", [stream], [given.name or ""])
        editor.replace(node, [same], same.outputs)
        return
    ir.convenience.replace_all_uses_with(given, stream)
    owner_of(node).remove(node, safe=True)
    drop_dead(branch)
    for user, _ in list(stream.uses()):
        _merge(stream, user)


def _merge(value: ir.Value, user: ir.Node) -> None:
    """Leave out `user` where it only does once more what made `value`."""
    maker = value.producer()
    is_again = maker is not None and maker.op_type == user.op_type and user.op_type in _IDEMPOTENT
    if is_again and not user.outputs[0].is_graph_output():
        ir.convenience.replace_all_uses_with(user.outputs[0], value)
        owner_of(user).remove(user, safe=True)


def _without(module: TorchGraph, unit: Unit, inputs: Sequence[torch.Tensor]) -> Sequence[object]:
    """The outputs with nothing added by the branches of `unit`."""
    handles = [module.observe(block.branch.name or "", torch.zeros_like) for block in unit.blocks]
    outputs: Sequence[object] = module(*inputs)
    for handle in handles:
        handle.remove()
    return outputs


def _keeps_shape(block: Block, shapes: dict[str, Shape]) -> bool:
    stream, given = block.stream.name or "", block.sum.outputs[0].name or ""
    return stream in shapes and shapes[stream] == shapes.get(given)


def _doubles(outputs: Sequence[object]) -> list[torch.Tensor]:
    """Outputs that are no tensors count as nothing."""
    return [each.double() if isinstance(each, torch.Tensor) else torch.zeros(()).double() for each in outputs]
