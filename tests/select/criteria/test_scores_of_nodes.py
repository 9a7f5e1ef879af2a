"""Scores of nodes that several layers write and read, by hand and by one gradient for each node's factor."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from compress.data.dataset import TrainingData
from compress.data.sources import from_npz
from compress.errors import TargetError
from compress.graph.coupling import Coupling, couplings
from compress.models import vision_transformer
from compress.remove.masks import SoftPruningMethod
from compress.select.criteria import BY_WORD, Criterion
from compress.select.node_selection import comparable
from compress.select.scoring import Scoring

EXAMPLE = torch.zeros(2, 1, 6, 6)


class Residual(nn.Module):
    """`stem` and `b` write the stream, `a` and `head` read it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.a, self.norm = nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.b = nn.Conv2d(5, 4, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, stem: Tensor | float = 1.0, b: Tensor | float = 1.0) -> Tensor:
        """`stem` and `b`: factors of these layers' outputs."""
        stream = stem * self.stem(x)
        stream = stream + b * self.b(F.relu(self.norm(self.a(torch.tanh(stream)))))
        logits: Tensor = self.head(F.max_pool2d(stream, 2).flatten(1))
        return logits


class Joined(nn.Module):
    """Each half of what `head` reads is of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(36, 3), nn.Linear(36, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        logits: Tensor = self.head(torch.cat([self.a(x), self.b(x)], 1))
        return logits


class Attention(nn.Module):
    """Queries and keys, which no layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.head = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.squeeze(1)
        seen = F.scaled_dot_product_attention(self.q(rows), self.k(rows), self.v(rows))
        logits: Tensor = self.head(seen.flatten(1))
        return logits


@pytest.fixture
def data(npz: Path) -> TrainingData:
    return from_npz(npz)


def network(kind: type[nn.Module] = Residual) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    model(torch.randn(50, 1, 6, 6))
    return model.eval()


def criterion(word: str, **options: Any) -> Criterion:
    return BY_WORD[word](**{**BY_WORD[word].decided_by(word), **options})


def coupling(model: nn.Module, name: str) -> Coupling:
    return couplings(model, EXAMPLE).of(name)


def scores(model: nn.Module, name: str, wanted: str, data: TrainingData, **options: Any) -> Tensor:
    nodes = coupling(model, name)
    return criterion(wanted, **options).score_nodes([nodes], scoring(model, data))[nodes].double()


def scoring(model: nn.Module, data: TrainingData) -> Scoring:
    return Scoring(model, torch.Generator(), lambda size: data.batches("train", size, "classify")(), F.cross_entropy)


def batches(data: TrainingData, size: int, count: int) -> Sequence[tuple[Tensor, Tensor]]:
    return list(itertools.islice(data.batches("train", size, "classify")(), count))


def square_norm(*parts: Tensor) -> Tensor:
    """Of matrices [nodes, ...]."""
    return torch.stack([part.detach().square().flatten(1).sum(1) for part in parts]).sum(0)


# --- what is read off the weights ---


def test_magnitude_is_of_all_rows_that_add_up_to_a_node(data: TrainingData) -> None:
    model = network()
    expected = square_norm(model.get_parameter("stem.weight"), model.get_parameter("b.weight")).sqrt()
    torch.testing.assert_close(scores(model, "b", "magnitude", data).float(), expected)


def test_norms_are_of_all_rows_and_all_columns(data: TrainingData) -> None:
    model = network()
    rows = [model.get_parameter(name) for name in ("stem.weight", "b.weight")]
    biases = [model.get_parameter(name)[:, None] for name in ("stem.bias", "b.bias")]
    columns = [model.get_parameter("a.weight").transpose(0, 1), model.get_parameter("head.weight").T.reshape(4, -1)]
    expected = square_norm(*rows, *biases).sqrt() * square_norm(*columns).sqrt()
    torch.testing.assert_close(scores(model, "stem", "norms", data).float(), expected)


def test_norms_where_no_layer_reads_the_nodes(data: TrainingData) -> None:
    model = network(Attention)
    parts = [model.get_parameter(name).reshape(4, -1) for name in ("q.weight", "q.bias", "k.weight", "k.bias")]
    torch.testing.assert_close(scores(model, "k", "norms", data).float(), square_norm(*parts).sqrt())


# --- what depends on the loss ---


def change_by_factor(model: nn.Module, nodes: str, images: Tensor, target: Tensor) -> Tensor:
    """How the loss changes with a factor at every column that reads a node, which is 1."""
    names = {"stem": ("a.weight", "head.weight"), "a": ("b.weight",)}[nodes]
    factor = torch.ones(coupling(model, nodes).size, requires_grad=True)
    changed = {}
    for name in names:
        weight = model.get_parameter(name).detach()
        each = factor.repeat_interleave(weight.shape[1] // len(factor))
        changed[name] = weight * each.view(1, -1, *[1] * (weight.dim() - 2))
    loss = F.cross_entropy(functional_call(model, changed, (images,)), target)
    (slope,) = torch.autograd.grad(loss, factor)
    return slope.double()


@pytest.mark.parametrize("nodes", ["stem", "a"])
def test_gradients_of_nodes_are_those_of_a_factor_at_all_that_reads_them(data: TrainingData, nodes: str) -> None:
    model = network()
    changes = [change_by_factor(model, nodes, *batch) for batch in batches(data, 25, 2)]
    changes.append(change_by_factor(model, nodes, *(part[:10] for part in batches(data, 25, 3)[2])))
    each = torch.stack(changes)
    expected = {"taylor": each.abs().mean(0), "taylor_square": each.square().mean(0), "snip": each.mean(0).abs()}
    for kind, value in expected.items():
        found = scores(model, nodes, kind, data, samples=60)
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-7)


