import pytest
import torch
from torch import nn

from compress.errors import InputError
from compress.graph.coupling import couplings
from compress.graph.stats import measure
from compress.select.budgets import choose_nodes, masks_of
from compress.select.criteria import Norms
from compress.select.scoring import Scoring
from compress.slimming.shrink import slim


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 20, 3), nn.BatchNorm2d(20), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(20 * 16, 30), nn.ReLU(), nn.Linear(30, 4)),
    ).eval()


EXAMPLE = torch.randn(2, 3, 8, 8)


def chosen(model, measure="sparsity", value=0.5, **options):
    known = couplings(model, EXAMPLE)
    scores = Norms().score_nodes(known.found, Scoring(model, torch.Generator()))
    return choose_nodes(known, scores, measure, value, **options)


def test_half_of_each_coupling():
    assert [(int(nodes.sum()), len(nodes)) for nodes in chosen(network()).values()] == [
        (6, 12),
        (10, 20),
        (15, 30),
    ]


@pytest.mark.parametrize("scope", ["global", "isomorphic"])
def test_nodes_of_several_couplings_compete(scope):
    keep = chosen(network(), scope=scope)
    assert sum(int(nodes.sum()) for nodes in keep.values()) in (31, 32)
    assert all(nodes.any() for nodes in keep.values())


def test_widths_are_round_and_never_too_small():
    keep = chosen(network(), "sparsity", 0.9, multiple_of=8, min_keep=9)
    assert [int(nodes.sum()) for nodes in keep.values()] == [12, 16, 16]


@pytest.mark.parametrize("scope", ["layer", "isomorphic", "global"])
@pytest.mark.parametrize("budget", ["params", "macs"])
def test_the_slim_network_is_within_its_budget(budget, scope):
    model = network()

    def size(net: nn.Module) -> int:
        return getattr(measure(net, EXAMPLE), budget)

    dense = size(model)
    with torch.no_grad():
        for name, mask in masks_of(model, chosen(model, budget, 0.4, scope=scope)).items():
            model.get_parameter(name).mul_(mask)
    assert 0.3 * dense < size(slim(model, EXAMPLE)) <= 0.4 * dense


def test_a_budget_out_of_reach_says_what_is_possible():
    with pytest.raises(InputError, match=r"cannot be reached.* are left"):
        chosen(network(), "params", 0.01, min_keep=10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scope": "coupling"}, "scope: found 'coupling'; there is layer, isomorphic, global"),
        ({"scope": "isomorphc"}, "did you mean isomorphic"),
        ({"multiple_of": 0}, "multiple_of: found 0"),
        ({"min_keep": -1}, "min_keep: found -1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        chosen(network(), **options)
