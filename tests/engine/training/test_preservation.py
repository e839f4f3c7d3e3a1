"""Zeros that stay, averages, the choice of what decays and what moves."""

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import nn

from app.contracts.training import TrainingOptions
from worker.engine.graph import Graph
from worker.engine.training.layer_choice import initializer_of, weights_of_layers, weights_read_by
from worker.engine.training.optimization import Average, Clipper, make_optimizer
from worker.engine.training.preservation import Zeros

Builder = Callable[..., onnx.ModelProto]


def test_zeros_stay_and_the_rest_moves() -> None:
    weight, untrained = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 2.0]])), nn.Parameter(torch.zeros(2, 2))
    zeros = Zeros([weight, untrained])
    assert (len(zeros), zeros.share) == (1, 0.5)
    optimizer = torch.optim.AdamW([weight, untrained], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        sum((each - 3).square().sum() for each in (weight, untrained)).backward()
        optimizer.step()
        zeros.keep()
    assert (weight == 0).tolist() == [[False, True], [True, False]]
    assert weight[0, 0] > 1
    assert (untrained != 0).all()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_only_matrices_decay(optimizer: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[0].weight.requires_grad_(True)
    groups = make_optimizer(module, TrainingOptions(optimizer=optimizer, weight_decay=0.3), 0.1).param_groups
    decays = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    assert [decays[id(each)] for each in module.parameters()] == [0.3, 0, 0, 0]


def test_what_has_no_gradient_is_left_out() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    [group] = make_optimizer(module, TrainingOptions(), 0.1).param_groups
    assert [each is module.weight for each in group["params"]] == [True]


def test_an_average_forgets_the_start_and_ends_near_the_recent() -> None:
    value = {"w": torch.zeros(1)}
    average = Average(value, decay=0.9)
    expected = torch.zeros(1)
    for update in range(1, 60):
        value["w"].fill_(float(update))
        average.add(value, update)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = expected * decay + value["w"] * (1 - decay)
    torch.testing.assert_close(average.tensors["w"], expected)
    assert 45 < float(average.tensors["w"]) < 59


def test_gradients_are_cut_to_length_together() -> None:
    module = nn.Linear(3, 3)
    module(torch.ones(2, 3)).square().sum().mul(100).backward()
    Clipper(module, 0.5).clip()
    assert torch.cat([each.grad.flatten() for each in module.parameters()]).norm() == pytest.approx(0.5, rel=1e-4)


def test_the_weights_of_chosen_nodes_are_found_also_behind_constants(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn())
    assert weights_read_by(graph, {"conv1", "fc"}) == {"conv1.weight", "conv1.bias", "fc.weight", "fc.bias"}
    assert weights_read_by(graph, set()) == set()


def test_weights_of_layers_are_no_biases(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn())
    assert weights_of_layers(graph) == {"conv1.weight", "conv2.weight", "conv3.weight", "fc.weight"}


def test_a_parametrized_weight_is_known_by_its_name_in_the_graph() -> None:
    names = ("layer1.0.weight", "layer1.0.parametrizations.weight.original", "parametrizations.scale.original0")
    assert [initializer_of(name) for name in names] == ["layer1.0.weight", "layer1.0.weight", "scale"]
