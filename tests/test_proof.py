"""The proof refuses every network that computes something else, and passes those that are right."""

import collections
import copy
import dataclasses
import math
import random
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from compress.errors import InputError, ProofError
from compress.graph.tables import table_rows
from compress.graph.trace import trace
from compress.inputs import Inputs, inputs_of
from compress.proof import (
    FILE_BATCHES,
    ConstantOutputsWarning,
    Passes,
    Proven,
    inputs_like,
    paired,
    prove_file,
    prove_same,
    running,
)


def prove(reference: nn.Module, candidate: nn.Module, example: object, tolerance: float = 1e-5) -> Proven:
    inputs = inputs_of(example)
    return prove_same(reference, candidate, [*inputs_like(reference, inputs, (2, 3)), inputs], tolerance)


def wrong(model: nn.Module, factor: float = 1.01) -> nn.Module:
    """A copy whose first parameter is off by one percent."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        next(copied.parameters()).mul_(factor)
    return copied


def refused(reference: nn.Module, candidate: nn.Module, example: object, match: str | None = None) -> None:
    with pytest.raises(ProofError, match=match):
        prove(reference, candidate, example)


class Wrapped(nn.Module):
    """A layer whose output is passed on by `wrap`."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.wrap = nn.Linear(6, 4), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x))