def test_gradients_of_nodes_are_those_of_their_masked_columns(data: TrainingData) -> None:
    """On its way out a column counts as what is left of it."""
    model, masked = network(), network()
    keep = torch.tensor([True, False, True, False, True])[None, :, None, None].expand(4, 5, 3, 3)
    nodes = coupling(masked, "a")
    layer = masked.get_submodule("b")
    SoftPruningMethod.place([(layer, SoftPruningMethod.apply(layer, "weight", keep.clone()))], 0.25)
    with torch.no_grad():
        model.get_parameter("b.weight").mul_(torch.where(keep, 1.0, 0.25))
    found = criterion("taylor", samples=20).score_nodes([nodes], scoring(masked, data))[nodes]
    torch.testing.assert_close(found, change_by_factor(model, "a", *batches(data, 20, 1)[0]).abs(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("reduce", ["sum", "abs", "square"])
def test_skeletonization_adds_up_all_layers_that_write_a_node(data: TrainingData, reduce: str) -> None:
    model = network()
    slopes = []
    for image, label in zip(*(part[:12] for part in batches(data, 20, 1)[0]), strict=True):
        factors = {name: torch.ones(1, 4, 1, 1, requires_grad=True) for name in ("stem", "b")}
        loss = F.cross_entropy(model(image[None], **factors), label[None])
        slopes.append(torch.stack(torch.autograd.grad(loss, list(factors.values()))).flatten(1).double())
    each = torch.stack(slopes)  # [samples, writers, nodes]
    term = {"sum": each.mean(0).abs(), "abs": each.abs().mean(0), "square": each.square().mean(0)}[reduce]
    found = scores(model, "stem", "skeletonization", data, reduce=reduce, samples=12)
    torch.testing.assert_close(found, term.sum(0), rtol=1e-3, atol=1e-9)


def test_ablation_silences_a_node_at_all_that_reads_it(data: TrainingData) -> None:
    model = network()
    images, target = batches(data, 20, 1)[0]
    columns = {name: model.get_parameter(name).detach() for name in ("a.weight", "head.weight")}
    rises = []
    for node in range(4):
        without = {name: weight.clone() for name, weight in columns.items()}
        without["a.weight"][:, node] = 0
        without["head.weight"][:, 4 * node : 4 * node + 4] = 0
        losses = [F.cross_entropy(functional_call(model, some, (images,)).double(), target) for some in (without, {})]
        rises.append(losses[0] - losses[1])
    found = scores(model, "stem", "ablation", data, samples=20)
    torch.testing.assert_close(found, torch.stack(rises).detach(), rtol=1e-4, atol=1e-7)


# --- what cannot be seen ---


@pytest.mark.parametrize("kind", ["variance", "ablation"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_nodes_that_a_concatenation_hides_cannot_be_watched(data: TrainingData, kind: str, name: str) -> None:
    """Neither those at its beginning nor those behind them."""
    with pytest.raises(TargetError, match=r"the inputs of 'head' are not just the nodes in question.* norms or taylor"):
        scores(network(Joined), name, kind, data)
    for seen in ("magnitude", "norms", "taylor", "skeletonization"):
        assert scores(network(Joined), name, seen, data).shape == (3,)


@pytest.mark.parametrize("kind", ["variance", "ablation", "skeletonization"])
def test_heads_of_attention_cannot_be_watched(data: TrainingData, kind: str) -> None:
    model = vision_transformer((1, 6, 6), patch=3, dim=8, depth=1, heads=2, hidden=4, classes=3)
    with pytest.raises(TargetError, match=r"'blocks\.0\.attention' (is|are)"):
        scores(model, "blocks.0.attention", kind, data)


# --- on one scale ---


def test_norms_are_comparable_relative_to_the_mean_of_what_is_left() -> None:
    model = network()
    first, second = coupling(model, "stem"), coupling(model, "a")
    found = {first: torch.tensor([1.0, 2.0, 3.0, 10.0]), second: torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0])}
    keep = {second: torch.tensor([True, True, True, True, False])}
    for kind in ("magnitude", "norms"):
        compared = comparable(found, criterion(kind), keep)
        torch.testing.assert_close(compared[first], torch.tensor([0.25, 0.5, 0.75, 2.5]))
        torch.testing.assert_close(compared[second], torch.tensor([0.4, 0.8, 1.2, 1.6, 0.0]))
    for kind in ("taylor", "skeletonization", "variance", "random"):
        assert comparable(found, criterion(kind), keep) is found


def test_nodes_of_no_weight_at_all_are_comparable_too() -> None:
    nodes = coupling(network(), "stem")
    assert torch.equal(comparable({nodes: torch.zeros(4)}, criterion("norms"), {})[nodes], torch.zeros(4))
