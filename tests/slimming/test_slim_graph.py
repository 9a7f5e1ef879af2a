"""A slim network that is a graph says what it holds for, and refuses everything else."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compress
from compress.export.contents import inspect
from compress.graph.coupling import couplings
from compress.run.plan import _slim_size
from compress.slimming.edits import apply_edits, edits_from_json, edits_to_json, graph_inputs
from compress.slimming.shrink import slim
from compress.slimming.slim_graph import SlimGraph, SlimGraphWarning, warn_of_graph

TOKENS = torch.arange(12).reshape(2, 6)
LENGTH = {"tokens": {1: "length"}}


class Reader(nn.Module):
    """MultiheadAttention checks its sizes, so that no attribute lets it run at others."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.attend = nn.Embedding(30, 16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.hidden, self.out = nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        x = self.attend(x, x, x, attn_mask=self.mask(x), need_weights=False)[0]
        return self.out(self.hidden(x.mean(1)).relu())

    def mask(self, x: Tensor) -> Tensor | None:
        return None


class Causal(Reader):
    def mask(self, x: Tensor) -> Tensor | None:
        return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


def halved(model: nn.Module, example: Tensor) -> nn.Module:
    with torch.no_grad():
        for coupling in couplings(model, example).found:
            for name, mask in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
                model.get_parameter(name).mul_(mask)
    return model.eval()


@pytest.fixture(scope="module")
def masked() -> nn.Module:
    torch.manual_seed(0)
    return halved(Reader(), TOKENS)


@pytest.fixture(scope="module")
def graph(masked: nn.Module) -> SlimGraph:
    small = slim(masked, TOKENS)
    assert isinstance(small, SlimGraph)
    return small


def copies(graph: SlimGraph) -> dict[str, Any]:
    """The graph, and what is made of it; all have to refuse the same."""
    return {
        "itself": graph,
        "its forward": graph.forward,
        "a deep copy": copy.deepcopy(graph),
        "a pickle": pickle.loads(pickle.dumps(graph)),
        "slimmed again": slim(graph, TOKENS),
        "retraced by torch.fx": torch.fx.symbolic_trace(graph),
        "within a module": nn.Sequential(graph),
    }


@pytest.mark.parametrize(
    "kind",
    ["itself", "its forward", "a deep copy", "a pickle", "slimmed again", "retraced by torch.fx", "within a module"],
)
def test_other_sizes_are_refused_with_both(graph, masked, kind):
    run = copies(graph)[kind]
    for rows in (1, 2, 7):
        given = torch.randint(0, 30, (rows, 6))
        assert torch.allclose(run(given), masked(given), atol=1e-6)
    for shape in ((1, 12), (2, 12), (3, 4), (6, 2), (6,), (2, 6, 1)):
        with pytest.raises(
            compress.InputError, match=r"tokens: found \[.*\]; the slim graph holds for \[N, 6\]"
        ) as caught:
            run(torch.zeros(shape, dtype=torch.int64))
        assert str(list(shape)) in str(caught.value)
    with pytest.raises(compress.InputError, match=r"found torch.int32; the slim graph holds for torch.int64"):
        run(TOKENS.int())
    for wrong in (None, 3, [TOKENS]):
        with pytest.raises(compress.InputError, match="tokens"):
            run(wrong)


def test_the_number_of_inputs_is_checked(graph):
    for args, named in (
        ((), {}),
        ((TOKENS, TOKENS), {}),
        ((TOKENS,), {"mask": TOKENS}),
        ((TOKENS,), {"tokens": TOKENS}),
    ):
        with pytest.raises(compress.InputError, match="tokens"):
            graph(*args, **named)
    assert torch.equal(graph(tokens=TOKENS), graph(TOKENS))


def test_what_torch_makes_of_it_refuses_too(graph):
    program = torch.export.export(graph, (TOKENS,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=99)},))
    given = torch.randint(0, 30, (5, 6))
    assert torch.allclose(program.module()(given), graph(given), atol=1e-6)
    with pytest.raises((RuntimeError, AssertionError)):
        program.module()(torch.zeros(2, 12, dtype=torch.int64))


def test_it_says_what_it_is(graph, masked):
    assert graph.fixed_sizes == {"tokens": ("N", 6)}
    assert "a traced graph, in evaluation mode, for tokens [N, 6]" in repr(graph) == str(graph)
    assert isinstance(copy.deepcopy(graph), SlimGraph)
    assert isinstance(pickle.loads(pickle.dumps(graph)), SlimGraph)
    assert copy.deepcopy(graph).shape_edits == pickle.loads(pickle.dumps(graph)).shape_edits == graph.shape_edits
    assert graph_inputs(graph.shape_edits) == {"input": ("N", 6)}
    with pytest.warns(SlimGraphWarning, match=r"tokens \[N, 6\] and no other size"):
        warn_of_graph(graph)
    warn_of_graph(masked)


