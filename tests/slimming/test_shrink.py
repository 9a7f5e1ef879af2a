import contextlib
import copy
import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from compress import models
from compress.errors import CheckpointError, InputError, UnsupportedModelError
from compress.graph.coupling import Coupling, couplings
from compress.slimming.edits import ShapeEdit, apply_edits, edits_from_json, edits_to_json
from compress.slimming.shrink import slim
from compress.slimming.training import TrainingOnlyWarning


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Dropout(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6))


def conv() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 2)
    )


def deconv() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(6, 16), nn.Tanh(), nn.Unflatten(1, (4, 2, 2)), nn.ConvTranspose2d(4, 3, 3), nn.Softplus()),
        *(nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 2, 3), nn.Sigmoid()),
    )


IMAGE, VECTOR = (2, 1, 6, 6), (2, 6)
NETWORKS = [
    pytest.param(dense, VECTOR, id="dense"),
    pytest.param(conv, IMAGE, id="conv"),
    pytest.param(deconv, VECTOR, id="deconv"),
]


def kill(tensor: Tensor, dim: int, positions: list[int]) -> None:
    with torch.no_grad():
        tensor.index_fill_(dim, torch.tensor(positions, dtype=torch.int64), 0.0)


def largest_difference(a: nn.Module, b: nn.Module, given: Tensor) -> float:
    with torch.no_grad():
        return float((copy.deepcopy(a).eval()(given) - copy.deepcopy(b).eval()(given)).abs().max())


@functools.cache
def known(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[Coupling, ...]:
    return couplings(build(), torch.zeros(shape)).found


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_rows_biases_and_columns_of_dead_nodes_go():
    torch.manual_seed(0)
    model = dense()
    for name, dim in (("0.weight", 0), ("0.bias", 0), ("3.weight", 1)):
        kill(model.get_parameter(name), dim, [1, 4])
    small = slim(model, torch.randn(VECTOR))
    old, new = (copy.deepcopy(net.state_dict()) for net in (model, small))
    assert torch.equal(new["0.weight"], old["0.weight"][[0, 2, 3]])
    assert torch.equal(new["0.bias"], old["0.bias"][[0, 2, 3]])
    assert torch.equal(new["3.weight"], old["3.weight"][:, [0, 2, 3]])
    assert all(torch.equal(old[name], new[name]) for name in ("3.bias", "5.weight", "5.bias"))
    assert (small[0].out_features, small[3].in_features, small[3].out_features) == (3, 3, 4)
    assert largest_difference(model, small, torch.randn(50, 6)) <= 1e-6


def test_channels_go_with_their_blocks_of_columns():
    torch.manual_seed(0)
    model = conv()
    columns = [column for channel in (0, 2) for column in range(4 * channel, 4 * channel + 4)]
    for name, dim, positions in (("0.weight", 0, [0, 2]), ("0.bias", 0, [0, 2]), ("4.weight", 1, columns)):
        kill(model.get_parameter(name), dim, positions)
    small = slim(model, torch.randn(IMAGE))
    assert torch.equal(small[4].weight, model[4].weight[:, [4, 5, 6, 7, 12, 13, 14, 15]])
    assert (small[0].out_channels, small[4].in_features) == (2, 8)
    assert largest_difference(model, small, torch.randn(50, *IMAGE[1:])) <= 1e-6


def test_groups_of_linear_nodes_go_as_channels():
    torch.manual_seed(0)
    model = deconv()
    rows = [*range(4), *range(8, 12)]
    for name, positions in (("0.weight", rows), ("0.bias", rows), ("3.weight", [0, 2])):
        kill(model.get_parameter(name), 0, positions)
    kill(model[0].weight, 0, [5])  # one pixel of a channel that lives: remains
    small = slim(model, torch.randn(VECTOR))
    assert small[2].unflattened_size == (2, 2, 2)
    assert (small[0].out_features, small[3].in_channels, small[3].out_channels) == (8, 2, 3)
    assert torch.equal(small[0].weight, model[0].weight[[4, 5, 6, 7, 12, 13, 14, 15]])
    assert largest_difference(model, small, torch.randn(50, 6)) <= 1e-6


def test_a_node_with_a_row_and_a_column_left_stays():
    model = dense()
    for other, dim in (("0.weight", 0), ("0.bias", 0), ("3.weight", 1)):
        kill(model.get_parameter(other), dim, [1])
    with torch.no_grad():
        model[0].weight[1, 5] = model[3].weight[0, 1] = 1e-30
    assert shapes(slim(model, torch.randn(VECTOR))) == shapes(model)


@pytest.mark.filterwarnings("ignore:The outputs do not depend")  # all nodes of a width are dead
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("build", "shape"), NETWORKS)
@settings(max_examples=8, deadline=None)  # a trace takes as long as it takes
@given(seed=st.integers(0, 2**32), data=st.data())
def test_slim_computes_what_the_masked_network_does(build, shape, dtype, allowed, seed, data):
    torch.manual_seed(seed)
    model, example = build().to(dtype), torch.randn(shape, dtype=dtype)
    tensors, left = dict(model.named_parameters()), shapes(model)
    for coupling in known(build, shape):
        nodes = data.draw(st.sets(st.integers(0, coupling.size - 1)), label=coupling.name)
        for member in coupling.members:
            length = list(left[member.tensor])
            length[member.dim] = member.outer * max(1, coupling.size - len(nodes)) * member.inner
            left[member.tensor] = tuple(length)
            kill(
                tensors[member.tensor],
                member.dim,
                member.index(torch.tensor(sorted(nodes), dtype=torch.int64)).tolist(),
            )
    small = slim(model, example)
    assert largest_difference(model, small, torch.randn(9, *shape[1:], dtype=dtype)) <= allowed
    # What only dead nodes read is dead too, so that more may go.
    assert all(
        size <= most for name, shape in shapes(small).items() for size, most in zip(shape, left[name], strict=True)
    )
    again = slim(small, example)
    assert shapes(again) == shapes(small)
    assert again.shape_edits == small.shape_edits


