import pytest
import torch
from torch import nn

from compress.errors import InputError
from compress.graph.coupling import couplings
from compress.graph.stats import measure
from compress.select.budgets import choose_nodes, masks_of, norms
from compress.slimming.shrink import slim


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 20, 3), nn.BatchNorm2d(20), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(20 * 16, 30), nn.ReLU(), nn.Linear(30, 4)),
    ).eval()


EXAMPLE = torch.randn(2, 3, 8, 8)


def chosen(model, **options):
    known = couplings(model, EXAMPLE)
    return choose_nodes(known, {coupling: norms(model, coupling) for coupling in known.found}, **options)


def test_norms_are_over_rows_biases_scales_and_columns():
    model = network()
    expected = (
        model[0].weight.square().sum((1, 2, 3))
        + model[0].bias.square()
        + model[1].weight.square()
        + model[1].bias.square()
        + model[3].weight.square().sum((0, 2, 3))
    ).sqrt()
    assert torch.allclose(norms(model, couplings(model, EXAMPLE).of("0")), expected)


def test_half_of_each_coupling():
    assert [(int(nodes.sum()), len(nodes)) for nodes in chosen(network(), sparsity=0.5).values()] == [
        (6, 12),
        (10, 20),
        (15, 30),
    ]


@pytest.mark.parametrize("ranking", ["global", "isomorphic"])
def test_nodes_of_several_couplings_compete(ranking):
    keep = chosen(network(), sparsity=0.5, ranking=ranking)
    assert sum(int(nodes.sum()) for nodes in keep.values()) in (31, 32)
    assert all(nodes.any() for nodes in keep.values())


def test_widths_are_round_and_never_too_small():
    keep = chosen(network(), sparsity=0.9, multiple_of=8, min_nodes=9)
    assert [int(nodes.sum()) for nodes in keep.values()] == [12, 16, 16]


@pytest.mark.parametrize("ranking", ["coupling", "isomorphic", "global"])
@pytest.mark.parametrize("budget", ["params", "macs"])
def test_the_slim_network_is_within_its_budget(budget, ranking):
    model = network()

    def size(net: nn.Module) -> int:
        return getattr(measure(net, EXAMPLE), budget)

    dense = size(model)
    with torch.no_grad():
        for name, mask in masks_of(model, chosen(model, ranking=ranking, **{budget: 0.4})).items():
            model.get_parameter(name).mul_(mask)
    assert 0.3 * dense < size(slim(model, EXAMPLE)) <= 0.4 * dense


def test_a_budget_out_of_reach_says_what_is_possible():
    with pytest.raises(InputError, match=r"cannot be reached.* is left"):
        chosen(network(), params=0.01, min_nodes=10)


@pytest.mark.parametrize(
    "options", [{}, {"sparsity": 0.5, "macs": 0.5}, {"sparsity": 1.0}, {"params": 0.5, "min_nodes": 0}]
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(InputError, match="Give one of"):
        chosen(network(), **options)
