"""Networks of the same structure share a trace; whatever shapes a trace makes another structure."""

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.graph import traced_once
from compress.graph.coupling import couplings
from compress.graph.traced_once import TracedOnce
from compress.slimming.bottleneck import take_apart
from compress.slimming.shrink import slim

EXAMPLE = torch.zeros(2, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(4, 6), nn.Linear(6, 6), 2.0
        self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.b(self.a(x).relu())) * self.scale)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that were traced."""
    found: list[nn.Module] = []

    def counted(model: nn.Module, example: Tensor) -> object:
        found.append(model)
        return couplings(model, example)

    monkeypatch.setattr(traced_once, "couplings", counted)
    return found


def test_copies_share_a_trace_whatever_their_weights_and_modes(traces: list[nn.Module]) -> None:
    owner, model = TracedOnce(), Net()
    known = owner.couplings(model, EXAMPLE)
    other = copy.deepcopy(model).eval()
    with torch.no_grad():
        other.a.weight.zero_()
    assert owner.couplings(other, torch.ones(7, 4)) is known
    assert owner.couplings(Net(), EXAMPLE) is known
    assert known.found == couplings(other, EXAMPLE).found
    assert len(traces) == 1


def _tie(model: Net) -> None:
    model.norm.weight = nn.Parameter(model.norm.weight.data)
    model.b.weight = model.b.weight
    model.norm.bias = model.b.bias


@pytest.mark.parametrize(
    "change",
    [
        lambda model: take_apart(model, "head"),
        lambda model: setattr(model, "b", nn.Linear(6, 6, bias=False)),
        lambda model: setattr(model, "b", nn.Sequential(nn.Linear(6, 6))),
        lambda model: setattr(model, "norm", nn.Identity()),
        lambda model: setattr(model, "scale", 3.0),
        lambda model: setattr(model.norm, "eps", 1e-3),
        lambda model: model.double(),
        _tie,
    ],
)
def test_another_structure_is_another_trace(traces: list[nn.Module], change: Callable[[Net], object]) -> None:
    owner, model = TracedOnce(), Net()
    known = owner.couplings(model, EXAMPLE)
    before = copy.deepcopy(model)
    change(model)
    example = EXAMPLE.to(model.a.weight.dtype)
    found = owner.couplings(model, example)
    assert found.found == couplings(model, example).found
    assert len(traces) == 2
    assert owner.couplings(before, EXAMPLE) is known, "the one before is still known"


def test_slimming_changes_the_structure(traces: list[nn.Module]) -> None:
    owner, model = TracedOnce(), Net()
    with torch.no_grad():
        model.b.weight[:, :2] = 0.0
    small = slim(model, EXAMPLE, known=owner.couplings(model, EXAMPLE))
    assert small.a.out_features == 4
    assert owner.couplings(small, EXAMPLE).of("a").size == 4
    assert len(traces) == 2


def test_an_example_of_another_size_or_type_is_another_trace(traces: list[nn.Module]) -> None:
    owner, model = TracedOnce(), nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 2, 1))
    for length in (4, 5, 4):
        owner.couplings(model, torch.zeros(2, 2, length))
    assert len(traces) == 2


def test_a_program_is_known_by_its_code(traces: list[nn.Module]) -> None:
    owner, model = TracedOnce(), torch.fx.symbolic_trace(Net())
    assert owner.couplings(copy.deepcopy(model), EXAMPLE) is owner.couplings(model, EXAMPLE)
    owner.couplings(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))), EXAMPLE)
    assert len(traces) == 2


def test_no_weights_are_held() -> None:
    owner, model = TracedOnce(), Net()
    owner.couplings(model, EXAMPLE)
    held = [weakref.ref(tensor) for tensor in (*model.parameters(), *model.buffers())]
    del model
    gc.collect()
    assert not any(reference() is not None for reference in held)
