"""Numbers of a graph that follow heads in the batch or a size that varies; constants that the code computes."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compress
from compress.graph.coupling import couplings
from compress.inputs import inputs_of
from compress.proof.precision import InFloat64


def halved(model: nn.Module, example: object) -> nn.Module:
    for coupling in couplings(model, example).found:
        for name, mask in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
            model.get_parameter(name).data.mul_(mask)
    return model


class Gathered(nn.Module):
    """Attention with heads in the batch, and an index for each of them."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by
        self.q, self.v, self.out = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, v = (one(x).view(batch, length, 4, 3).transpose(1, 2).reshape(-1, length, 3) for one in (self.q, self.v))
        scores = q @ q.transpose(1, 2)
        index = torch.arange(length).flip(0).expand(1, length, length)
        index = index.expand(q.shape[0], -1, -1) if self.by == "expand" else index.repeat(q.shape[0], 1, 1)
        seen = (scores + scores.gather(-1, index)).softmax(-1) @ v
        return self.out(seen.view(batch, 4, length, 3).transpose(1, 2).reshape(batch, length, 12))


@pytest.mark.parametrize("by", ["expand", "repeat"])
def test_an_index_follows_the_heads(by: str) -> None:
    torch.manual_seed(0)
    example = torch.randn(2, 5, 8)
    model = halved(Gathered(by).eval(), example)
    small = compress.slim(model, example)
    assert small.q.weight.shape == (4, 8)  # two heads of two
    more = torch.randn(5, 5, 8)
    torch.testing.assert_close(small(more), model(more), atol=1e-5, rtol=1e-5)


class Halving(nn.Module):
    """A picture of half the height, taken apart into positions by a number that its code computes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        batch, channels, height, width = x.shape
        unused = x.view(batch, 2, 4, height, width)
        x = x.view(batch, 2, 4, height * width).transpose(1, 2).reshape(batch, channels, height, width)
        assert unused.ndim == 5
        return self.second(x)[:, :, -1:]


def test_a_height_that_is_no_multiple_of_the_dynamic_one_follows_it() -> None:
    torch.manual_seed(0)
    example = torch.randn(2, 3, 16, 16)
    model = halved(Halving().eval(), example)
    small = compress.slim(model, example, dynamic={"x": {2: "side", 3: "side"}})
    other = torch.randn(3, 3, 22, 22)
    assert isinstance(small, torch.fx.GraphModule)
    torch.testing.assert_close(small(other), model(other), atol=1e-5, rtol=1e-5)


class Anchors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        anchors = (torch.arange(4, device=x.device).to(x.dtype) + 0.5) / 7
        anchors[1:] /= 3
        return self.layer(x), torch.log(anchors / (1 - anchors)) + torch.tensor(0.1, dtype=x.dtype)


def test_constants_of_the_code_are_rounded_in_float64_as_in_the_network() -> None:
    torch.manual_seed(0)
    model, x = Anchors(), torch.randn(2, 4)
    exact = InFloat64(model)(inputs_of(x))
    assert isinstance(exact, tuple)
    assert exact[0].dtype == torch.float64
    torch.testing.assert_close(exact[0], model.layer.double()(x.double()), atol=1e-14, rtol=0)
    assert torch.equal(exact[1].float(), Anchors()(x)[1])
    assert torch.equal(exact[1].double(), Anchors()(x)[1].double())


class Means(nn.Module):
    """The mean of each position and those before it: the length stands in `arange(1, length + 1)`, too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        heads = self.a(x).view(x.shape[0], length, 4, 4).transpose(1, 2)
        weights = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
        return self.b((weights @ heads).transpose(1, 2).reshape(x.shape[0], length, 16))


def test_a_length_plus_one_follows() -> None:
    torch.manual_seed(0)
    model, example = Means().eval(), torch.randn(2, 5, 8)
    with torch.no_grad():
        for coupling in compress.couplings(model, example).found:
            for name, mask in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
                model.get_parameter(name).mul_(mask)
    small = compress.slim(model, example, dynamic={"x": {1: "length"}})
    for length in (1, 3, 9):
        given = torch.randn(2, length, 8)
        assert (model(given) - small(given)).abs().max() < 1e-5


class Neck(nn.Module):
    """Halves a picture three times and adds it up again, so that it takes multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 12), (12, 16))])
        self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, 2) for a, b in ((16, 12), (12, 8))])
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for layer in self.down:
            x = layer(x).relu()
            levels.append(x)
        x = x.view(x.shape[0], 16, -1).view(x.shape[0], 16, x.shape[2], x.shape[3])  # only a graph follows
        for layer, level in zip(self.up, levels[-2::-1], strict=True):
            x = layer(x) + level
        result: Tensor = self.head(x)
        return result


@pytest.mark.extended
def test_pictures_of_any_multiple_of_eight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    example, dynamic = torch.randn(2, 3, 32, 48), {"x": {2: "height", 3: "width"}}
    model = halved(Neck().eval(), example)
    small = compress.slim(model, example, dynamic=dynamic)
    assert isinstance(small, compress.SlimGraph)
    compress.export.onnx(small, tmp_path / "neck.onnx", example, dynamic=dynamic)
    session = onnxruntime.InferenceSession(tmp_path / "neck.onnx")
    for shape in ((1, 3, 8, 24), (3, 3, 72, 40)):
        other = torch.randn(shape)
        (found,) = session.run(None, {"input": other.numpy()})
        for output in (small(other), torch.from_numpy(found)):
            torch.testing.assert_close(output, model(other), atol=1e-5, rtol=1e-5)