def function(forward: Callable[..., Any], *layers: nn.Module) -> nn.Module:
    """A network of `layers` whose forward is given."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return forward(self.layers, *args, **kwargs)

    return Own()


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)
    )


@pytest.fixture
def inputs() -> list[Inputs]:
    return [Inputs((torch.randn(rows, 1, 4, 4, generator=torch.Generator().manual_seed(rows)),)) for rows in (2, 5)]


# --- two networks ---


def test_a_copy_is_the_same_and_both_keep_their_modes(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[1].eval()
    before = [one.tensors[0].clone() for one in inputs]
    assert prove_same(network, candidate, inputs, 0.0) == Proven(0.0, "float32")
    assert network.training
    assert not candidate[1].training
    assert all(torch.equal(old, one.tensors[0]) for old, one in zip(before, inputs, strict=True))


def test_the_largest_difference_is_returned(network, inputs):
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        candidate[5].bias[1] += 1e-3
    assert prove_same(network, candidate, inputs, 0.1).difference == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("layer", [0, 3, 5])
def test_the_first_layer_that_differs_is_named(network, inputs, layer):
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        candidate[layer].weight += 0.1
        candidate[5].bias += 0.1
    with pytest.raises(ProofError, match=f"computes something else in '{layer}': the output differs by .*batch size"):
        prove_same(network, candidate, inputs, 1e-5)
    assert not any(module._forward_hooks for module in [*network.modules(), *candidate.modules()])


def test_a_layer_of_another_width_is_passed_over(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[3], candidate[5] = nn.Linear(64, 7), nn.Linear(7, 3)
    with pytest.raises(ProofError, match="computes something else in '5'"):
        prove_same(network, candidate, inputs, 1e-5)


def test_a_candidate_that_does_not_run_names_the_layer(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[3] = nn.Linear(63, 8)
    with pytest.raises(ProofError, match="The changed network fails in '3'"):
        prove_same(network, candidate, inputs, 1e-5)


def test_a_difference_outside_of_all_layers():
    refused(function(lambda _, x: x), function(lambda _, x: 2 * x), X, "the network's own forward")


def test_an_input_that_the_reference_refuses(network):
    with pytest.raises(InputError, match=r"does not run on an input of shape \[2, 3\]"):
        prove(network, network, torch.zeros(2, 3))


def test_an_interruption_leaves_no_hook(network, inputs):
    class Interrupted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    candidate = copy.deepcopy(network)
    candidate[4] = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        prove_same(network, candidate, inputs, 1e-5)
    assert not any(module._forward_hooks for module in [*network.modules(), *candidate.modules()])


# --- everything that is returned ---


class Keyed(dict):
    pass


class Listed(list):
    pass


class Tupled(tuple):
    __slots__ = ()


class Kept(dict):
    """A dict that has its tensor as an attribute only."""

    def __init__(self, y: Tensor) -> None:
        super().__init__(size=4)
        self.logits = y


Named = collections.namedtuple("Named", "logits")


@dataclasses.dataclass
class Result:
    logits: Tensor
    note: str = "fine"


class Slotted:
    __slots__ = ("logits",)

    def __init__(self, y: Tensor) -> None:
        self.logits = y


class Plain:
    def __init__(self, y: Tensor) -> None:
        self.inner, self.itself = {"y": [y]}, self


WRAPS: dict[str, Callable[[Tensor], Any]] = {
    "dict": lambda y: {"logits": y},
    "dict of its own": lambda y: Keyed(logits=y),
    "list of its own": lambda y: Listed([y]),
    "tuple of its own": lambda y: Tupled((y,)),
    "attribute of a dict": Kept,
    "UserDict": lambda y: collections.UserDict(logits=y),
    "UserList": lambda y: collections.UserList([y]),
    "OrderedDict": lambda y: collections.OrderedDict(logits=y),
    "deque": lambda y: collections.deque([y]),
    "named tuple": Named,
    "dataclass": Result,
    "slots": Slotted,
    "object": Plain,
    "nested": lambda y: ({"loss": None, "all": [y.sum(), Result(y)]},),
    "distribution": lambda y: torch.distributions.Categorical(logits=y),
    "normal": lambda y: torch.distributions.Normal(y, 1.0),
    "packed": lambda y: nn.utils.rnn.pack_sequence([row.unsqueeze(1) for row in y]),
    "sparse": lambda y: y.to_sparse(),
    "csr": lambda y: y.to_sparse_csr(),
    "number": lambda y: [y[:1], float(y.sum())],
    "array": lambda y: {"a": y[:, :1] * 0 + 1, "b": y.numpy()},
    "complex": lambda y: torch.complex(torch.ones_like(y), y),
    "conjugate": lambda y: torch.complex(torch.ones_like(y), y).conj(),
    "scalar": lambda y: y.sum(),
}


@pytest.mark.parametrize("how", WRAPS)
def test_outputs_in_any_container_count(how: str) -> None:
    model = Wrapped(WRAPS[how])
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # sparse CSR is in beta
        assert prove(model, copy.deepcopy(model), X).difference == 0
        refused(model, wrong(model), X, "differs|something else")


def test_outputs_of_transformers_count() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    model = Wrapped(lambda y: outputs.BaseModelOutput(last_hidden_state=y, hidden_states=(y, y)))
    assert prove(model, copy.deepcopy(model), X).difference == 0
    refused(model, wrong(model), X, "last_hidden_state")


@pytest.mark.parametrize(
    ("one", "other", "match"),
    [
        (lambda x: (x, 3), lambda x: (x, 4), r"\[1\] is 4, not 3"),
        (lambda x: (x, "a"), lambda x: (x, "b"), "'b', not 'a'"),
        (lambda x: (x, x), lambda x: (x,), "1 output instead of 2"),
        (lambda x: {"a": x}, lambda x: {"b": x}, r"the output\['a'\] is missing"),
        (lambda x: x, lambda x: x.double(), "has the dtype torch.float64, not torch.float32"),
        (lambda x: x, lambda x: x[:, :5], r"has the shape \[2, 5\], not \[2, 6\]"),
        (lambda x: (x, None), lambda x: (x, 1), "not None"),
        (lambda x: x, lambda x: None, "no tensor"),
    ],
)
def test_another_structure(one: Any, other: Any, match: str) -> None:
    refused(function(lambda _, x: one(x)), function(lambda _, x: other(x)), X, match)


def test_a_graph_may_return_a_dict_for_an_object() -> None:
    one, other = Wrapped(Result), Wrapped(lambda y: {"logits": y, "note": "fine"})
    assert prove(one, other, X).difference == 0


@pytest.mark.parametrize("returned", [lambda _: "done", lambda x: (x, iter(())), lambda x: {x}, lambda x: (x, len)])
def test_what_cannot_be_compared_is_refused(returned: Callable[[Tensor], Any]) -> None:
    model = Wrapped(returned)
    with pytest.raises(InputError, match=r"nothing to compare|cannot be compared|no order"):
        prove(model, model, X)


# --- numbers of every kind ---


@pytest.mark.parametrize("fill", [None, -1e4, -1e9, torch.finfo(torch.float32).min, -math.inf, math.inf, math.nan])
@pytest.mark.parametrize("fixed", [True, False])
def test_outputs_that_are_masked(fill: float | None, fixed: bool) -> None:
    def masked(y: Tensor) -> Tensor:
        where = torch.tensor([False, True, False, True]) if fixed else y > 0.5
        return y if fill is None else y.masked_fill(where, fill)

    model = Wrapped(masked)
    assert prove(model, copy.deepcopy(model), X).difference == 0
    refused(model, wrong(model, 1.001), X)


@pytest.mark.parametrize(
    ("one", "other"), [(math.inf, -math.inf), (math.nan, 0.0), (0.0, math.nan), (-math.inf, math.nan), (1e30, math.inf)]
)
def test_infinities_and_nan_count(one: float, other: float) -> None:
    place = torch.tensor([False, False, False, True])
    refused(Wrapped(lambda y: y.masked_fill(place, one)), Wrapped(lambda y: y.masked_fill(place, other)), X)


def test_nothing_but_nan_proves_nothing() -> None:
    model = wrong(nn.Linear(6, 2), math.nan)
    refused(model, copy.deepcopy(model), X, "NaN for every input")


def test_integers_are_equal_or_not() -> None:
    large = torch.tensor([2**53 + 1])
    one, other = (function(lambda _, x, more=more: (x, large + more)) for more in (0, -1))
    assert prove(one, copy.deepcopy(one), X).difference == 0
    refused(one, other, X, "differs in 1 of its 1 value, which are torch.int64")


def test_truth_values_are_equal_or_not() -> None:
    one, other = function(lambda _, x: x > 0), function(lambda _, x: x > 0.3)
    assert prove(one, copy.deepcopy(one), X).difference == 0
    refused(one, other, X, "torch.bool")


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3, 1e5])
def test_the_unit_is_how_much_an_output_varies(offset: float) -> None:
    model = Wrapped(lambda y: y + offset)
    assert prove(model, copy.deepcopy(model), X, 1e-6).difference == 0
    refused(model, wrong(model), X)


def test_small_columns_beside_large_ones() -> None:
    """As boxes in pixels beside probabilities."""

    def forward(layers: nn.ModuleList, x: Tensor) -> Tensor:
        return torch.cat([1e4 * layers[0](x), layers[1](x).sigmoid() / 100], 1)

    torch.manual_seed(0)
    right = function(forward, nn.Linear(6, 4), nn.Linear(6, 3))
    candidate = copy.deepcopy(right)
    candidate.layers[1].weight.data.mul_(1.01)
    assert prove(right, copy.deepcopy(right), X).difference == 0
    refused(right, candidate, X)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_tolerance_is_relative(scale: float) -> None:
    near, far = 1 + 0.2e-5, 1 + 10e-5
    model = nn.Linear(6, 1, bias=False).double()
    nn.init.constant_(model.weight, scale)
    assert prove(model, wrong(model, near), X.double()).difference > 0
    refused(model, wrong(model, far), X.double(), "differs by")


# --- precision ---


def deep(width: int = 32, depth: int = 40) -> nn.Module:
    """A network that magnifies rounding errors."""
    torch.manual_seed(0)
    layers = [nn.Linear(width, width) for _ in range(depth)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, 2.5)
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())), nn.Linear(width, 3))


class Halves(nn.Module):
    """A linear layer that adds up its two halves: the same except rounding."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        result: Tensor = x[..., half:] @ self.weight[:, half:].T + (x[..., :half] @ self.weight[:, :half].T + self.bias)
        return result


