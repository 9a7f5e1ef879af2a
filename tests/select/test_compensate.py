"""Against numpy's least squares, whose matrix is found by brute force: what the network gives for one weight alone."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import compress
from compress.errors import InputError
from compress.graph.coupling import couplings, masks_of
from compress.select.compensate import compensate
from compress.select.compensation.calls import calls_of
from compress.select.compensation.fit import squares_of
from compress.select.compensation.lockstep import Meeting, Normalizes, Sides


@pytest.fixture(autouse=True)
def without_a_ridge(monkeypatch):
    """Plain least squares, as numpy's."""
    monkeypatch.setattr("compress.select.compensation.fit.RIDGE", 1e-5)


class Summed(nn.Module):
    """Two layers write a residual stream, a norm over it follows, and `last` reads it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.norm(x + self.second(x.tanh()).relu()))


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 4), nn.Linear(5, 3), nn.Linear(7, 2)

    def forward(self, x):
        return self.last(torch.cat([self.second(x).tanh(), self.first(x).relu()], dim=-1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as in GPT-2."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.weight, self.bias = nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        x = self.first(x).tanh().flatten(0, 1)
        return torch.addmm(self.bias, x, self.weight)


def chain(*layers):
    return lambda: nn.Sequential(*(make() for make in layers))


def conv(*args, kind=nn.Conv2d, **kwargs):
    return lambda: kind(*args, **kwargs)


# name -> (network, shape of a sample, layer whose nodes are pruned, the weight that is fitted, its bias)
KINDS = {
    "linear": (chain(conv(5, 6, kind=nn.Linear), nn.Tanh, conv(6, 3, kind=nn.Linear)), (5,), "0", "2.weight", "2.bias"),
    "without a bias": (
        chain(conv(5, 6, kind=nn.Linear), nn.Tanh, conv(6, 3, bias=False, kind=nn.Linear)),
        (5,),
        "0",
        "2.weight",
        None,
    ),
    "convolution": (chain(conv(2, 6, 3), nn.Tanh, conv(6, 2, 3)), (2, 8, 8), "0", "2.weight", "2.bias"),
    "padded": (
        chain(conv(2, 4, 3), nn.ReLU, conv(4, 2, 3, padding=2, stride=2, dilation=2)),
        (2, 9, 9),
        "0",
        "2.weight",
        "2.bias",
    ),
    "padded by name": (
        chain(conv(2, 4, 3), nn.ReLU, conv(4, 2, (2, 3), padding="same")),
        (2, 6, 6),
        "0",
        "2.weight",
        "2.bias",
    ),
    "reflected": (
        chain(conv(2, 4, 3), nn.ReLU, conv(4, 2, 3, padding=1, padding_mode="reflect")),
        (2, 6, 6),
        "0",
        "2.weight",
        "2.bias",
    ),
    "grouped": (chain(conv(2, 8, 3), nn.Tanh, conv(8, 4, 3, groups=2)), (2, 7, 7), "0", "2.weight", "2.bias"),
    "behind a depthwise one": (
        chain(conv(2, 6, 1), conv(6, 6, 3, groups=6), nn.ReLU, conv(6, 2, 1)),
        (2, 7, 7),
        "0",
        "3.weight",
        "3.bias",
    ),
    "transposed": (
        chain(conv(2, 4, 3), nn.ReLU, conv(4, 3, 3, stride=2, padding=1, output_padding=1, kind=nn.ConvTranspose2d)),
        (2, 6, 6),
        "0",
        "2.weight",
        "2.bias",
    ),
    "transposed, grouped": (
        chain(conv(2, 8, 3), nn.ReLU, conv(8, 4, 3, groups=2, dilation=2, kind=nn.ConvTranspose2d)),
        (2, 5, 5),
        "0",
        "2.weight",
        "2.bias",
    ),
    "one dimension": (
        chain(conv(2, 5, 3, kind=nn.Conv1d), nn.Tanh, conv(5, 2, 3, kind=nn.Conv1d)),
        (2, 9),
        "0",
        "2.weight",
        "2.bias",
    ),
    "three dimensions": (
        chain(conv(1, 4, 2, kind=nn.Conv3d), nn.Tanh, conv(4, 2, 2, stride=2, kind=nn.Conv3d)),
        (1, 5, 5, 5),
        "0",
        "2.weight",
        "2.bias",
    ),
    "flattened": (
        chain(conv(1, 4, 3), nn.Tanh, nn.Flatten, conv(36, 2, kind=nn.Linear)),
        (1, 5, 5),
        "0",
        "3.weight",
        "3.bias",
    ),
    "residual sum": (Summed, (5,), "first", "last.weight", "last.bias"),
    "concatenation": (Joined, (5,), "first", "last.weight", "last.bias"),
    "attention": (Attention, (4, 8), "attention", "attention.out_proj.weight", "attention.out_proj.bias"),
    "addmm": (Conv1D, (3, 5), "first", "weight", "bias"),
}


def batches(shape, count=6, rows=20):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(rows, *shape, generator=generator) for _ in range(count)]


def pruned_with(model, masks):
    model = copy.deepcopy(model)
    for name, mask in masks.items():
        model.get_parameter(name).data.mul_(mask)
    return model


def fitted(model, masks, data):
    """The network with zeros, adjusted to make up for them."""
    adjusted, traces = copy.deepcopy(model), {}
    compensate(adjusted, masks, calls_of(adjusted, data, traces), traces)
    return pruned_with(adjusted, masks)


def half_of(model, layer, example):
    known = couplings(model, example)
    coupling = known.of(layer)
    return masks_of(model, {coupling: torch.arange(coupling.size) % 2 == 0})


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_weights_come_closer_to_the_dense_network(kind):
    build, shape, layer, weight, bias = KINDS[kind]
    torch.manual_seed(0)
    model = build().eval()
    data = batches(shape)
    masks = half_of(model, layer, data[0])
    inputs = torch.cat(data)
    found = fitted(model, masks, data)
    with torch.no_grad():
        wanted, plain, now = model(inputs), pruned_with(model, masks)(inputs), found(inputs)
        columns = []
        for name in filter(None, (weight, bias)):
            mask = masks.get(name, torch.ones_like(model.get_parameter(name), dtype=torch.bool))
            for place in mask.flatten().nonzero().flatten():
                alone = {one: torch.zeros_like(model.get_parameter(one)) for one in (weight, bias) if one}
                alone[name].view(-1)[place] = 1.0
                columns.append(functional_call(found, alone, (inputs,)).flatten())
    matrix = torch.stack(columns, 1).double().numpy()
    best = np.linalg.lstsq(matrix, wanted.flatten().double().numpy(), rcond=None)[0]
    least = float(np.square(matrix @ best - wanted.flatten().double().numpy()).mean())
    error = float((now - wanted).square().mean())
    assert least * 0.999 <= error <= least * 1.01 + 1e-6
    assert error < 0.9 * float((plain - wanted).square().mean())


def test_nodes_that_others_say_linearly_are_not_missed(monkeypatch):
    """Two of six nodes are linear in the others: without them the network computes the same."""
    monkeypatch.setattr("compress.select.compensation.fit.RIDGE", 1e-3)  # the others are not independent either
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Identity(), nn.Conv2d(6, 3, 3))
    with torch.no_grad():
        model[0].weight[1] = 2 * model[0].weight[0] - model[0].weight[3]
        model[0].bias[1] = 2 * model[0].bias[0] - model[0].bias[3] + 0.7
        model[0].weight[4], model[0].bias[4] = model[0].weight[5], model[0].bias[5]
    example = torch.randn(9, 2, 8, 8)
    keep = {
        known: torch.tensor([True, False, True, True, False, True]) for known in [couplings(model, example).of("0")]
    }
    found = fitted(model, masks_of(model, keep), batches((2, 8, 8)))
    torch.testing.assert_close(found(example), model(example), rtol=1e-3, atol=1e-3)
    assert model.training


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, layers=1, both=False):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.states = kind(8, 6, layers, batch_first=True, bidirectional=both)
        self.last = nn.Linear(12 if both else 6, 2)

    def forward(self, x):
        return self.last(self.states(self.first(x).tanh())[0])


def test_the_gates_of_an_lstm_are_fitted_to_their_sums():
    torch.manual_seed(0)
    model = Recurrent()
    data = batches((7, 5))
    masks = half_of(model, "first", data[0])
    found = fitted(model, masks, data)
    keep = masks["first.bias"].numpy()
    nodes = model.first(torch.cat(data)).tanh().flatten(0, 1).detach().double().numpy()
    weight, bias = (
        model.states.get_parameter(f"{name}_ih_l0").detach().double().numpy() for name in ("weight", "bias")
    )
    columns = np.concatenate([nodes[:, keep], np.ones((len(nodes), 1))], 1)
    best = np.linalg.lstsq(columns, nodes @ weight.T + bias, rcond=None)[0]
    np.testing.assert_allclose(found.states.weight_ih_l0.detach().numpy()[:, keep], best[:-1].T, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(found.states.bias_ih_l0.detach().numpy(), best[-1], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("kind", "layers", "both"), [(nn.LSTM, 2, True), (nn.GRU, 2, False), (nn.RNN, 1, True), (nn.GRU, 1, True)]
)
@pytest.mark.parametrize("layer", ["first", "states"])
def test_recurrent_layers_come_closer(kind, layers, both, layer):
    torch.manual_seed(0)
    model = Recurrent(kind, layers, both)
    data = batches((7, 5))
    masks = half_of(model, layer, data[0])
    inputs = torch.cat(data)
    wanted, plain, found = (one(inputs) for one in (model, pruned_with(model, masks), fitted(model, masks, data)))
    assert (found - wanted).square().mean() < 0.5 * (plain - wanted).square().mean()


def test_each_row_of_a_weight_has_its_own_zeros():
    """The surgeon's answer for a given mask, by brute force: least squares of each row over what it keeps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    inputs = torch.randn(200, 6) @ torch.randn(6, 6)
    mask = torch.rand(4, 6) < 0.5
    mask[2] = False
    found = fitted(model, {"0.weight": mask}, [inputs])
    wanted = model(inputs).detach().double().numpy()
    for row in range(4):
        kept = mask[row].numpy()
        columns = np.concatenate([inputs.double().numpy()[:, kept], np.ones((200, 1))], 1)
        best = np.linalg.lstsq(columns, wanted[:, row], rcond=None)[0]
        if kept.any():
            np.testing.assert_allclose(found[0].weight[row].detach().numpy()[kept], best[:-1], rtol=2e-2, atol=5e-3)
    assert not found[0].weight[~mask].any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_statistics_of_batches_of_any_dtype_are_those_of_numpy(kind):
    """Of means that are large beside the deviations, which would be lost in a sum of squares, or in 8 bits."""
    batches = [(50 + torch.randn(rows, 3, 4, 4)).to(kind) for rows in (5, 2)]
    mean, variance = statistics_of(batches)
    every = torch.cat(batches).double().numpy().swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(mean.numpy(), every.mean(1), rtol=1e-6)
    np.testing.assert_allclose(variance.numpy(), every.var(1), rtol=1e-5)


