"""The graph computes what the network does, for batches of any size, and the network does not change."""

import copy
from importlib import import_module
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compress.errors import InputError, UnsupportedModelError
from compress.graph.coupling import couplings
from compress.graph.trace import tensors_of, trace
from compress.inputs import Inputs
from compress.slimming.traced import traced_module


class Net(nn.Module):
    """Two layers, a buffer, and a forward given as a function of them."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self._forward = nn.Linear(4, 6), nn.Linear(6, 2), forward
        self.register_buffer("token", torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


LOOSE = torch.arange(6.0)


class Own:
    def __init__(self, one: object, other: object) -> None:
        self.one, self.other = one, other


def positions(net: "Net", x: Tensor) -> Tensor:
    """A table that is made on the way, and that a buffer of the network is written into."""
    table = torch.zeros(6, 4, device=x.device)
    row = table[0]
    table[:, 0::2] = torch.arange(6.0, device=x.device)[:, None].sin()
    table[:, 1] = net.token[0, 0, 0]
    return net.a(x) * table[:, 1] + table[:, 0] + row.sum()


def checked(net: "Net", x: Tensor) -> Tensor:
    assert (x == x).all(), "not a number"
    if torch.isinf(x).any():
        raise ValueError("infinite")
    if not (x.abs() >= 0).all():
        raise ValueError("never")
    return net.a(x)


KEPT = torch.tensor([True, False, True, True, False, True])

FORWARDS = {
    "a table written into": positions,
    "assertions": checked,
    "a number of a buffer": lambda net, x: net.a(x) * float(net.token[0, 0, 0]) + (net.token.numel() == 4),
    "a number of a constant": lambda net, x: net.a(x) * LOOSE[2].item() + (1 if LOOSE.max() > 3 else 0),
    "a list of a constant": lambda net, x: sum(net.a(x) * one for one in LOOSE[:3].tolist()),
    "an array of a constant": lambda net, x: net.a(x) * float(LOOSE.numpy().sum() + torch.arange(3.0).numpy().sum()),
    "where a constant is true": lambda net, x: net.a(x)[:, KEPT] + net.a(x)[:, KEPT.nonzero().squeeze(1)],
    "the row of a batch": lambda net, x: net.a(x) + torch.arange(x.shape[0], device=x.device)[:, None],
    "a checkpoint": lambda net, x: checkpoint(net.a, x, use_reentrant=False),
    "mapped over": lambda net, x: torch.vmap(net.a)(x),
    "spectra": lambda net, x: torch.istft(
        torch.stft(net.a(x).repeat(1, 10), 16, window=torch.ones(16), return_complex=True), 16, window=torch.ones(16)
    ),
    "a new tensor": lambda net, x: x.new_tensor([1.0, 2.0] * 3) + net.a(x),
    "plain": lambda net, x: net.b(F.relu(net.a(x), inplace=True)),
    "batch in a view": lambda net, x: net.a(x).view(x.shape[0] * 3, 2).view(x.shape[0], 6),
    "batch in an expand": lambda net, x: torch.cat((net.token.expand(x.shape[0], -1, -1), x[:, None]), 1),
    "twice the batch": lambda net, x: net.b(torch.cat((net.a(x), net.a(-x)))).view(2, len(x), 2).sum(0),
    "batch as a number": lambda net, x: net.b(net.a(x)) / x.shape[0],
    "repeated": lambda net, x: net.token[0].repeat(len(x), 3) + x.repeat(1, 3),
    "numbers made on the way": lambda net, x: net.a(x) * torch.arange(6, device=x.device) + torch.ones(len(x), 1),
    "numbers from elsewhere": lambda net, x: net.a(x) * LOOSE + torch.tensor([1.0, 2.0] * 3),
    "written into": lambda net, x: net.a(x).index_fill_(1, torch.tensor([1]), 3.0).t_().t_(),
    "data": lambda net, x: net.b(net.a(x).data),
    "another device": lambda net, x: net.a(x.to(net.b.weight.device)).to("cpu", torch.float64),
    "pieces": lambda net, x: [part.tanh() for part in net.a(x).split((2, 4), 1)],
    "chunks of a batch": lambda net, x: torch.cat((x, x)).chunk(2)[1],
    "an object": lambda net, x: Own(net.a(x), [Own(net.b(net.a(x)), 3), None]),
    "a dict": lambda net, x: {"out": (net.a(x), None), "more": [net.b(net.a(x)), 3]},
}


def leaves(output: object) -> list[Tensor]:
    if isinstance(output, Own):
        output = [leaves(output.one), leaves(output.other)]
    if isinstance(output, list):
        output = [leaves(entry) if isinstance(entry, Own) else entry for entry in output]
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
def test_the_graph_computes_the_same_for_any_batch(forward):
    torch.manual_seed(0)
    model = Net(forward).eval()
    module = traced_module(trace(model, torch.randn(2, 4)), tensors_of(model))
    for rows in (1, 2, 5):
        given = torch.randn(rows, 4)
        expected, found = leaves(model(given)), leaves(module(given))
        assert len(expected) == len(found) > 0
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_every_node_knows_its_layer_and_its_sizes():
    traced = trace(nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 2))), torch.zeros(3, 4))
    called = [node for node in traced.graph.nodes if node.op == "call_function"]
    found = [(node.name, node.meta["layer"], node.meta["val"].shape[1:]) for node in called]
    assert found == [("linear", "0", (6,)), ("relu", "1.0", (6,)), ("linear_1", "1.1", (2,))]


class Keeps(nn.Module):
    """Keeps a table of the first forward pass, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.table, self.calls = nn.Linear(4, 4), None, 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + 1
        if self.table is None:
            self.table = torch.arange(4.0, device=x.device)
        return self.a(x) + self.table


