"""Norms that still divide by the number of nodes before the cut, against torch's own norms of the masked nodes."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compress.errors import CheckpointError
from compress.graph.coupling import couplings
from compress.slimming.edits import ShapeEdit, apply_edits, edits_from_json, edits_to_json
from compress.slimming.norms import CountedGroupNorm, CountedLayerNorm, normalized
from compress.slimming.shrink import slim

ROWS, IMAGE = (2, 4, 5), (2, 3, 9, 9)


class Stream(nn.Module):
    """Two blocks around a residual stream: one norms its input, the other its sum with the input."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 12), nn.Linear(12, 3)
        self.norms = nn.ModuleList(norm(12) for _ in range(3))
        self.inside = nn.ModuleList(nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed(x)
        stream = stream + self.inside[0](self.norms[0](stream))
        stream = self.norms[1](stream + self.inside[1](stream))
        return self.head(self.norms[2](stream))


class HandWrittenRMS(nn.Module):
    """As in transformers' Llama, Qwen, Mistral and T5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), 1e-2

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class OnePlus(HandWrittenRMS):
    """As in transformers' Gemma."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon) * (1 + self.weight)


class HandWrittenLayer(nn.Module):
    """As in the networks that wrote LayerNorm before torch could leave its bias out."""

    def __init__(self, width: int, fixed: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        if not fixed:
            self.eps = 1e-3

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, getattr(self, "eps", 1e-5))


class Variance(HandWrittenLayer):
    """As in Segment Anything and the first ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + getattr(self, "eps", 1e-5)) * self.weight + self.bias


class ByVar(HandWrittenLayer):
    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class ByDeviation(HandWrittenLayer):
    """As in the Annotated Transformer."""

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (deviation + self.eps) + self.bias


class OneNumber(Variance):
    """As in transformers' I-BERT."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.normalized_shape = width


class ChannelsFirst(nn.LayerNorm):
    """As in torchvision's and timm's ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last = nn.Conv2d(3, 12, 3), ChannelsFirst(12), ChannelsFirst(12)
        self.spatial = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.inside = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.scale, self.head = nn.Parameter(torch.ones(12, 1, 1)), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        x = x + self.scale * self.inside(self.spatial(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.last(F.adaptive_avg_pool2d(x, 1)).flatten(1))


class PoolFormer(nn.Module):
    """Around a stream of channels, over all of which, and all positions, its norms take their means."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 3), nn.Linear(12, 3)
        self.norms = nn.ModuleList(nn.GroupNorm(1, 12, **options) for _ in range(2))
        self.inside = nn.Sequential(nn.Conv2d(12, 20, 1), nn.GELU(), nn.Conv2d(20, 12, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        inside = self.norms[0](x)
        x = x + F.avg_pool2d(inside, 3, stride=1, padding=1, count_include_pad=False) - inside
        x = x + self.inside(self.norms[1](x))
        return self.head(x.mean((2, 3)))


def sequential(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 12), norm, nn.Linear(12, 3))


def plain_mean() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            inside = self.a(x)
            return self.b(inside) * inside.abs().mean((1, 2), keepdim=True)

    return Net()


# network, input, whether the class itself can be slim
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {
    "layer norm": (lambda: Stream(nn.LayerNorm), ROWS, True),
    "without bias": (lambda: Stream(lambda width: nn.LayerNorm(width, bias=False)), ROWS, True),
    "without gain": (lambda: sequential(nn.LayerNorm(12, elementwise_affine=False)), ROWS, True),
    "own layer norm": (lambda: Stream(HandWrittenLayer), ROWS, True),
    "epsilon in the code": (lambda: Stream(lambda width: HandWrittenLayer(width, fixed=True)), ROWS, False),
    "variance": (lambda: Stream(Variance), ROWS, True),
    "variance, epsilon in the code": (lambda: Stream(lambda width: Variance(width, fixed=True)), ROWS, False),
    "variance by var": (lambda: Stream(ByVar), ROWS, True),
    "deviation": (lambda: Stream(ByDeviation), ROWS, False),
    "single group": (PoolFormer, IMAGE, True),
    "variance, the shape as one number": (lambda: Stream(OneNumber), ROWS, True),
    "rms norm": (lambda: Stream(nn.RMSNorm), ROWS, True),
    "rms norm with epsilon": (lambda: Stream(lambda width: nn.RMSNorm(width, eps=1e-2)), ROWS, True),
    "rms norm without gain": (lambda: Stream(lambda width: nn.RMSNorm(width, elementwise_affine=False)), ROWS, False),
    "own rms norm": (lambda: Stream(HandWrittenRMS), ROWS, True),
    "one plus the gain": (lambda: Stream(OnePlus), ROWS, True),
    "channels first": (ConvNeXt, IMAGE, True),
    "mean": (plain_mean, ROWS, False),
}


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """In float64, with gains and biases as after a training."""
    torch.manual_seed(0)
    model = build().double().eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@torch.no_grad()
def mask(model: nn.Module, shape: tuple[int, ...], keep_every: int = 2) -> None:
    """Zero all nodes of every width but one in `keep_every`."""
    for coupling in couplings(model, torch.zeros(shape, dtype=torch.float64)).found:
        keep = torch.arange(coupling.size) % keep_every == 0
        for name, entries in coupling.masks(model, keep).items():
            model.get_parameter(name).mul_(entries)


@pytest.mark.parametrize(("build", "shape", "own_class"), CASES.values(), ids=CASES)
def test_a_width_under_a_norm_is_cut_twice_exactly(build, shape, own_class):
    given = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = built(build)
    for width in (6, 3):
        mask(model, shape)
        small = slim(model, given)
        assert isinstance(small, fx.GraphModule) is not own_class
        expected = model(given)
        assert (small(given) - expected).abs().max() <= 1e-12 * expected.abs().max()
        assert width in {size for parameter in small.parameters() for size in parameter.shape}
        assert 2 * width not in {size for parameter in small.parameters() for size in parameter.shape}
        rebuilt = apply_edits(build().double().eval(), edits_from_json(edits_to_json(small.shape_edits)))
        rebuilt.load_state_dict(small.state_dict())
        assert torch.equal(rebuilt(given), small(given))
        model = small


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e3])
@pytest.mark.parametrize("left", [1, 64, 767])
def test_the_variance_loses_no_digits(mean, left):
    """In float32, also where all but one node of 768 are left and the mean is far from zero."""
    x = mean + torch.randn(16, left, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([x, torch.zeros(16, 768 - left)], 1)
    exact = F.layer_norm(whole.double(), [768])[:, :left]
    torchs = (F.layer_norm(whole, [768])[:, :left] - exact).abs().max()
    ours = (normalized(x, [-1], left / 768, 1e-5) - exact).abs().max()
    assert ours <= max(4 * float(torchs), 2e-6 * float(exact.abs().max()))


def test_a_single_group_counts_channels_at_other_sizes_of_the_picture_too():
    model, given = built(PoolFormer), torch.randn(IMAGE, dtype=torch.float64)
    mask(model, IMAGE)
    small, other = slim(model, given), torch.randn(3, 3, 12, 7, dtype=torch.float64)
    assert isinstance(small.norms[0], CountedGroupNorm)
    assert "count=12" in repr(small.norms[0])
    assert torch.allclose(small.train()(other), model(other), rtol=1e-10)
    for network in (model, small):
        network(given).square().mean().backward()
    kept = torch.arange(12) % 2 == 0
    assert torch.allclose(model.norms[0].weight.grad[kept], small.norms[0].weight.grad, rtol=1e-10)


def test_half_precision_is_summed_in_single_precision():
    norm = nn.LayerNorm(64).half()
    x = 200 * torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).half()
    found = CountedLayerNorm(without_nodes(norm, 32), 64, 32, 0)(x)
    whole = F.layer_norm(torch.cat([x, torch.zeros_like(x)], 1), [64])[:, :32]
    assert found.dtype == torch.float16
    assert (found - whole).abs().max() <= 2e-3