@pytest.mark.parametrize("sizes", [(), (6,), (2, 3), (1, 2, 3)])
def test_statistics_are_those_of_all_positions_of_all_samples(sizes, monkeypatch):
    monkeypatch.setattr("compress.select.compensation.lockstep._CACHED", 40)  # the samples are taken a few at a time
    batches = [torch.randn(rows, 3, *sizes).cumsum(0) for rows in (8, 1, 5)]
    mean, variance = statistics_of(batches)
    every = torch.cat(batches).double().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(mean.numpy(), every.mean(1), rtol=1e-5)
    np.testing.assert_allclose(variance.numpy(), every.var(1), rtol=1e-5)


def statistics_of(batches):
    stops = [Normalizes(None, None, Sides(values, values)) for values in batches]
    return Meeting(0, stops, [len(values) / sum(map(len, batches)) for values in batches]).statistics(0)


def test_norms_have_the_statistics_of_what_reaches_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    data = batches((2, 8, 8))
    for inputs in data:
        model(inputs)
    model.eval()
    inputs = torch.cat(data)
    with torch.no_grad():  # those of these very samples
        seen = model[:3](inputs)
        model[3].running_mean.copy_(seen.mean((0, 2, 3)))
        model[3].running_var.copy_(seen.var((0, 2, 3), correction=0))
    found = fitted(model, half_of(model, "0", inputs), data)
    seen = found[:3](inputs)
    torch.testing.assert_close(found[3].running_mean, seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[3].running_var, seen.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-4)