def in_halves(model: nn.Module) -> nn.Module:
    changed = copy.deepcopy(model)
    for name, module in list(changed.named_modules()):
        if isinstance(module, nn.Linear):
            changed.set_submodule(name, Halves(module))
    return changed


def test_rounding_of_deep_networks_is_told_from_mistakes() -> None:
    model, x = deep(), torch.randn(4, 32)
    other = in_halves(model)
    with torch.no_grad():
        assert (model(x) - other(x)).abs().max() > 1e-5 * model(x).abs().max()
    assert prove(model, other, x).precision == "float64"
    refused(model, wrong(other, 1.0001), x, "in float64")


class Placed(nn.Module):
    """Positions that the code makes in float32 pass a convolution and attention, as in XCiT of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.deep = nn.Conv1d(2, 32, 1), deep()

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], dtype=torch.float32)
        places = self.place(torch.stack([steps.sin(), steps.cos()])[None]).transpose(1, 2)
        attended = nn.functional.scaled_dot_product_attention(
            x + places, x, steps[None, :, None].expand_as(x[:1]).expand_as(x)
        )
        return self.deep(x + attended)


def test_constants_in_float32_do_not_keep_float64_from_deciding() -> None:
    torch.manual_seed(0)
    model, x = Placed(), torch.randn(4, 5, 32)
    other = in_halves(model)
    assert prove(model, other, x).precision == "float64"
    refused(model, wrong(other, 1.0001), x, "in float64")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_dtypes_are_decided_in_float64(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3)).to(dtype)
    x = torch.randn(4, 16, dtype=dtype)
    assert prove(model, in_halves(model), x).precision == "float64"
    candidate = in_halves(model)
    with torch.no_grad():
        candidate[4].weight.mul_(1.02)
        candidate[4].bias.mul_(1.02)
    refused(model, candidate, x, "in float64")


def test_dtypes_in_the_code_of_a_graph_follow() -> None:
    torch.manual_seed(0)
    graph = fx.symbolic_trace(Chain())
    other = fx.symbolic_trace(in_halves(Chain()))
    other.load_state_dict(graph.state_dict())
    assert prove(graph, other, X, 1e-9).precision == "float64"
    refused(graph, wrong(graph), X)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).to(torch.float32)
        return self.b(y + torch.ones(32, dtype=torch.float32)).type(torch.float32)


class OnlyFloat32(nn.Module):
    """Refuses float64, as its own kernel would."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("no kernel for float64")
        return x