@pytest.mark.parametrize(
    ("build", "example"), [(models.autoencoder, (2, 1, 28, 28)), (models.conv_autoencoder, (2, 3, 32, 32))]
)
def test_the_papers_latent_layers(build, example):
    torch.manual_seed(0)
    model = build()
    nodes = list(range(0, 64, 4))
    for name, dim in (("latent.weight", 0), ("latent.bias", 0), ("decoder.1.weight", 1)):
        kill(model.get_parameter(name), dim, nodes)
    small = slim(model, torch.randn(example))
    assert (small.latent.out_features, small.decoder[1].in_features) == (48, 48)
    assert largest_difference(model, small, torch.rand(7, *example[1:])) <= 1e-5


@pytest.mark.filterwarnings("ignore:The outputs do not depend")  # all nodes of a width are dead
def test_a_width_that_is_all_dead_keeps_one_node():
    model = dense()
    for parameter in (model[0].weight, model[0].bias, model[3].weight):
        kill(parameter, 0, list(range(len(parameter))))
    small = slim(model, torch.randn(VECTOR))
    assert small[0].out_features == small[3].in_features == 1
    assert largest_difference(model, small, torch.randn(9, 6)) <= 1e-6


def test_nothing_dead_gives_an_equal_copy():
    model = dense()
    small = slim(model, torch.randn(VECTOR))
    assert small is not model
    assert small.shape_edits == ()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), small.parameters(), strict=True))
    assert {p.data_ptr() for p in model.parameters()}.isdisjoint(p.data_ptr() for p in small.parameters())


@pytest.fixture
def half_dead() -> nn.Sequential:
    torch.manual_seed(0)
    model = deconv()
    kill(model[0].weight, 0, [0, 1, 2, 3])
    kill(model[0].bias, 0, [0, 1, 2, 3])
    kill(model[3].weight, 0, [0])
    return model


def test_the_original_and_its_optimizer_live_on_apart(half_dead):
    half_dead[3].weight.requires_grad_(False)
    half_dead[4].eval()
    before = copy.deepcopy(half_dead.state_dict())
    optimizer = torch.optim.AdamW(half_dead.parameters(), lr=0.1)
    small = slim(half_dead, torch.randn(VECTOR))
    assert all(torch.equal(before[name], tensor) for name, tensor in half_dead.state_dict().items())
    assert not hasattr(half_dead, "shape_edits")
    assert [module.training for module in small.modules()] == [module.training for module in half_dead.modules()]
    assert {name: p.requires_grad for name, p in small.named_parameters()} == {
        name: p.requires_grad for name, p in half_dead.named_parameters()
    }
    assert all(isinstance(p, nn.Parameter) and p.is_leaf and p.is_contiguous() for p in small.parameters())
    cut = copy.deepcopy(small.state_dict())
    half_dead(torch.randn(VECTOR)).sum().backward()
    optimizer.step()
    assert all(torch.equal(cut[name], tensor) for name, tensor in small.state_dict().items())
    small(torch.randn(VECTOR)).sum().backward()
    assert small[0].weight.grad.shape == (12, 6)