class Twice(nn.Module):
    """`shared` is called twice, and `tied` has the weight of an embedding: neither can be fitted, and `last` can."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.shared, self.last = nn.Linear(8, 8), nn.Linear(8, 20)
        self.tied = nn.Linear(8, 20, bias=False)
        self.tied.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.shared(self.shared(x).relu())
        return self.tied(x), self.last(x)


def test_weights_with_several_uses_stay_and_the_rest_is_fitted():
    torch.manual_seed(0)
    model, tokens = Twice(), torch.randint(0, 20, (64, 5))
    masks = half_of(model, "shared", tokens)
    adjusted, traces = copy.deepcopy(model), {}
    compensate(adjusted, masks, calls_of(adjusted, [tokens], traces), traces)
    for name in ("embed.weight", "shared.weight", "shared.bias"):
        assert torch.equal(adjusted.get_parameter(name), model.get_parameter(name))
    assert not torch.equal(adjusted.last.weight, model.last.weight)
    wanted, plain, found = (one(tokens)[1] for one in (model, pruned_with(model, masks), pruned_with(adjusted, masks)))
    assert (found - wanted).square().mean() < 0.8 * (plain - wanted).square().mean()


class TiedByProduct(nn.Module):
    """A head that is the transposed embedding, and a recurrent layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.states = nn.Embedding(20, 8), nn.Linear(8, 8), nn.GRU(8, 8, batch_first=True)

    def forward(self, tokens):
        x = self.inner(self.embed(tokens)).relu()
        return self.states(self.states(x)[0])[0] @ self.embed.weight.T


