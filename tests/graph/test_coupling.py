import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compress import models
from compress.errors import InputError, TargetError, UnsupportedModelError
from compress.graph.coupling import Couplings, Member, couplings
from compress.graph.flow import Number


class Net(nn.Module):
    """Named parts, and a forward given as a function of them."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


@pytest.fixture(scope="module")
def autoencoder() -> Couplings:
    return couplings(models.autoencoder(), torch.zeros(2, 1, 28, 28))


@pytest.fixture(scope="module")
def conv_autoencoder() -> Couplings:
    return couplings(models.conv_autoencoder(), torch.zeros(2, 3, 32, 32))


def test_a_dense_chain_couples_each_layer_with_the_next(autoencoder):
    assert autoencoder.of("latent").members == (
        Member("latent.weight", 0, "writes", 64),
        Member("latent.bias", 0, "writes", 64),
        Member("decoder.1.weight", 1, "reads", 64),
    )
    assert [coupling.size for coupling in autoencoder.found] == [512, 256, 128, 128, 64, 128, 128, 256, 512]
    assert autoencoder.kept == {"decoder.9": "it is the network's output"}
    assert autoencoder.stuck == ()


def test_channels_are_blocks_of_columns_behind_flatten(conv_autoencoder):
    assert conv_autoencoder.of("encoder.10").members[-1] == Member("latent.weight", 1, "reads", 128, inner=9)


def test_nodes_of_a_linear_are_channels_before_unflatten(conv_autoencoder):
    coupling = conv_autoencoder.of("decoder.1")
    assert coupling.size == 8
    assert coupling.members == (
        Member("decoder.1.weight", 0, "writes", 8, inner=9),
        Member("decoder.1.bias", 0, "writes", 8, inner=9),
        Member("decoder.4.weight", 0, "reads", 8),
    )
    left = {coupling: 5}
    unflattened = Number("attribute", "decoder.3.unflattened_size", 0)
    assert list(conv_autoencoder.resized(left, "attribute")) == [(unflattened, 8, 5)]


def test_a_transposed_convolution_writes_its_second_dimension(conv_autoencoder):
    assert conv_autoencoder.of("decoder.4").members == (
        Member("decoder.4.weight", 1, "writes", 128),
        Member("decoder.4.bias", 0, "writes", 128),
        Member("decoder.7.weight", 0, "reads", 128),
    )


@given(outer=st.integers(1, 4), size=st.integers(1, 5), inner=st.integers(1, 4), data=st.data())
def test_index_is_where_the_nodes_lie_in_a_reshaped_dimension(outer, size, inner, data):
    nodes = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    positions = np.arange(outer * size * inner).reshape(outer, size, inner)[:, nodes, :].reshape(-1)
    found = Member("w", 0, "writes", size, outer, inner).index(torch.tensor(nodes, dtype=torch.int64))
    assert found.dtype == torch.int64
    assert found.tolist() == positions.tolist()


@given(*(st.integers(1, 3) for _ in range(3)), *(st.integers(0, 3) for _ in range(2)), st.integers(0, 2))
def test_matrix_is_what_belongs_to_each_node_between_others(outer, size, inner, before, after, dim):
    """As in a concatenation: in each of `outer` stretches of the dimension others lie before and after the nodes."""
    step = before + size * inner + after
    shape = [2, 3]
    shape.insert(dim, outer * step)
    values = np.random.default_rng(0).normal(size=shape)
    stretches = np.moveaxis(values, dim, 0).reshape(outer, step, -1)[:, before : before + size * inner]
    expected = np.moveaxis(stretches.reshape(outer, size, inner, -1), 1, 0).reshape(size, -1)
    member = Member("w", dim, "reads", size, outer, inner, before, step)
    assert np.array_equal(member.matrix(torch.from_numpy(values)).numpy(), expected)
    line = np.arange(outer * step)
    sums = line.reshape(outer, step)[:, before : before + size * inner].reshape(outer, size, inner).sum((0, 2))
    assert np.array_equal(member.per_node(torch.from_numpy(line)).numpy(), sums)


ACTIVATIONS = [
    *(
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.LeakyReLU(),
        nn.PReLU(),
        nn.RReLU(),
        nn.ELU(),
        nn.SELU(),
        nn.CELU(),
    ),
    *(
        nn.GELU(),
        nn.SiLU(),
        nn.SiLU(inplace=True),
        nn.Mish(),
        nn.Softplus(),
        nn.Softsign(),
        nn.Softshrink(),
        nn.Hardshrink(),
    ),
    *(nn.Tanh(), nn.Tanhshrink(), nn.Sigmoid(), nn.LogSigmoid(), nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid()),
    *(
        nn.Threshold(0.1, 20.0),
        nn.Identity(),
        nn.Dropout(),
        nn.Dropout(inplace=True),
        nn.AlphaDropout(),
        nn.FeatureAlphaDropout(),
    ),
]


def test_activations_and_dropout_pass_nodes_on():
    layers = list(itertools.chain.from_iterable((nn.Linear(3, 3), activation) for activation in ACTIVATIONS))
    found = couplings(nn.Sequential(*layers, nn.Linear(3, 2)), torch.zeros(2, 3)).found
    assert [coupling.name for coupling in found] == [str(2 * i) for i in range(len(ACTIVATIONS))]


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.b(2 * net.a(x) + 0.5),
        lambda net, x: net.b(net.a(x).clamp(-1, 1).pow(2).add_(1)),
        lambda net, x: net.b(torch.where(net.a(x) > 0, 1.0, 0.0)),
        lambda net, x: net.b((lambda y: y * torch.sigmoid(y))(net.a(x))),
        lambda net, x: net.b(net.a(x) * net.scalar),
        lambda net, x: net.b(net.a(x).to(torch.float64).to(x.dtype).contiguous().detach()),
        lambda net, x: torch.addmm(net.b.bias, net.a(x), net.matrix),
    ],
)
def test_elementwise_code_passes_nodes_on(forward):
    net = Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2), scalar=nn.Parameter(torch.ones(1)))
    net.matrix = nn.Parameter(torch.ones(6, 2))
    coupling = couplings(net, torch.zeros(2, 4)).of("a")
    readers = [member for member in coupling.members if member.role == "reads"]
    assert readers in ([Member("b.weight", 1, "reads", 6)], [Member("matrix", 0, "reads", 6)])


RESAMPLING = {
    1: [nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(4), nn.AdaptiveMaxPool1d(4), nn.LPPool1d(2, 2)]
    + [nn.Upsample(scale_factor=2, mode=mode) for mode in ("nearest", "linear", "nearest-exact")],
    2: [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(4), nn.AdaptiveMaxPool2d(4), nn.LPPool2d(2, 2)]
    + [nn.Upsample(scale_factor=2, mode=mode) for mode in ("nearest", "bilinear", "bicubic", "nearest-exact")],
    3: [nn.MaxPool3d(2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(4), nn.AdaptiveMaxPool3d(4)]
    + [nn.Upsample(scale_factor=2, mode=mode) for mode in ("nearest", "trilinear", "nearest-exact")],
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_and_resampling_pass_channels_on(rank):
    conv, transposed = (nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    channels = iter(range(2, 99))
    layers, width = [], 1
    for layer in RESAMPLING[rank]:
        layers += [conv[rank - 1](width, wide := next(channels), 1), layer]
        layers += [transposed[rank - 1](wide, width := next(channels), 1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3), nn.Linear(3, 2))
    example = torch.zeros(2, 1, *[8] * rank)
    model(example)
    assert [coupling.size for coupling in couplings(model, example).found] == [*range(2, width + 1), 3]


def test_a_linear_layer_keeps_leading_dimensions_apart():
    model = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 4)), nn.Linear(4, 5), nn.Flatten(), nn.Linear(15, 2))
    found = couplings(model, torch.zeros(2, 4))
    assert found.of("0").members[0] == Member("0.weight", 0, "writes", 3, inner=4)
    assert found.of("0").members[-1] == Member("4.weight", 1, "reads", 3, inner=5)
    assert found.found[1].members[0] == Member("0.weight", 0, "writes", 4, outer=3)
    assert found.of("2").members[-1] == Member("4.weight", 1, "reads", 5, outer=3)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(len(x), -1),
        lambda x: torch.flatten(x, 1),
        lambda x: x.flatten(2).flatten(1),
        lambda x: x.unflatten(1, (-1, 1)).flatten(1),
    ],
)
def test_flattening_by_code_that_adapts(flatten):
    net = Net(lambda net, x: net.fc(flatten(net.conv(x))), conv=nn.Conv2d(1, 4, 3), fc=nn.Linear(4 * 9, 2))
    assert couplings(net, torch.zeros(2, 1, 5, 5)).of("conv").members[-1] == Member("fc.weight", 1, "reads", 4, inner=9)


def _loose_buffer() -> nn.Module:
    net = Net(lambda net, x: net.b(F.linear(net.a(x), net.w)), a=nn.Linear(4, 6), b=nn.Linear(6, 2))
    net.register_buffer("w", torch.ones(6, 6), persistent=False)
    return net


def _two(forward) -> Callable[[], nn.Module]:
    return lambda: Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2))


def _mixed_over_positions(bias: bool) -> nn.Module:
    """Like a Mixer: a layer over another dimension, whose bias is added to dead nodes too."""
    return Net(
        lambda net, x: net.b(net.over(net.a(x)[..., None]).sum(1)),
        a=nn.Linear(4, 6),
        over=nn.Linear(1, 3, bias=bias),
        b=nn.Linear(3, 2),
    )


KEPT = [
    ("a", "the network's input", lambda: Net(lambda net, x: net.b(x + net.a(x)), a=nn.Linear(4, 4), b=nn.Linear(4, 2))),
    (
        "0",
        "aten.layer_norm.default in '2' takes the mean over nodes that need not be zero",
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.LayerNorm(6), nn.Linear(6, 2)),
    ),
    ("0", "aten.softmax", lambda: nn.Sequential(nn.Linear(4, 6), nn.Softmax(1), nn.Linear(6, 2))),
    ("a", "aten.mean", _two(lambda net, x: net.b(net.a(x)) * net.a(x).exp().mean(1, keepdim=True))),
    ("a", "aten.var", _two(lambda net, x: net.b(net.a(x)) * net.a(x).exp().var(1, keepdim=True))),
    (
        "a",
        "sums over nodes that need not be zero",
        _two(lambda net, x: net.b(net.a(x)) * net.a(x).exp().sum(1)[:, None]),
    ),
    (
        "a",
        "sums over nodes that need not be zero",
        _two(lambda net, x: net.b(net.a(x)) * (net.a(x) - net.a(x).mean(1, keepdim=True)).abs().sum(1)[:, None]),
    ),
    ("a", "sums over nodes that need not be zero", lambda: _mixed_over_positions(bias=True)),
    ("a", "aten.sort", _two(lambda net, x: net.b(net.a(x).sort(1)[0]))),
    (
        "a",
        "aten.slice.Tensor in 'the network' takes every 2th",
        _two(lambda net, x: net.b(net.a(x)[:, ::2].repeat(1, 2))),
    ),
    (
        "a",
        "aten.fft_fft.default in 'the network' combines all of its positions",
        _two(lambda net, x: net.b(torch.fft.fft(net.a(x)).real)),
    ),
    ("a", "not part of the network's state_dict", _loose_buffer),
    ("a", "is the network's output", _two(lambda net, x: (lambda y: (y, net.b(y)))(net.a(x)))),
    ("a", "does not use it", lambda: Net(lambda net, x: net.b(x), a=nn.Linear(4, 6), b=nn.Linear(4, 2))),
    ("0", "has a single node", lambda: nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 2))),
]


@pytest.mark.parametrize(("layer", "reason", "build"), KEPT)
def test_what_is_not_understood_is_kept_with_its_reason(layer, reason, build):
    known = couplings(build(), torch.zeros(2, 4))
    assert reason in known.kept[layer]
    with pytest.raises(UnsupportedModelError, match=f"'{layer}' must keep its width: .*"):
        known.of(layer)


def test_what_a_layer_over_another_dimension_makes_of_zeros_is_zero_without_a_bias():
    assert couplings(_mixed_over_positions(bias=False), torch.zeros(2, 4)).of("a").size == 6


def test_a_grouped_convolution_has_groups_and_nodes_of_each():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 1, 1))
    known = couplings(model, torch.zeros(2, 1, 3, 3))
    groups, each, after = known.found
    assert groups.members == (
        *(Member("0.weight", 0, "writes", 2, inner=2), Member("0.bias", 0, "writes", 2, inner=2)),
        *(Member("1.weight", 0, "writes", 2, inner=3), Member("1.bias", 0, "writes", 2, inner=3)),
        Member("2.weight", 1, "reads", 2, inner=3),
    )
    assert each.members[-1] == Member("1.weight", 1, "reads", 2)
    assert after.members[-1] == Member("2.weight", 1, "reads", 3, outer=2)
    assert [str(number.name) for number, _, _ in known.resized({groups: 1, each: 1}, "attribute")] == ["1.groups"]


def test_parts_of_a_concatenation_lie_behind_each_other():
    net = Net(lambda net, x: net.c(torch.cat((net.a(x), net.b(x), net.a(x)), 1)), a=nn.Linear(4, 3), b=nn.Linear(4, 2))
    net.c = nn.Linear(8, 1)
    known = couplings(net, torch.zeros(2, 4))
    assert [member for member in known.of("a").members if member.role == "reads"] == [
        Member("c.weight", 1, "reads", 3),
        Member("c.weight", 1, "reads", 3, offset=5),
    ]
    assert known.of("b").members[-1] == Member("c.weight", 1, "reads", 2, offset=3)


def test_a_reshape_across_borders_is_kept():
    net = Net(lambda net, x: net.b(net.a(x).reshape(len(x), -1, 4)), a=nn.Linear(4, 6), b=nn.Linear(4, 2))
    assert "borders do not meet" in couplings(net, torch.zeros(2, 2, 4)).kept["a"]


def test_layers_that_do_not_exist(autoencoder):
    with pytest.raises(TargetError, match=r"no layer 'latents' .* latent"):
        autoencoder.of("latents")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["latent"], ["latent"]),
        (["encoder.*"], ["encoder.1", "encoder.3", "encoder.5", "encoder.7"]),
        (["decoder.*"], ["decoder.1", "decoder.3", "decoder.5", "decoder.7"]),  # the last is the network's output
        (["decoder.[13]", "l*", "decoder.3", "latent"], ["decoder.1", "decoder.3", "latent"]),
        ([], []),
    ],
)
def test_patterns_match_layers_whose_nodes_can_go_each_once(autoencoder, patterns, expected):
    assert [coupling.name for coupling in autoencoder.matching(patterns)] == expected


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("decoder.9", UnsupportedModelError, "'decoder.9' must keep its width: it is the network's output"),
        ("decoder.9*", TargetError, r"no layer 'decoder.9\*' with nodes of its own; layers with prunable nodes: enc"),
        ("Latent", TargetError, "no layer 'Latent'"),
    ],
)
def test_a_pattern_that_matches_no_layer_whose_nodes_can_go(autoencoder, pattern, error, message):
    with pytest.raises(error, match=message):
        autoencoder.matching(["latent", pattern])


def test_the_model_and_the_example_stay_as_they_were():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 2))
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    example = torch.full((3, 4), -1.0)
    couplings(model, example)
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(example, torch.full((3, 4), -1.0))


@pytest.mark.parametrize(
    ("shape", "message"), [((), "batch dimension"), ((0, 4), "batch dimension"), ((2, 5), r"\[2, 5\]")]
)
def test_an_example_that_does_not_fit(shape, message):
    with pytest.raises(InputError, match=message):
        couplings(nn.Linear(4, 2), torch.zeros(shape))


def test_one_row_is_enough():
    assert couplings(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(1, 4)).of("0").size == 3


def test_a_network_that_cannot_be_traced_is_refused():
    net = Net(lambda net, x: net.a(x) if x.sum() > 0 else net.a(-x), a=nn.Linear(4, 2))
    with pytest.raises(UnsupportedModelError, match="cannot be traced"):
        couplings(net, torch.zeros(2, 4))


def test_masks_take_nodes_away_on_both_sides(conv_autoencoder):
    model = models.conv_autoencoder()
    keep = torch.tensor([True, False] * 4)
    masks = conv_autoencoder.of("decoder.1").masks(model, keep)
    rows = keep.repeat_interleave(9)
    assert masks.keys() == {"decoder.1.weight", "decoder.1.bias", "decoder.4.weight"}
    assert torch.equal(masks["decoder.1.weight"], rows[:, None].expand(72, 64))
    assert torch.equal(masks["decoder.1.bias"], rows)
    assert torch.equal(masks["decoder.4.weight"], keep[:, None, None, None].expand(8, 128, 3, 3))
