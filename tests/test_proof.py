import copy
import math

import pytest
import torch
from torch import Tensor, nn

from compress.errors import InputError, ProofError
from compress.proof import max_difference, prove_same


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)
    )


@pytest.fixture
def inputs() -> list[Tensor]:
    return [torch.randn(rows, 1, 4, 4, generator=torch.Generator().manual_seed(rows)) for rows in (2, 5)]


def test_max_difference():
    assert max_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.25])) == 0.25
    assert max_difference(torch.tensor([2**24 + 1]), torch.tensor([2**24])) == 1
    assert max_difference(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
    assert max_difference(torch.tensor([True]), torch.tensor([False])) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(2), torch.zeros(1)),
        (torch.tensor([math.nan]), torch.tensor([math.nan])),
        (torch.tensor([0.0, math.nan]), torch.zeros(2)),
        (torch.tensor([math.inf]), torch.tensor([math.inf])),
    ],
)
def test_other_shapes_and_values_that_are_not_finite_never_agree(a, b):
    assert max_difference(a, b) == math.inf


def test_a_copy_is_the_same_and_both_keep_their_modes(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[1].eval()
    before = [given.clone() for given in inputs]
    assert prove_same(network, candidate, inputs, 0.0) == 0.0
    assert network.training
    assert not candidate[1].training
    assert all(torch.equal(*pair) for pair in zip(before, inputs, strict=True))


def test_the_largest_difference_is_returned(network, inputs):
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        candidate[5].bias[1] += 1e-3
    assert prove_same(network, candidate, inputs, 1.0) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("layer", [0, 3, 5])
def test_the_first_layer_that_differs_is_named(network, inputs, layer):
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        candidate[layer].weight += 0.1
        candidate[5].bias += 0.1
    with pytest.raises(ProofError, match=f"first difference is in '{layer}'"):
        prove_same(network, candidate, inputs, 1e-5)
    assert not any(module._forward_hooks for module in [*network.modules(), *candidate.modules()])


def test_a_layer_of_another_width_is_passed_over(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[3], candidate[5] = nn.Linear(64, 7), nn.Linear(7, 3)
    with pytest.raises(ProofError, match="first difference is in '5'"):
        prove_same(network, candidate, inputs, 1e-5)


def test_a_candidate_that_does_not_run_names_the_layer(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[3] = nn.Linear(63, 8)
    with pytest.raises(ProofError, match="does not run; it fails in '3'"):
        prove_same(network, candidate, inputs, 1e-5)


def test_a_difference_outside_of_all_layers():
    class Scaled(nn.Module):
        scale = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    candidate = Scaled()
    candidate.scale = 2.0
    with pytest.raises(ProofError, match="the network's own forward"):
        prove_same(Scaled(), candidate, [torch.ones(2, 3)], 1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_tolerance_is_relative_to_the_outputs_scale(scale):
    reference, near, far = (nn.Linear(1, 1, bias=False).double() for _ in range(3))
    for model, weight in ((reference, scale), (near, scale * (1 + 0.9e-5)), (far, scale * (1 + 1.1e-5))):
        nn.init.constant_(model.weight, weight)
    assert prove_same(reference, near, [torch.ones(2, 1).double()], 1e-5) > 0
    with pytest.raises(ProofError, match="output differs by"):
        prove_same(reference, far, [torch.ones(2, 1).double()], 1e-5)


def test_nan_is_never_proven():
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, math.nan)
    with pytest.raises(ProofError, match="differs by inf"):
        prove_same(model, copy.deepcopy(model), [torch.ones(1, 2)], 1e-5)


def test_every_output_counts():
    class Two(nn.Module):
        def __init__(self, extra: float) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"a": x, "b": [x, x + self.extra], "n": 3}

    assert prove_same(Two(1.0), Two(1.0), [torch.ones(2, 3)], 0.0) == 0.0
    with pytest.raises(ProofError):
        prove_same(Two(1.0), Two(2.0), [torch.ones(2, 3)], 1e-5)


def test_an_input_that_the_reference_refuses(network):
    with pytest.raises(InputError, match=r"\[2, 3\]"):
        prove_same(network, network, [torch.zeros(2, 3)], 1e-5)


class Several(nn.Module):
    """Two outputs in a dict, one of them of a layer that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        states, last = self.rnn(x)
        return {"out": self.out(states), "last": last}


def test_outputs_in_tuples_and_dicts_are_compared_and_named():
    torch.manual_seed(0)
    model, given = Several(), [torch.randn(2, 5, 3)]
    candidate = copy.deepcopy(model)
    assert prove_same(model, candidate, given, 0.0) == 0.0
    with torch.no_grad():
        candidate.rnn.weight_hh_l0[0, 0] += 1
    with pytest.raises(ProofError, match="first difference is in 'rnn'"):
        prove_same(model, candidate, given, 1e-5)