def test_views_of_one_weight_are_several_uses():
    torch.manual_seed(0)
    model, tokens = TiedByProduct(), torch.randint(0, 20, (64, 5))
    masks = half_of(model, "states", tokens) | half_of(model, "embed", tokens)
    adjusted, traces = copy.deepcopy(model), {}
    compensate(adjusted, masks, calls_of(adjusted, [tokens], traces), traces)
    changed = {
        name for name, value in adjusted.state_dict().items() if not torch.equal(value, model.state_dict()[name])
    }
    assert changed == {"inner.weight", "inner.bias"}


def test_sentences_of_several_lengths_are_fitted_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    masks = half_of(model, "1", torch.zeros(2, 4, dtype=torch.long))
    data = [torch.randint(0, 20, (16, length)) for length in (3, 5, 9)]
    found = fitted(model, masks, data)
    for tokens in data:
        errors = [(one(tokens) - model(tokens)).square().mean() for one in (found, pruned_with(model, masks))]
        assert errors[0] < errors[1]


def test_nan_is_refused_and_nothing_changes():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    before = copy.deepcopy(model.state_dict())
    masks = half_of(model, "0", torch.zeros(2, 5))
    with pytest.raises(InputError, match="NaN or infinite"):
        fitted_in_place(model, masks, [torch.full((8, 5), torch.nan)])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def fitted_in_place(model, masks, data):
    traces = {}
    compensate(model, masks, calls_of(model, data, traces), traces)


def test_no_batches_are_refused():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(InputError, match="there is no sample"):
        compress.prune(model, torch.zeros(2, 5), sparsity=0.5, batches=[], criterion="norms")


def test_large_samples_are_few(monkeypatch):
    monkeypatch.setattr("compress.select.compensation.calls.NUMBERS", 700)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    found = calls_of(
        model, [torch.zeros(8, 1, 5, 5), torch.zeros(8, 1, 5, 5), F.pad(torch.zeros(8, 1, 3, 3), (1,) * 4)], {}
    )
    assert [call.rows for call in found] == [8, 8, 3]  # 36 numbers of a sample at once


@pytest.mark.parametrize("entries", [3, 511, 512, 700])
def test_squares_are_products_of_all_pairs_of_entries(entries):
    rows = torch.randn(2, 9, entries, dtype=torch.float64)
    torch.testing.assert_close(squares_of(rows), torch.einsum("gri,grj->gij", rows, rows))


def test_large_calls_are_divided_into_equal_parts(monkeypatch):
    monkeypatch.setattr("compress.select.compensation.calls.PART", 36 * 3)  # numbers of three samples
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    every = [torch.randn(rows, 1, 5, 5) for rows in (8, 3, 4, 1)]
    found = calls_of(model, every, {})
    assert [call.rows for call in found] == [2, 3, 3, 3, 2, 2, 1]
    assert torch.equal(torch.cat([call.tensors[0] for call in found]), torch.cat(every))