def without_nodes(norm: nn.LayerNorm, left: int) -> nn.LayerNorm:
    norm.weight, norm.bias = (nn.Parameter(entry[:left].detach()) for entry in (norm.weight, norm.bias))
    return norm


def test_a_slim_norm_is_a_layer_norm_that_trains_as_the_masked_one():
    given, model = torch.randn(8, 4, 5, dtype=torch.float64), built(lambda: Stream(nn.LayerNorm))
    mask(model, ROWS)
    small = slim(model, given)
    assert isinstance(small.norms[0], nn.LayerNorm)
    assert small.norms[0].normalized_shape == (6,)
    assert "count=12" in repr(small.norms[0])
    copy.deepcopy(small)(given).sum().backward()
    for network in (model, small):
        network(given).square().mean().backward()
    kept = torch.arange(12) % 2 == 0
    for name in ("norms.0.weight", "norms.1.bias", "embed.bias"):
        assert torch.allclose(model.get_parameter(name).grad[kept], small.get_parameter(name).grad, rtol=1e-10)


def test_a_layer_norm_without_gain_writes_into_dead_nodes():
    """What it computes of a zero is not zero, so that the next norm would miss it."""
    plain = nn.LayerNorm(12, elementwise_affine=False)
    known = couplings(nn.Sequential(*sequential(plain)[:2], nn.LayerNorm(12), nn.Linear(12, 3)), torch.zeros(ROWS))
    assert "takes the mean over nodes that need not be zero" in known.kept["0"]


def test_one_norm_under_two_names_stays_one():
    def build() -> nn.Module:
        model = Stream(nn.LayerNorm)
        model.norms[2] = model.norms[0]
        return model

    given, model = torch.randn(ROWS, dtype=torch.float64), built(build)
    mask(model, ROWS)
    small = slim(model, given)
    assert small.norms[0] is small.norms[2]


NORM = ShapeEdit("norm", "norms.0", 0, 12, 6)


@pytest.mark.parametrize(
    "edit",
    [
        ShapeEdit("norm", "embed", 0, 12, 6),
        ShapeEdit("norm", "missing", 0, 12, 6),
        ShapeEdit("norm", "norms.0", 0, 13, 6),
        ShapeEdit("norm", "norms.0", -1, 12, 6),
        ShapeEdit("norm", "norms.0", 2**40, 12, 6),
        ShapeEdit("mean", "layer_norm", 0, 12, 6),
    ],
    ids=str,
)
def test_edits_of_other_modules_are_refused(edit):
    with pytest.raises(CheckpointError):
        apply_edits(Stream(nn.LayerNorm), [edit])


def test_a_norm_counts_once():
    with pytest.raises(CheckpointError, match=r"norms\.0"):
        apply_edits(apply_edits(Stream(nn.LayerNorm), [NORM]), [NORM])
