"""Layers that standardize their weights, as people write them, lose inputs and outputs exactly and keep their class."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from compress.errors import CheckpointError
from compress.graph.coupling import couplings
from compress.slimming.edits import ShapeEdit, apply_edits, edits_from_json, edits_to_json
from compress.slimming.shrink import slim

IMAGE = (2, 3, 9, 9)


class Published(nn.Conv2d):
    """As in the code of the paper on weight standardization."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        mean = weight.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        weight = weight - mean
        std = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        weight = weight / std.expand_as(weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Transfer(nn.Conv2d):
    """As in Big Transfer (BiT)."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-10)
        return self._conv_forward(x, weight, self.bias)


class ByBatchNorm(nn.Conv2d):
    """As in timm's normalizer-free networks, with its padding at the bottom and the right."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gain, self.scale = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1)), self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        flat, gain = self.weight.reshape(1, self.out_channels, -1), (self.gain * self.scale).view(-1)
        weight = F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0, eps=1e-6)
        x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        return F.conv2d(x, weight=weight.reshape_as(self.weight), bias=self.bias, groups=self.groups)


class FanIn(nn.Conv2d):
    """As in Haiku and its ports: the number of a row's weights is in the code."""

    def forward(self, x: Tensor) -> Tensor:
        fan_in = self.weight[0].numel()
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        scale = torch.rsqrt(torch.maximum(variance * fan_in, torch.tensor(1e-4, dtype=x.dtype)))
        return F.conv2d(x, self.weight * scale - mean * scale, self.bias)


class WholeNormed(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, F.layer_norm(self.weight, self.weight.shape[1:]), self.bias)