def test_where_float64_cannot_run_rounding_is_no_excuse() -> None:
    model = nn.Sequential(deep(), OnlyFloat32())
    x = torch.randn(4, 32)
    refused(model, in_halves(model), x, "float64 cannot show whether that is rounding: no kernel for float64")


def test_where_float64_cannot_run_coarse_dtypes_have_a_bound() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3), OnlyFloat32()).bfloat16()
    x = torch.randn(4, 16, dtype=torch.bfloat16)
    assert prove(model, in_halves(model), x).precision == "bfloat16"
    refused(model, wrong(model, 1.5), x)


# --- random numbers ---


class Sampling(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.draw = nn.Linear(6, 4), nn.Linear(4, 2), draw

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.draw(self.body(x)))
        return result


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "randn_like": lambda y: y + torch.randn_like(y),
    "randn": lambda y: y + torch.randn(y.shape[0], 4),
    "dropout": lambda y: nn.functional.dropout(y, 0.5, training=True),
    "bernoulli": lambda y: y * torch.bernoulli(torch.full_like(y, 0.5)),
    "Python's": lambda y: y * random.random(),
    "numpy": lambda y: y * float(np.random.rand()),
}


@pytest.mark.parametrize("how", DRAWS)
def test_networks_that_draw_are_proven_with_equal_seeds(how: str) -> None:
    model = Sampling(DRAWS[how])
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    proven = prove(model, copy.deepcopy(model), X)
    assert proven.difference == 0
    assert "random" in proven.draws[0] or how in proven.draws[0] or "dropout" in how
    refused(model, wrong(model), X)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tobytes())