def test_what_a_network_keeps_from_a_forward_pass_is_not_kept_from_this_one():
    model = Keeps()
    before = copy.deepcopy(model.state_dict())
    traced = trace(model, torch.zeros(2, 4))
    assert (model.table, model.calls, model.training) == (None, 0, True)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [table.tolist() for table in traced.constants.values()] == [[0, 1, 2, 3]], "no weights are held on to"
    assert model(torch.zeros(2, 4)).shape == (2, 4)


class Pair(NamedTuple):
    one: Tensor


def _row_by_row(net: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([net.a(row) for row in x])


def _by_number(net: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([net.a(x[number]) for number in range(len(x))])


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (_row_by_row, "row by row"),
        (_by_number, "row by row"),
        (lambda net, x: net.a(x) if x.sum() > 0 else x, r"on the values .* torch.where .*test_trace.py, line \d+: `"),
        (lambda net, x: x[x > 0], "index of bools"),
        (lambda net, x: (net.a(x) for _ in range(2)), "returns a generator"),
        (lambda net, x: net.a(x) + torch.equal(x, x), r"on the values .*aten.equal"),
        (lambda net, x: net.a(x) * float(x.numpy().sum()), "numpy reads its values"),
        (lambda net, x: LOOSE.add_(0) + net.a(x), "changes a tensor that is not part"),
    ],
)
def test_what_depends_on_values_or_on_the_batch_is_refused(forward, message, monkeypatch):
    monkeypatch.setattr(import_module("compress.graph.trace"), "_MOST_OPERATORS", 200)
    with pytest.raises(UnsupportedModelError, match=message):
        trace(Net(forward), torch.zeros(2, 4))


def test_a_width_that_would_be_taken_for_the_batch_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"'weight' has the shape \[1000003, 1\]"):
        trace(nn.Linear(1, 1_000_003), torch.zeros(2, 1))


def test_a_named_tuple_is_followed():
    model = Net(lambda net, x: Pair(net.a(x)))
    assert "output" in couplings(model, torch.zeros(2, 4)).kept["a"]


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(5)),
        nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(5)),
        nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(1, 5)),
    ],
)
def test_a_norm_of_another_width_is_an_input_error(model):
    with pytest.raises(InputError, match=r"does not run on the example: .*5"):
        couplings(model, torch.zeros(2, 4))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.a(x).mean() > 0:
            return x
        return -x


def test_a_refusal_names_the_layer_the_line_and_the_way_out():
    with pytest.raises(UnsupportedModelError) as refused:
        trace(nn.Sequential(nn.Linear(4, 4), nn.Sequential(Inner())), torch.randn(2, 4))
    text = str(refused.value)
    assert "in the layer '1.0'" in text
    assert "test_trace.py, line" in text
    assert "`if self.a(x).mean() > 0:`" in text
    assert "torch.where" in text


def test_a_trace_names_the_tensors_whose_values_decided():
    assert trace(Net(lambda net, x: net.a(x) if net.token.sum() > 0 else net.a(-x)), torch.zeros(2, 4)).read == {
        "token"
    }
    assert not trace(Net(lambda net, x: net.a(x) * LOOSE[1].item()), torch.zeros(2, 4)).read


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.a = nn.Embedding(9, 4), nn.Linear(4, 6)

    def forward(self, ids: Tensor, pair: list[Tensor], *, scale: float = 1.0, mask: Tensor | None = None) -> object:
        x = self.words(ids) * scale
        if mask is not None:
            x = x * mask[..., None]
        return Own({"out": self.a(x.mean(1))}, pair[0] + pair[1])


@pytest.mark.parametrize("dynamic", [None, {"ids": {1: "length"}, "mask": {1: "length"}}])
def test_several_inputs_of_any_sort(dynamic):
    torch.manual_seed(0)

    def given(rows: int, length: int) -> Inputs:
        ids, pair = torch.randint(9, (rows, length)), [torch.randn(rows, 3), torch.randn(rows, 3)]
        return Inputs((ids, pair), {"mask": torch.rand(rows, length), "scale": 2.0})

    model = Several().eval()
    traced = trace(model, given(2, 5), dynamic=dynamic)
    assert [node.name for node in traced.inputs] == ["ids", "getitem", "getitem_1", "mask"]
    assert set(traced.sizes) == {"batch", *(["length"] if dynamic else [])}
    module = traced_module(traced, tensors_of(model))
    for rows, length in ((2, 5), (1, 5), (7, 5), *([(3, 8), (2, 1)] if dynamic else [])):
        inputs = given(rows, length)
        expected, found = inputs.call(model), inputs.call(module)
        assert torch.equal(expected.one["out"], found.one["out"])
        assert torch.equal(expected.other, found.other)


def test_an_example_whose_samples_are_elsewhere_is_no_network_that_fails() -> None:
    """Detectors take lists of pictures of [3, height, width], in which no dimension counts samples."""

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, pictures: list[Tensor]) -> list[Tensor]:
            return [self.body(picture - torch.zeros(3, 1, 1)) for picture in pictures]

    with pytest.raises(InputError, match=r"not on its first two samples: .*dimension 0 .*batch_dim"):
        trace(Detector(), [[torch.rand(3, 8, 8)]])
