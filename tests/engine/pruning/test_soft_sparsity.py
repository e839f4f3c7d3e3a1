"""Regularizers of soft pruning: norms against NumPy, units that reach zero on time, and states gone on with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from worker.engine.graph import Graph
from worker.engine.graph.channels import Groups, Member, find_groups
from worker.engine.pruning.sparsity import Drawn, GroupLasso, Sparsity, Vanishing, share_left
from worker.engine.pruning.unit_slices import UnitSlices, find_without_batch_norm, norms_in, shrinkable
from worker.engine.torch_graph import TorchGraph

MakeGraph = Callable[..., Graph]
Draw = Callable[..., np.ndarray]

NORMED = """
agraph (float[N, 3, 6, 6] x) => (float[N, 4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w1)
    n = BatchNormalization (c, scale, shift, mean, variance)
    r = Relu (n)
    g = GlobalAveragePool (r)
    f = Flatten (g)
    y = Gemm (f, w2, b2)
}
"""


@pytest.fixture
def normed(make_graph: MakeGraph, draw: Draw) -> Graph:
    """Convolution to 8 channels, BatchNormalization, and a Gemm over the means."""
    return make_graph(
        NORMED,
        w1=draw(8, 3, 3, 3),
        scale=np.abs(draw(8)),
        shift=draw(8),
        mean=draw(8),
        variance=np.abs(draw(8)) + 1,
        w2=draw(8, 4),
        b2=draw(4),
    )


@pytest.fixture
def groups(normed: Graph) -> Groups:
    return find_groups(normed)


def test_norms_are_those_of_all_slices(normed: Graph, groups: Groups) -> None:
    members = shrinkable(groups.graph, groups.groups, only_batch_norm=False)
    assert {member.constant for member in members} == {"w1", "scale", "shift", "mean", "w2"}
    arrays = {name: normed.array(name).astype(np.float64) for name in ("w1", "scale", "shift", "w2")}
    squares = np.square(arrays["w1"]).sum((1, 2, 3)) + arrays["scale"] ** 2 + arrays["shift"] ** 2
    squares += np.square(arrays["w2"]).sum(1)
    assert UnitSlices(TorchGraph(groups.graph), members, 8).norms().numpy() == pytest.approx(np.sqrt(squares))
    stored = norms_in(groups.graph, members, 8).numpy()
    assert stored == pytest.approx(np.sqrt(squares + np.square(normed.array("mean"))))


def test_only_slices_of_a_unit_are_scaled(groups: Groups) -> None:
    student = TorchGraph(groups.graph)
    before = {name: each.detach().clone() for name, each in student.named_parameters()}
    members = shrinkable(groups.graph, groups.groups, only_batch_norm=True)
    assert find_without_batch_norm(groups.graph, groups.groups) is None
    factors = torch.ones(8)
    factors[3] = 0.25
    UnitSlices(student, members, 8).scale(factors)
    for name, each in student.named_parameters():
        expected = before[name] * factors if name in ("scale", "shift") else before[name]
        assert torch.equal(each, expected)


def _members(groups: Groups) -> list[Member]:
    return shrinkable(groups.graph, groups.groups, only_batch_norm=False)


def _drawn(groups: Groups) -> Drawn:
    members = _members(groups)
    return Drawn(members, norms_in(groups.graph, members, 8), members)


def _vanishing(groups: Groups) -> Vanishing:
    going = torch.zeros(8, dtype=torch.bool)
    going[[1, 4, 5]] = True
    return Vanishing(_drawn(groups), 0.5, going)


def _lasso(groups: Groups) -> GroupLasso:
    return GroupLasso(_drawn(groups), 0.5, [(torch.arange(8), 3)], 0.5)


def _slimming(groups: Groups) -> GroupLasso:
    members = shrinkable(groups.graph, groups.groups, only_batch_norm=True)
    drawn = Drawn(members, norms_in(groups.graph, members, 8), _members(groups))
    return GroupLasso(drawn, 0.5, [(torch.arange(8), 3)], 0.5)


@pytest.mark.parametrize("make", [_vanishing, _lasso, _slimming])
def test_what_goes_is_zero_from_its_time_on(groups: Groups, make: Callable[[Groups], Sparsity]) -> None:
    student, sparsity = TorchGraph(groups.graph), make(groups)
    for update in range(1, 21):
        _learn(student)
        sparsity.after_update(student, update / 20)
        assert (sparsity.left is not None) == (update >= 10)
    slices = UnitSlices(student, _members(groups), 8)
    going = sparsity.choose(slices.norms())
    assert int(going.sum()) == 3
    assert (slices.norms()[going] == 0).all()
    assert (slices.norms()[~going] > 0.1).all()


def test_chosen_units_follow_the_line_and_others_are_free(groups: Groups) -> None:
    student, sparsity = TorchGraph(groups.graph), _vanishing(groups)
    slices = UnitSlices(student, _members(groups), 8)
    begin = slices.norms()
    going = sparsity.choose(begin)
    for update in range(1, 10):
        _learn(student)
        free = slices.norms()[~going]
        sparsity.after_update(student, update / 20)
        assert share_left(slices.norms(), sparsity.drawn.norms, going) <= 1 - update / 10 + 1e-5
        assert torch.equal(slices.norms()[~going], free)


def test_a_lasso_takes_what_its_strength_says_and_the_smallest_go(groups: Groups) -> None:
    student, sparsity = TorchGraph(groups.graph), _lasso(groups)
    slices = UnitSlices(student, _members(groups), 8)
    begin = slices.norms()
    for update in range(1, 10):
        sparsity.after_update(student, update / 20)
    taken = 0.5 * float(sparsity.drawn.norms.mean()) * 0.9
    assert slices.norms().numpy() == pytest.approx((begin - taken).clamp_min(0).numpy(), rel=1e-4)
    sparsity.after_update(student, 0.5)
    assert set(torch.where(slices.norms() == 0)[0].tolist()) == set(begin.argsort()[:3].tolist())


@pytest.mark.parametrize("make", [_vanishing, _lasso, _slimming])
@pytest.mark.parametrize("stop", [4, 12])
def test_it_goes_on_to_the_last_bit(groups: Groups, make: Callable[[Groups], Sparsity], stop: int) -> None:
    undisturbed, first = TorchGraph(groups.graph), make(groups)
    for update in range(1, 21):
        _learn(undisturbed)
        first.after_update(undisturbed, update / 20)
    student, before = TorchGraph(groups.graph), make(groups)
    for update in range(1, stop + 1):
        _learn(student)
        before.after_update(student, update / 20)
    after = make(groups)
    after.load_state(before.state())
    for update in range(stop + 1, 21):
        _learn(student)
        after.after_update(student, update / 20)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name]), name


@torch.no_grad()
def _learn(student: TorchGraph) -> None:
    """Weights grow, as if the loss held against the shrinking."""
    for each in student.parameters():
        each.mul_(1.03).add_(0.001 * each.sign())