def test_another_number_of_random_numbers_names_what_draws() -> None:
    one, other = Sampling(DRAWS["randn_like"]), Sampling(lambda y: y + torch.randn(y.shape[0], 8)[:, ::2])
    refused(
        nn.Sequential(one),
        nn.Sequential(other),
        X,
        r"draws other random numbers .*randn_like in '0'.*give the network the noise",
    )


def test_a_network_with_a_generator_of_its_own_cannot_be_proven() -> None:
    generator = torch.Generator()
    model = Sampling(lambda y: y + torch.randn(y.shape, generator=generator))
    with pytest.raises(InputError, match=r"another output each time, for equal inputs and seeds .*randn"):
        prove(model, model, X)


def test_a_network_that_draws_nothing_names_nothing() -> None:
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert prove(attention, copy.deepcopy(attention), torch.randn(2, 5, 8)).draws == ()


# --- what proves nothing ---


def test_outputs_that_do_not_depend_on_the_inputs_warn() -> None:
    model = nn.Linear(6, 2)
    nn.init.constant_(model.weight, 1e-9)
    with pytest.warns(ConstantOutputsWarning, match="this proves nothing"):
        assert prove(model, copy.deepcopy(model), X).constant == ("the output",)
    both = Wrapped(lambda y: {"y": y, "anchors": torch.arange(3.0)})
    assert prove(both, copy.deepcopy(both), X).constant == ("the output['anchors']",)


# --- inputs ---


def drawn(model: nn.Module, example: object, size: int = 64) -> Inputs:
    (found,) = inputs_like(model, inputs_of(example), [size])
    return found


def test_floats_are_like_the_example() -> None:
    pixels = drawn(nn.Identity(), torch.rand(1, 3, 4, 4)).tensors[0]
    assert pixels.shape == (64, 3, 4, 4)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    for constant, least in ((0.0, -1.0), (1.0, 0.0)):
        values = drawn(nn.Identity(), torch.full((2, 8), constant)).tensors[0]
        assert values.std() > 0.5
        assert float(values.min()) < least if constant == 0 else float(values.min()) >= least


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(50, 8), nn.Embedding(3, 8)

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor | None = None) -> Tensor:
        y = self.words(ids.long()) + self.kinds(ids % 3 if kinds is None else kinds)
        return (y * mask.unsqueeze(-1)).sum(1)


def test_ids_come_from_the_whole_table() -> None:
    model = function(lambda layers, ids: layers[0](ids.view(-1, 4)[:, 1:].long() + 2).mean(1), nn.Embedding(20, 8))
    assert table_rows(trace(model, torch.zeros(2, 4, dtype=torch.int64))) == (18,)
    ids = drawn(model, torch.zeros(2, 4, dtype=torch.int64)).tensors[0]
    assert sorted(set(ids.flatten().tolist())) == list(range(18))


@pytest.mark.parametrize(
    ("look_up", "rows"),
    [
        (lambda table, ids: table.weight[ids], 20),
        (lambda table, ids: nn.functional.embedding_bag(ids, table.weight), 20),
        (lambda table, ids: torch.index_select(table.weight, 0, ids.flatten()).view(*ids.shape, -1), 20),
        (lambda table, ids: nn.functional.one_hot(ids, 7).float(), 7),
        (lambda table, ids: table(ids.clamp(0, 5)), None),
        (lambda table, ids: ids.float() * table.weight[0, 0], None),
    ],
)
def test_tables_of_every_kind(look_up: Callable[..., Tensor], rows: int | None) -> None:
    model = function(lambda layers, ids: look_up(layers[0], ids), nn.Embedding(20, 8))
    assert table_rows(trace(model, torch.zeros(2, 4, dtype=torch.int64))) == (rows,)