def test_training_mode_warns_that_nothing_changes(graph):
    own = copy.deepcopy(graph)
    with pytest.warns(SlimGraphWarning, match="evaluation mode even in training"):
        own.train()
    own.train()
    assert own.training
    assert not own.eval().training


@pytest.mark.parametrize("build", [Reader, Causal])
def test_a_named_dimension_varies(build):
    torch.manual_seed(0)
    dense = build()
    masked = halved(copy.deepcopy(dense), TOKENS)
    small = slim(masked, TOKENS, dynamic=LENGTH)
    assert isinstance(small, SlimGraph)
    assert small.fixed_sizes == {"tokens": ("N", "length")}
    rebuilt = apply_edits(dense, edits_from_json(edits_to_json(small.shape_edits)))
    rebuilt.load_state_dict(small.state_dict())
    for shape in ((2, 6), (1, 12), (2, 13), (3, 4), (6, 2), (1, 1)):
        given = torch.randint(0, 30, shape)
        assert torch.allclose(small(given), masked(given), atol=1e-6)
        assert torch.equal(rebuilt(given), small(given))
    again = slim(small, TOKENS, dynamic=LENGTH)
    assert torch.equal(again(torch.ones(2, 9, dtype=torch.int64)), small(torch.ones(2, 9, dtype=torch.int64)))


def test_a_network_that_runs_at_one_length_only_has_nothing_that_varies():
    model = halved(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 6))
    with pytest.raises(compress.InputError, match="does not run at other sizes of width"):
        slim(model, torch.randn(2, 6), dynamic={"input": {1: "width"}})


class Round(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Same(torch.autograd.Function):
    """A backward pass of its own that is right, as of functions that save memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def _frozen(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 3


def _half_frozen(x: Tensor) -> Tensor:
    return x + x.data * 3


def _estimated(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


class Fixed(nn.Module):
    """Its code insists on its width, so that `slim` makes a graph."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(6, 4), nn.Linear(4, 2), function

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) * 4
        assert y.shape[1] == 4
        return self.b(self.function(y))


@pytest.mark.parametrize(("function", "name"), [(Round.apply, "Round"), (_frozen, "'a.weight'")])
def test_a_graph_without_the_custom_gradients_refuses_its_backward_pass(function, name):
    torch.manual_seed(0)
    example = torch.randn(3, 6)
    model = halved(Fixed(function), example)
    small = slim(model, example)
    assert isinstance(small, SlimGraph)
    assert torch.allclose(small(example), model(example), atol=1e-6)  # it computes, with autograd on
    assert name in str(small.lost_gradients)
    rebuilt = apply_edits(Fixed(function), edits_from_json(edits_to_json(small.shape_edits)))
    for one in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small)), slim(small, example), rebuilt):
        with pytest.raises(compress.InputError, match="lacks the custom gradients"):
            one(example).sum().backward()
    with torch.no_grad():
        for name, dim in (("a.weight", 0), ("a.bias", 0), ("b.weight", 1)):
            small.get_parameter(name).select(dim, 0).zero_()
    smaller = slim(small, example)
    assert smaller.get_parameter("a.weight").shape == (1, 6)
    with pytest.raises(compress.InputError, match="lacks the custom gradients"):
        smaller(example).sum().backward()
    trained = slim(model, example, custom_gradients="drop")
    trained(example).sum().backward()
    assert trained.get_parameter("b.weight").grad is not None


@pytest.mark.parametrize("function", [Same.apply, _estimated, _half_frozen, torch.relu])
def test_a_graph_with_the_networks_gradients_trains(function):
    torch.manual_seed(0)
    example = torch.randn(3, 6)
    model = halved(Fixed(function), example)
    small = slim(model, example)
    assert isinstance(small, SlimGraph)
    assert small.lost_gradients is None
    small(example).sum().backward()
    model(example).sum().backward()
    assert torch.allclose(small.b.bias.grad, model.b.bias.grad, atol=1e-5)
    assert torch.allclose(small.a.weight.grad, model.a.weight.grad[::2], atol=1e-5)


def test_a_file_of_a_graph_is_inspected_as_one(graph, tmp_path):
    compress.export.safetensors(graph, tmp_path / "small.safetensors")
    found = inspect(tmp_path / "small.safetensors", lambda weights: None)
    assert found["graph"] == graph.limits.replace("tokens", "input")
    compress.export.safetensors(nn.Linear(2, 2), tmp_path / "plain.safetensors")
    assert "graph" not in inspect(tmp_path / "plain.safetensors", lambda weights: None)


def test_a_plan_warns_of_a_graph(masked):
    setting: Any = SimpleNamespace(example=TOKENS, dynamic=None, couplings=lambda network: couplings(network, TOKENS))
    with pytest.warns(SlimGraphWarning, match=r"tokens \[N, 6\]"):
        _slim_size(masked, setting)
