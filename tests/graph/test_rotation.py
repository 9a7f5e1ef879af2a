from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import TargetError
from compress.graph.coupling import couplings
from compress.graph.rotation import Gain, Rotation, rotation_of

WIDTH = 6
EXAMPLE = torch.randn(2, 3, 5)


class Stream(nn.Module):
    """A residual stream, of which `inside` reads a norm, and `last` makes what the head reads."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.RMSNorm, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(5, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, 3, WIDTH))
        self.norm, self.expand, self.reduce = norm(WIDTH), nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)
        self.last, self.head = norm(WIDTH) if last is None else last, nn.Linear(WIDTH, 2)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.first(x) + self.positions
        stream = stream + self.after(self.reduce(F.gelu(self.expand(self.norm(stream)))))
        return self.head(self.last(stream))

    def after(self, values: Tensor) -> Tensor:
        return values


def found(model: nn.Module, example: Tensor = EXAMPLE, name: str = "first") -> Rotation:
    known = couplings(model, example)
    return rotation_of(model, known, known.of(name))


def test_a_stream_between_root_mean_square_norms():
    rotation = found(Stream())
    writers = {"first.weight": 0, "first.bias": 0, "positions": 2, "reduce.weight": 0, "reduce.bias": 0}
    assert rotation.turned == {**writers, "expand.weight": 1, "head.weight": 1}
    assert rotation.folded == {"expand.weight": Gain("norm.weight"), "head.weight": Gain("last.weight")}
    assert (rotation.size, rotation.signals) == (WIDTH, ("expand", "head"))


class PlusOne(nn.Module):
    """As Gemma's norm, which adds 1 to its weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.eps, self.weight = 1e-6, nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (normed * (1.0 + self.weight.float())).type_as(x)


class Length(nn.Module):
    """A norm by the length of a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * 6**0.5 * self.scale


class Plain(nn.Module):
    """Without a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize(
    ("norm", "gain"), [(PlusOne, Gain("last.weight", 1.0)), (Length, Gain("last.scale")), (Plain, None)]
)
def test_norms_of_other_libraries(norm, gain):
    assert found(Stream(norm)).folded.get("head.weight") == gain


def test_a_gain_that_is_the_same_for_all_nodes_stays_where_it_is():
    model = Stream()
    nn.init.constant_(model.last.weight, 0.7)
    assert found(model).folded == {"expand.weight": Gain("norm.weight")}


class PostNorm(Stream):
    """The norm lies behind the branch, as a second one in Gemma 2."""

    def after(self, values: Tensor) -> Tensor:
        return self.norm(values)


class Gated(Stream):
    def after(self, values: Tensor) -> Tensor:
        return values * values.sigmoid()


class Shifted(Stream):
    def after(self, values: Tensor) -> Tensor:
        return values + 1.0


class Summed(Stream):
    def after(self, values: Tensor) -> Tensor:
        return values * values.sum(-1, keepdim=True)


class TwiceScaled(Stream):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.first(x)) * self.norm.weight)


class GainTwice(Stream):
    """One reader behind two gains."""

    def forward(self, x: Tensor) -> Tensor:
        stream = self.first(x)
        return self.head(self.norm(stream)) + self.head(self.last(stream)) + self.expand(stream).sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Stream(nn.LayerNorm), r"aten.layer_norm.default in 'norm' subtracts a mean.*nn.RMSNorm does not"),
        (Stream(last=nn.ReLU()), r"aten.relu.default in 'last' acts on each of them by itself"),
        (Stream(last=nn.Softmax(-2)), r"aten.softmax.int in 'last' is not known to let a rotation pass"),
        (PostNorm(), r"adds nodes that 'norm.weight' scales, one by one, to nodes that it does not scale"),
        (Gated(), r"aten.sigmoid.default in 'the network' acts on each"),
        (Shifted(last=nn.Identity()), "adds a number to each of them"),
        (Summed(), "takes the sum over them"),
        (TwiceScaled(), "scales them by 'norm.weight' after 'last.weight'"),
        (
            GainTwice(),
            "'head.weight' would have to take over the gain .* in one place and not in another.* a tensor of its own",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_rotated_is_refused_with_place_and_way_out(model, why):
    with pytest.raises(
        TargetError, match=f"nodes of '(first|positions)' cannot be rotated.*{why}.*norms or taylor_square"
    ):
        found(model)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(7, WIDTH), nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 7, bias=False)
        self.head.weight = self.embed.weight
        nn.init.normal_(self.norm.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.embed(ids)))


def test_a_tied_head_behind_a_gain_has_to_be_untied():
    model, ids = Tied(), torch.randint(7, (2, 4))
    way_out = r"untie them before: model.head.weight = torch.nn.Parameter\(model.head.weight.detach\(\).clone\(\)\)"
    with pytest.raises(TargetError, match=f"'embed.weight' and 'head.weight' are one tensor.*{way_out}"):
        found(model, ids, "embed")
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    assert found(model, ids, "embed").turned == {"embed.weight": 1, "head.weight": 1}


def test_a_tied_head_behind_an_even_gain_turns_with_the_embedding():
    model = Tied()
    nn.init.ones_(model.norm.weight)
    rotation = found(model, torch.randint(7, (2, 4)), "embed")
    assert (rotation.turned, rotation.folded, rotation.signals) == ({"embed.weight": 1}, {}, ("head",))


class Pictures(nn.Module):
    """Channels as a stream, through a residual 1 x 1 convolution, and their mean over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inside, self.back = (
            nn.Conv2d(3, WIDTH, 3),
            nn.Conv2d(WIDTH, 4, 3, padding=1),
            nn.Conv2d(4, 6, 1),
        )
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(self.inside(x).relu())
        return self.head(x.mean((2, 3)))


def test_channels_that_convolutions_read_and_write():
    rotation = found(Pictures(), torch.randn(2, 3, 8, 8), "stem")
    biases = {"stem.bias": 0, "back.bias": 0}
    assert rotation.turned == {"stem.weight": 0, "inside.weight": 1, "back.weight": 0, "head.weight": 1, **biases}
    assert rotation.signals == ("inside", "head")