def test_other_integers_are_samples_of_the_example() -> None:
    lengths, mask = torch.tensor([3, 2, 1]), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    model = function(lambda _, x, lengths, mask: x * mask)
    x, some, masks = drawn(model, (torch.randn(3, 3), lengths, mask)).tensors
    assert torch.equal(masks.sum(1), some)
    assert torch.equal(some, some.sort(descending=True).values)
    assert x.shape == (64, 3)


def test_a_network_that_refuses_drawn_values_is_proven_on_the_examples() -> None:
    def forward(layers: nn.ModuleList, x: Tensor) -> Tensor:
        if not bool((x[:, 0] == 1).all()):
            raise ValueError("the first column must be 1")
        return layers[0](x)

    model = function(forward, nn.Linear(6, 2))
    example = torch.cat([torch.ones(4, 1), X[:, 1:]], 1)
    assert prove(model, copy.deepcopy(model), example).difference == 0
    refused(model, wrong(model), example)


def test_several_arguments() -> None:
    model = function(lambda layers, x, *, scale, flag: layers[0](x) * scale if flag else x, nn.Linear(6, 4))
    example = Inputs((X,), {"scale": torch.rand(4, 1), "flag": True})
    assert prove(model, copy.deepcopy(model), example).difference == 0
    refused(model, wrong(model), example)


@given(st.integers(1, 9), st.lists(st.integers(1, 4), max_size=3), st.sampled_from([torch.float32, torch.float64]))
def test_inputs_look_like_the_example(size: int, shape: list[int], dtype: torch.dtype) -> None:
    example = Inputs((torch.zeros(3, *shape, dtype=dtype),))
    (first,), (again,) = (list(inputs_like(nn.Identity(), example, [size])) for _ in range(2))
    assert first.tensors[0].shape == (size, *shape)
    assert first.tensors[0].dtype == dtype
    assert torch.equal(first.tensors[0], again.tensors[0])


# --- files ---