class OwnNames(nn.Module):
    """Several weights of one module, under its own names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(12, 8, 2, 2))
        self.third = nn.Parameter(torch.randn(3, 12, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.standardized(self.first)).relu()
        x = F.conv2d(x, self.standardized(self.second)).relu()
        return F.conv2d(x, self.standardized(self.third)).mean((2, 3))

    def standardized(self, weight: Tensor) -> Tensor:
        variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True)
        return (weight - mean) * (variance + 1e-5).rsqrt()


class StandardizedWeight(nn.Module):
    """As a parametrization of torch."""

    def forward(self, weight: Tensor) -> Tensor:
        variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True)
        return (weight - mean) * (variance + 1e-5).rsqrt()


class ByParametrization(nn.Conv2d):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        parametrize.register_parametrization(self, "weight", StandardizedWeight())


class StandardizedLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean(1, keepdim=True)) / (self.weight.std(1, keepdim=True) + 1e-3)
        return F.linear(x, weight, self.bias)


def images(conv: type[nn.Conv2d], **options: int) -> nn.Module:
    return nn.Sequential(
        *(conv(3, 8, 3), nn.ReLU(), conv(8, 12, 2, **options), nn.SiLU(), conv(12, 8, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{kind.__name__: (lambda kind=kind: images(kind), IMAGE) for kind in (Published, Transfer, ByBatchNorm, FanIn)},
    **{kind.__name__: (lambda kind=kind: images(kind), IMAGE) for kind in (WholeNormed, ByParametrization)},
    "own names": (OwnNames, IMAGE),
    "in groups": (lambda: images(ByBatchNorm, groups=4), IMAGE),
    "linear": (
        lambda: nn.Sequential(
            *(StandardizedLinear(5, 8), nn.ReLU(), StandardizedLinear(8, 12), nn.Tanh()), nn.Linear(12, 3)
        ),
        (2, 5),
    ),
}


def built(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = build().double().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.rand_like(parameter)
    return model


@torch.no_grad()
def halve(model: nn.Module, shape: tuple[int, ...]) -> None:
    for coupling in couplings(model, torch.zeros(shape, dtype=torch.float64)).found:
        for name, mask in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
            model.get_parameter(name).mul_(mask)


@pytest.mark.parametrize(("build", "shape"), CASES.values(), ids=CASES)
def test_widths_are_cut_twice_exactly(build, shape):
    model, given = built(build), torch.randn(shape, dtype=torch.float64)
    for _ in range(2):
        halve(model, shape)
        small = slim(model, given)
        assert not isinstance(small, fx.GraphModule)
        for network in (small.train(), small.eval(), pickled(small)):
            assert torch.allclose(network(given[:1]), model(given[:1]), rtol=1e-10, atol=1e-12)
        rebuilt = apply_edits(build().double().eval(), edits_from_json(edits_to_json(small.shape_edits)))
        rebuilt.load_state_dict(small.state_dict())
        assert torch.equal(rebuilt(given), small(given))
        model = small
    widths = [len(entry) for name, entry in small.named_parameters() if entry.ndim == len(shape) and "gain" not in name]
    assert widths[:2] in ([2, 3], [1, 1])  # in groups, half of both


def pickled(network: nn.Module) -> nn.Module:
    parametrized = any(parametrize.is_parametrized(module) for module in network.modules())
    return copy.deepcopy(network) if parametrized else pickle.loads(pickle.dumps(network))


@pytest.mark.parametrize("name", [name for name in CASES if name != "in groups"])
def test_it_trains_as_the_masked_network(name):
    build, shape = CASES[name]
    model, given = built(build), torch.randn(shape, dtype=torch.float64)
    halve(model, shape)
    small = slim(model, given)
    for network in (model, small):
        network(given).square().mean().backward()
    for path, parameter in small.named_parameters():
        gradient = model.get_parameter(path).grad
        for dim, left in enumerate(parameter.shape):
            every = 2 if left < gradient.shape[dim] else 1
            gradient = gradient.index_select(dim, torch.arange(0, gradient.shape[dim], every))
        assert torch.allclose(gradient, parameter.grad, rtol=1e-9)


def test_a_slim_layer_is_of_its_own_class_and_says_what_it_counts():
    model = built(lambda: images(Transfer))
    halve(model, IMAGE)
    small = slim(model, torch.randn(IMAGE, dtype=torch.float64))
    assert isinstance(small[2], Transfer)
    assert small[2].in_channels == 4
    assert "Transfer(4, 6," in repr(small[2])
    assert "counted={'weight': {1: 8}}" in repr(small[2])
    assert not hasattr(small[0], "counted")


def test_inputs_that_need_not_be_zero_are_kept():
    """Their part of the weight that acts is the mean's, not zero."""
    known = couplings(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), Transfer(8, 4, 1)), torch.zeros(IMAGE))
    assert "aten.conv2d.default in '2' sums over nodes that need not be zero" in known.kept["0"]


def test_a_row_that_is_divided_by_its_own_deviation_is_no_number():
    class Bare(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight / self.weight.std((1, 2, 3), keepdim=True))

    known = couplings(nn.Sequential(Bare(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1)), torch.zeros(IMAGE))
    assert "divided by its own length" in known.kept["0"]


def test_code_that_takes_the_width_from_elsewhere_becomes_a_graph():
    class OwnNumber(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.sum((1, 2, 3), keepdim=True) / (9 * self.in_channels)
            return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5))

    model, given = built(lambda: images(OwnNumber)), torch.randn(IMAGE, dtype=torch.float64)
    halve(model, IMAGE)
    assert torch.allclose(slim(model, given)(given), model(given), rtol=1e-9)


@pytest.mark.parametrize(
    "edit",
    [
        ShapeEdit("weights", "2.weight", 1, 9, 4),
        ShapeEdit("weights", "2.weight", 4, 8, 4),
        ShapeEdit("weights", "2.missing", 1, 8, 4),
        ShapeEdit("weights", "2", 1, 8, 4),
    ],
    ids=str,
)
def test_edits_of_other_layers_are_refused(edit):
    with pytest.raises(CheckpointError):
        apply_edits(images(Transfer), [edit])
