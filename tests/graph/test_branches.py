"""Residual branches found in networks that other people wrote, and what is left of a graph without them."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn

from compress.graph.branches import residual_branches, without
from compress.graph.trace import trace
from compress.models.resnet import resnet20

IMAGE = torch.zeros(2, 3, 32, 32)


class Block(nn.Module):
    """A pre-norm transformer block, as many write it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed)[0]
        return x + self.mlp(self.norm2(x))


class Joined(nn.Module):
    """x with `joins(self, x)`."""

    def __init__(self, joins: Callable[["Joined", Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other, self.scale = nn.Linear(4, 4), nn.Linear(4, 4), nn.Parameter(torch.ones(4))
        self.norm = nn.LayerNorm(4)
        self.joins = joins

    def forward(self, x: Tensor) -> Tensor:
        return self.joins(self, x)


def found_in(model: nn.Module, example: Tensor) -> list[str]:
    return [one.name for one in residual_branches(model, trace(model.eval(), example)).found]


def resnet_ends(blocks: list[int], last: str) -> list[str]:
    """Of a torchvision ResNet: all blocks but the first of each stage have the identity for a shortcut."""
    return [f"layer{stage}.{block}.{last}" for stage, count in enumerate(blocks, 1) for block in range(1, count)]


KNOWN: dict[str, tuple[Callable[[], nn.Module], Tensor, list[str]]] = {
    "resnet20": (resnet20, IMAGE, [f"blocks.{block}.norm2" for block in (0, 1, 2, 4, 5, 7, 8)]),
    "resnet50": (torchvision.models.resnet50, IMAGE, resnet_ends([3, 4, 6, 3], "bn3")),
    "resnet18": (
        torchvision.models.resnet18,
        IMAGE,
        ["layer1.0.bn2", *resnet_ends([2, 2, 2, 2], "bn2")],
    ),
    "vit": (
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 16),
        IMAGE,
        [
            f"encoder.layers.encoder_layer_{layer}.{end}"
            for layer in (0, 1)
            for end in ("self_attention.out_proj", "mlp.3")
        ],
    ),
    "block": (Block, torch.zeros(2, 5, 8), ["attention.out_proj", "mlp.2"]),
    "densenet": (lambda: torchvision.models.densenet121(), torch.zeros(2, 3, 64, 64), []),
}
ONE_JOIN: dict[str, tuple[Callable[[Joined, Tensor], Tensor], list[str]]] = {
    "plain": (lambda own, x: x + own.one(x), ["one"]),
    "the branch first": (lambda own, x: own.one(x).relu() + x, ["one"]),
    "in place": (lambda own, x: own.one(x).add_(x), ["one"]),
    "scaled": (lambda own, x: x + own.scale * own.one(x), ["scale"]),
    "scaled by a view": (lambda own, x: x + own.one(x) * own.scale.view(1, 4), ["one"]),
    "a norm at the end": (lambda own, x: x + own.norm(own.one(x)), ["norm"]),
    "gated": (lambda own, x: x + own.one(x) * own.other(x).sigmoid(), ["one"]),
    "a sum at the end": (lambda own, x: x + (own.one(x) + own.other(x)), ["one"]),
    "parallel": (lambda own, x: x + own.one(x) + own.other(x), ["one", "other"]),
    "one in the other": (lambda own, x: x + own.other((y := x.tanh()) + own.one(y)), ["one", "other"]),
    "a projection": (lambda own, x: own.one(x) + own.other(x), []),
    "a number at the end": (lambda own, x: x + own.one(x).exp(), []),
    "used twice": (lambda own, x: x + own.one(own.one(x)), []),
    "no weights": (lambda own, x: x + 0.04 * x**3, []),
    "another input": (lambda own, x: own.one(x) + own.scale, []),
    "wider": (lambda own, x: x[:, :1] + own.one(x[:, :1].expand(-1, 4)), []),
}


@pytest.mark.parametrize("name", KNOWN)
def test_finds_the_blocks_whose_shortcut_is_the_identity(name: str) -> None:
    build, example, expected = KNOWN[name]
    assert found_in(build(), example) == expected


@pytest.mark.parametrize("name", ONE_JOIN)
def test_finds_a_branch_however_it_is_written(name: str) -> None:
    joins, expected = ONE_JOIN[name]
    model = Joined(joins)
    assert found_in(model, torch.zeros(3, 4)) == expected
    graph = trace(model, torch.zeros(3, 4))
    for branch in residual_branches(model, graph).found:
        ends = [model.get_parameter(end) for end in branch.ends]
        values = torch.randn(3, 4)
        with torch.no_grad():
            for end in ends:
                end.zero_()
            left = fx.GraphModule(dict(model.named_parameters()), without(graph, [branch]).graph)
            torch.testing.assert_close(left(values), model(values), rtol=0, atol=0)


def test_a_projection_is_kept_with_the_reason() -> None:
    model = resnet20().eval()
    kept = residual_branches(model, trace(model, IMAGE)).kept
    assert kept["blocks.3.norm2"] == "its shortcut is a projection, 'blocks.3.shortcut.1', and not the unchanged stream"


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "densenet"])
def test_nothing_of_a_removed_branch_is_left(name: str) -> None:
    build, example, ends = KNOWN[name]
    model = build().eval()
    graph = trace(model, example)
    every = residual_branches(model, graph).found
    left = without(graph, every[::2]).graph
    left.lint()
    used = {str(node.target) for node in left.nodes if node.op == "get_attr"}
    for branch in every[::2]:
        assert used.isdisjoint(branch.ends)
    for branch in every[1::2]:
        assert used.issuperset(branch.ends)
    assert ends == [branch.name for branch in every]