class TestProveFile:
    EXAMPLE = torch.randn(2, 3)

    def test_what_is_compared(self) -> None:
        model, seen = nn.Linear(3, 2), []

        def run(inputs: Inputs) -> Tensor:
            seen.append(inputs.tensors[0])
            with torch.no_grad():
                result: Tensor = inputs.call(model)
            return result

        assert prove_file(model, run, self.EXAMPLE, 0.0, "x.onnx").difference == 0.0
        assert [len(given) for given in seen] == list(FILE_BATCHES)
        assert model.training

    def test_a_file_that_computes_something_else(self) -> None:
        model = nn.Linear(3, 2)
        with pytest.raises(ProofError, match=r"^x\.onnx computes something else at batch size 1: the output differs"):
            prove_file(model, lambda inputs: inputs.call(wrong(model)).detach(), self.EXAMPLE, 1e-5, "x.onnx")

    def test_a_batch_size_that_became_a_constant(self) -> None:
        model = function(lambda _, x: x * 2)
        with pytest.raises(ProofError, match="at batch size 7"):
            prove_file(model, lambda inputs: inputs.tensors[0][:1] * 2, self.EXAMPLE, 1e-5, "x.pt2")

    def test_numbers_are_not_in_files(self) -> None:
        model = function(lambda _, x: {"loss": 0.5, "table": np.ones(3), "out": (x * 2, float("inf"))})
        prove_file(model, lambda inputs: [inputs.tensors[0] * 2], self.EXAMPLE, 1e-5, "x.onnx")

    @pytest.mark.parametrize(("factor", "right"), [(1 + 1e-6, True), (1 + 1e-4, False)])
    def test_outputs_that_hardly_vary_are_judged_by_their_magnitude(self, factor: float, right: bool) -> None:
        model = function(lambda _, x: 3.0 + 1e-9 * x)
        refused = nullcontext() if right else pytest.raises(ProofError, match="computes something else")
        with pytest.warns(ConstantOutputsWarning), refused:
            prove_file(model, lambda inputs: (3.0 + 1e-9 * inputs.tensors[0]) * factor, self.EXAMPLE, 1e-5, "x.onnx")

    def test_a_file_that_does_not_run(self) -> None:
        def run(inputs: Inputs) -> Tensor:
            raise RuntimeError("no such operator")

        with pytest.raises(ProofError, match=r"^x\.onnx fails at batch size 1: no such operator"):
            prove_file(nn.Identity(), run, self.EXAMPLE, 1e-5, "x.onnx")

    def test_a_model_that_does_not_run(self) -> None:
        with pytest.raises(InputError, match=r"does not run on an input of shape \[1, 3\]"):
            prove_file(nn.Linear(2, 2), lambda inputs: inputs.tensors[0], self.EXAMPLE, 1e-5, "x.onnx")

    def test_tensors_are_compared_in_order(self) -> None:
        model = function(lambda _, x: {"a": x, "loss": None, "b": (x + 1,)})
        assert prove_file(model, lambda i: [i.tensors[0], i.tensors[0] + 1], self.EXAMPLE, 0.0, "x").difference == 0.0
        with pytest.raises(ProofError, match=r"the output\['a'\] differs"):
            prove_file(model, lambda i: [i.tensors[0] + 1, i.tensors[0]], self.EXAMPLE, 1e-5, "x.onnx")

    def test_rounding_errors_like_the_networks_own_are_right(self) -> None:
        model = deep(depth=16)
        other = in_halves(model).eval()
        with torch.no_grad():
            proven = prove_file(model, lambda i: i.call(other), torch.randn(4, 32), 1e-6, "x.onnx")
        assert proven.precision == "float32, by its rounding errors"
        with pytest.raises(ProofError, match="where rounding explains"), torch.no_grad():
            prove_file(model, lambda i: i.call(wrong(other)), torch.randn(4, 32), 1e-6, "x.onnx")


def test_the_network_runs_once_for_several_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def counted(network: running.Network, call: Inputs) -> running.Ran:
        rows.append(call.rows)
        return run(network, call)

    run = running.run
    monkeypatch.setattr(running, "run", counted)
    network, example = nn.Linear(4, 3), inputs_of(torch.randn(1, 4))
    inputs, passes = [*inputs_like(network, example, (2, 3)), paired(example)], Passes()
    plain = copy.deepcopy(network)
    # The first candidate does not run, so that float64 has nothing to decide.
    with pytest.raises(ProofError, match=r"^The changed network fails: "):
        prove_same(network, nn.Linear(5, 3), inputs, 1e-5, passes, locate=False)
    assert prove_same(network, plain, inputs, 1e-5, passes) == Proven(0.0, "float32")
    assert rows == [1, 1, 1, 2, 3]


def test_outputs_that_later_passes_write_into_are_kept_for_the_next_candidate() -> None:
    class Reuses(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.register_buffer("memory", torch.zeros(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            found = self.get_buffer("memory")[: len(x)]
            return found.copy_(super().forward(x))

    network, example = Reuses(), inputs_of(torch.randn(1, 4))
    inputs, passes = [*inputs_like(network, example, (2, 3)), paired(example)], Passes()
    plain = nn.Linear(4, 3)
    plain.load_state_dict({"weight": network.weight, "bias": network.bias})
    for _ in range(2):
        assert prove_same(network, plain, inputs, 1e-5, passes).difference == 0.0
