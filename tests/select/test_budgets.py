import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compress
from compress.errors import InputError
from compress.graph.coupling import couplings, masks_of
from compress.graph.stats import measure
from compress.select.budgets import choose_nodes
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


class Attentive(nn.Module):
    """An encoder of torch's layers, or of one operator for attention."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 16), nn.Linear(16, 4)
        self.whole, self.into, self.out = whole, nn.Linear(16, 48), nn.Linear(16, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        if self.whole:
            parts = (one.unflatten(-1, (4, 4)).transpose(1, 2) for one in self.into(x).chunk(3, -1))
            return self.head(self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("whole", [False, True])
def test_the_multiply_adds_of_attention_are_those_that_torch_counts(whole, scope):
    """Many positions, so that products without weights are most of them."""
    torch.manual_seed(0)
    model, example = Attentive(whole).eval(), torch.randn(2, 40, 6)
    dense = measure(model, example).macs
    pruner = compress.Pruner(model, compress.nodes("*"), macs=0.6, example=example, criterion="norms", scope=scope)
    pruner.finalize()
    share = measure(slim(model, example), example).macs / dense
    assert share == pytest.approx(pruner.achieved)
    assert share <= 0.6