@pytest.mark.parametrize(("layer", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_channels_stay_last(layer, layout):
    """In weights and in the optimizer's averages, as `model.to(memory_format=...)` has made them."""
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[layer]
    model = nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 6, 3)).to(memory_format=layout)
    example = torch.randn(2, 3, *[7] * layer).to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(example).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        model[0].weight[::2] = 0
        model[0].bias[::2] = 0
    before = optimizer.state[model[2].weight]["momentum_buffer"].clone()
    expected = model(example)
    small = slim(model, example, optimizer=optimizer)
    assert small[0].weight.shape[0] == small[2].weight.shape[1] == 4
    for weight in (small[0].weight, small[2].weight):
        for tensor in (weight, optimizer.state[weight]["momentum_buffer"]):
            assert tensor.is_contiguous(memory_format=layout)
            assert not tensor.is_contiguous()
    assert torch.equal(optimizer.state[small[2].weight]["momentum_buffer"], before[:, 1::2])
    torch.testing.assert_close(small(example), expected)


def test_integer_inputs():
    class Scaled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float() / 9)

    torch.manual_seed(1)  # with 0, no ReLU passes anything
    model = Scaled(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for name, dim in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        kill(model.get_parameter(name), dim, [3])
    assert slim(model, torch.tensor([[1, 2, 3], [4, 5, 6]]))[0].out_features == 3


def test_masks_must_be_folded_first():
    model = dense()
    prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(InputError, match=r"finalize\(\)"):
        slim(model, torch.randn(VECTOR))


class Shares(nn.Module):
    """The first layer's nodes as shares of their sum, in which a dead node has one too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(self.a(x).softmax(-1))))


def test_dead_nodes_that_nothing_can_cut_are_refused_by_name():
    model = Shares()
    for name, dim in (("a.weight", 0), ("a.bias", 0), ("b.weight", 1)):
        kill(model.get_parameter(name), dim, [2, 3])
    with pytest.raises(UnsupportedModelError, match=r"2 of the 6 nodes of the layer 'a' .*: aten.softmax"):
        slim(model, torch.randn(VECTOR))


def test_what_is_understood_is_cut_beside_what_is_not():
    model = Shares()
    kill(model.a.weight, 0, [2])
    for name, dim in (("a.bias", 0), ("b.weight", 0), ("b.bias", 0), ("c.weight", 1)):
        kill(model.get_parameter(name), dim, [2])
    small = slim(model, torch.randn(VECTOR))
    assert (small.a.out_features, small.b.out_features, small.c.in_features) == (6, 4, 4)


def test_zero_rows_of_the_output_are_no_dead_nodes():
    model = dense()
    kill(model[5].weight, 0, [0])
    kill(model[5].bias, 0, [0])
    assert shapes(slim(model, torch.randn(VECTOR))) == shapes(model)


class Counting(nn.Module):
    """Its code depends on the width in a way that no attribute can change."""

    def __init__(self, count) -> None:
        super().__init__()
        self.a, self.b, self.count = nn.Linear(6, 4), nn.Linear(4, 2), count

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.count(self.a(x)))


def _average(x: Tensor) -> Tensor:
    return x / x.shape[1]


def _insist(x: Tensor) -> Tensor:
    assert x.shape[1] == 4
    return x


def _by_number(x: Tensor) -> Tensor:
    return x.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4)


@pytest.mark.parametrize("count", [_average, _insist, _by_number])
def test_code_that_depends_on_the_width_is_left_for_the_traced_graph(count):
    torch.manual_seed(0)
    model = Counting(count)
    kill(model.a.weight, 0, [0, 1])
    kill(model.a.bias, 0, [0, 1])
    kill(model.b.weight, 1, [0, 2] if count is _by_number else [0, 1])
    small = slim(model, torch.randn(VECTOR))
    assert isinstance(small, torch.fx.GraphModule)
    assert shapes(small) == {"a.weight": (2, 6), "a.bias": (2,), "b.weight": (2, 2), "b.bias": (2,)}
    for rows in (1, 9):
        assert largest_difference(model, small, torch.randn(rows, 6)) <= 1e-6
    rebuilt = apply_edits(Counting(count), edits_from_json(edits_to_json(small.shape_edits)))
    rebuilt.load_state_dict(small.state_dict())
    assert largest_difference(rebuilt, small, torch.randn(5, 6)) == 0
    assert rebuilt.shape_edits == small.shape_edits


def test_reload_through_edits_and_a_state_dict(half_dead):
    small = slim(half_dead, torch.randn(VECTOR))
    assert ShapeEdit("attribute", "2.unflattened_size", 0, 4, 3) in small.shape_edits
    edits = edits_from_json(edits_to_json(small.shape_edits))
    assert edits == small.shape_edits
    rebuilt = apply_edits(deconv(), edits)
    rebuilt.load_state_dict(small.state_dict())
    assert str(rebuilt) == str(small)
    given = torch.randn(5, 6)
    assert torch.equal(rebuilt.eval()(given), small.eval()(given))


def test_slimming_twice_composes_the_edits(half_dead):
    small = slim(half_dead, torch.randn(VECTOR))
    kill(small[0].weight, 0, [4, 5, 6, 7])
    kill(small[0].bias, 0, [4, 5, 6, 7])
    kill(small[3].weight, 0, [1])
    smaller = slim(small, torch.randn(VECTOR))
    assert ShapeEdit("tensor", "0.weight", 0, 16, 8) in smaller.shape_edits
    assert ShapeEdit("attribute", "2.unflattened_size", 0, 4, 2) in smaller.shape_edits
    rebuilt = apply_edits(deconv(), smaller.shape_edits)
    rebuilt.load_state_dict(smaller.state_dict())
    assert rebuilt[2].unflattened_size == (2, 2, 2)
    assert largest_difference(rebuilt, smaller, torch.randn(5, 6)) == 0
    assert largest_difference(rebuilt, small, torch.randn(5, 6)) <= 1e-6


ROW = ShapeEdit("tensor", "0.weight", 0, 16, 12)


@pytest.mark.parametrize(
    "edit",
    [
        replace(ROW, name="9.weight"),
        replace(ROW, name=""),
        replace(ROW, index=2),
        replace(ROW, index=-1),
        replace(ROW, before=12, after=8),
        replace(ROW, after=0),
        replace(ROW, after=-3),
        replace(ROW, after=17),
        replace(ROW, after=10**12),
        ShapeEdit("attribute", "2.unflattened_size", 3, 2, 1),
        ShapeEdit("attribute", "2.unflattened_size", 0, 5, 1),
        ShapeEdit("attribute", "2.dim", 0, 1, 1),
        ShapeEdit("attribute", "0.unflattened_size", 0, 4, 1),
        ShapeEdit("attribute", "2.__class__", 0, 4, 1),
        ShapeEdit("attribute", "7.unflattened_size", 0, 4, 1),
        ROW,
    ],
)
def test_edits_that_do_not_fit_change_nothing(edit):
    model = deconv()
    before, text = copy.deepcopy(model.state_dict()), str(model)
    good = ShapeEdit("attribute", "2.unflattened_size", 0, 4, 3)
    with pytest.raises(CheckpointError, match="shape edit"):
        apply_edits(model, [good, replace(ROW, name="0.bias"), *([ROW] if edit is ROW else []), edit])
    assert str(model) == text
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


VALID = {"kind": "tensor", "name": "0.weight", "index": 0, "before": 16, "after": 12}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "null",
        "{}",
        "[1]",
        "[[]]",
        "[{}]",
        json.dumps([VALID | {"kind": "code"}]),
        json.dumps([VALID | {"index": "0"}]),
        json.dumps([VALID | {"index": True}]),
        json.dumps([VALID | {"after": 12.0}]),
        json.dumps([VALID | {"after": None}]),
        json.dumps([VALID | {"extra": 1}]),
        json.dumps([{key: value for key, value in VALID.items() if key != "kind"}]),
        json.dumps([VALID])[:-2] + ', "after": 11}]',
    ],
)
def test_malformed_lists_of_edits_are_refused(text):
    with pytest.raises(CheckpointError, match="shape edit"):
        edits_from_json(text)


def test_a_list_of_edits_in_json():
    assert edits_from_json(json.dumps([VALID])) == (ROW,)
    assert edits_from_json("[]") == ()


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    ).map(json.dumps)
)
def test_any_other_text_is_refused_too(text):
    with contextlib.suppress(CheckpointError):
        assert edits_from_json(text) == ()


@pytest.mark.parametrize("make", [torch.optim.AdamW, functools.partial(torch.optim.SGD, momentum=0.9)])
def test_an_optimizer_goes_on_with_the_slim_network(make):
    torch.manual_seed(0)
    model, given = dense().eval(), torch.randn(VECTOR)
    optimizer = make([{"params": [*model[0].parameters()], "lr": 0.1}, {"params": [*model[3].parameters()]}], lr=0.01)

    def step(net: nn.Module) -> None:
        optimizer.zero_grad()
        net(given).square().sum().backward()
        optimizer.step()

    step(model)
    for name, dim in (("0.weight", 0), ("0.bias", 0), ("3.weight", 1)):
        kill(model.get_parameter(name), dim, [1, 4])
    old = {name: dict(optimizer.state.get(parameter, {})) for name, parameter in model.named_parameters()}
    small = slim(model, given, optimizer=optimizer)
    groups = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    assert groups == [[id(parameter) for parameter in small[index].parameters()] for index in (0, 3)]
    assert len(optimizer.state) == 4
    for key, value in optimizer.state[small[3].weight].items():
        expected = old["3.weight"][key]
        assert torch.equal(value, expected[:, [0, 2, 3]] if value.ndim else expected)
    # The dead nodes' gradients do not matter to the others: both go on alike.
    before = [parameter.detach().clone() for parameter in small.parameters()]
    step(small)
    assert all(not torch.equal(*pair) for pair in zip(before[:4], list(small.parameters())[:4], strict=True))


@pytest.mark.parametrize(
    "edit",
    [
        ShapeEdit("number", "view.size", 2, 8, 4),
        ShapeEdit("number", "view_9.size", 2, 2, 1),
        ShapeEdit("number", "view.size", 2, 2, 3),
        ShapeEdit("input", "float32", 1, 5, 5),
        ShapeEdit("input", "device", 0, 2, 2),
        ShapeEdit("input", "float32", 0, 2**40, 2**40),
        ShapeEdit("input", "float32", 1, 2**63, 2**63),
        ShapeEdit("input", "float32", 1, -6, -6),
        ShapeEdit("input", "int1", 0, 2, 2),
    ],
)
def test_tampered_edits_of_a_traced_network_are_refused(edit):
    """The sizes and numbers must be those of the network."""
    good = [ShapeEdit("input", "float32", 0, 2, 2), ShapeEdit("input", "float32", 1, 6, 6)]
    edits = (
        [edit, *good[1:]] if edit.kind == "input" and edit.index == 0 else [*good[: edit.kind == "input" or 2], edit]
    )
    with pytest.raises(CheckpointError, match="shape edit"):
        apply_edits(Counting(_by_number), edits)


def test_edits_that_would_trace_or_grow_without_end():
    inputs = [ShapeEdit("input", "float32", 0, 2, 2), ShapeEdit("input", "float32", 1, 6, 6)]
    layers = [ShapeEdit("bottleneck", "0" + ".axes" * number, 0, 6, 6) for number in range(100)]
    for edits in (inputs * 100, layers):
        with pytest.raises(CheckpointError, match=r"are of 10[01] slimmings; 64 is the most"):
            apply_edits(nn.Sequential(nn.Linear(6, 6)), edits)


class Auxiliary(nn.Module):
    """A second head in training alone, as GoogLeNet has."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head, self.second = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> object:
        features = self.trunk(x).relu()
        return (self.head(features), self.second(features)) if self.training else self.head(features)


def test_what_training_alone_reads_is_named() -> None:
    torch.manual_seed(0)
    model, x = Auxiliary().eval(), torch.randn(4, 6)
    with torch.no_grad():
        model.trunk.weight[:4] = model.trunk.bias[:4] = 0
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(TrainingOnlyWarning, match=r"does not run in training mode.*does not use second"):
        small = slim(model, x)
    assert small.trunk.weight.shape == (4, 6)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    del model.second
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slim(model, x)  # the network itself does not run in training mode
