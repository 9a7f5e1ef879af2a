"""The contract of `compress.Pruner`: scripts outside the repository call exactly this.

What is chosen, and how it is removed, is compared with independent truths beside the source; here every argument is
used in every form that the contract has.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import compress
from compress.data.sources import from_npz
from compress.errors import InputError, TargetError
from compress.graph.stats import measure
from compress.recipe.schema import Stage
from compress.run.clock import Clock
from compress.run.pruning import removal_of
from compress.run.setting import Setting, optimization, unwatched
from compress.run.stage import run_stage
from compress.select.criteria import CRITERIA
from compress.select.pruned import Pruned
from compress.train.loop import train

EXAMPLE = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A stem, two convolutions, and a head of two layers: widths of 16, 24, 16 and 20."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.conv1, self.norm = nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 16, 3, padding=1)
        self.decoder = nn.Sequential(nn.Linear(16 * 9, 20), nn.Tanh())
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.norm(self.conv1(self.stem(x))))))
        logits: Tensor = self.head(self.decoder(F.max_pool2d(x, 2).flatten(1)))
        return logits


def network() -> Net:
    torch.manual_seed(0)
    model = Net()
    model(torch.randn(50, 1, 6, 6))  # the norms have seen data
    return model


def widths(model: nn.Module) -> list[int]:
    names = ("stem.0.weight", "conv1.weight", "conv2.weight", "decoder.0.weight")
    return [len(model.get_parameter(name)) for name in names]


@pytest.fixture(scope="module")
def loader() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(20, 1, 6, 6, generator=generator), torch.randint(0, 3, (20,), generator=generator))
        for _ in range(4)
    ]


def training(model: nn.Module, loader: Sequence[tuple[Tensor, Tensor]], steps: int) -> Iterator[torch.optim.Optimizer]:
    """Yield after every step of the optimizer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        x, y = loader[step % len(loader)]
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield optimizer


def zeros(model: nn.Module, pattern: str = "weight") -> dict[str, Tensor]:
    """Where each weight is exactly zero."""
    return {name: entry == 0 for name, entry in model.named_parameters() if entry.dim() > 1 and pattern in name}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


# --- the whole of it, as it is written in README.md and docs/python.md ---


def test_the_contract(loader: list[tuple[Tensor, Tensor]]) -> None:
    model = network()
    dense = measure(model, EXAMPLE).macs
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    pruner = compress.Pruner(
        model,
        compress.nodes("*", exclude=["stem.*", "head"]),
        macs=0.5,
        example=EXAMPLE,
        criterion="taylor_square",
        batches=loader,
        loss=loss,
        removal=compress.Soft(steps=10),
        scope="global",
        multiple_of=8,
        min_keep=0.1,
    )
    for optimizer in training(model, loader, 10):  # noqa: B007
        pruner.step()
    pruner.finalize()
    model.eval()
    small = compress.slim(model, EXAMPLE, optimizer=optimizer)
    assert widths(small)[0] == 16
    assert all(width % 8 == 0 or width == 20 for width in widths(small))
    assert sum(widths(small)) < sum(widths(model))
    assert 0.2 * dense < measure(small, EXAMPLE).macs <= 0.5 * dense
    torch.testing.assert_close(small(loader[0][0]), model(loader[0][0]), rtol=1e-4, atol=1e-5)
    trained = {id(entry) for group in optimizer.param_groups for entry in group["params"]}
    assert {id(entry) for entry in small.parameters()} == trained  # the optimizer trains what is left


# --- targets ---


def forms(model: Net) -> dict[str, Any]:
    """The weights of `decoder.0` and `head`, in every form."""
    first, last = model.decoder[0], model.head
    assert isinstance(first, nn.Linear)
    return {
        "patterns": ["decoder.*", "head.*"],
        "names": ["decoder.0.weight", "head.weight"],
        "layers' names": ["decoder", "head"],
        "modules": [model.decoder, last],
        "parameters": [first.weight, last.weight],
        "pairs": [(first, "weight"), (last, "weight")],
        "a mix": ["decoder.*", last],
        "a generator": (layer for layer in (first, last)),
        "weights()": compress.weights("decoder.*", last, bias=False),
        "weights() of a list": compress.weights(["decoder.*", last.weight]),
        "what is left": compress.weights("*", exclude=["stem.*", model.conv1, model.conv2.weight]),
    }


@pytest.mark.parametrize("form", forms(network()))
def test_weights_in_every_form(form: str) -> None:
    model = network()
    pruner = compress.Pruner(model, forms(model)[form], sparsity=0.5)
    assert [layer.name for layer in pruner.layers()] == ["decoder.0.weight", "head.weight"]
    pruner.finalize()
    size = torch.cat([entry.detach().abs().flatten() for entry in (network().decoder[0].weight, network().head.weight)])
    found = torch.cat([model.decoder[0].weight.flatten(), model.head.weight.flatten()]) == 0
    assert torch.equal(found, size < size.sort().values[round(0.5 * len(size))])


@pytest.mark.parametrize("one", ["decoder.*", "decoder", "module", "parameter", "pair"])
def test_one_target_needs_no_list(one: str) -> None:
    model = network()
    layer = model.decoder[0]
    wanted = {"module": layer, "parameter": layer.weight, "pair": (layer, "weight")}.get(one, one)
    pruner = compress.Pruner(model, wanted, sparsity=0.5)
    assert [found.name for found in pruner.layers()] == ["decoder.0.weight"]


def test_biases_on_request() -> None:
    model = network()
    pruner = compress.Pruner(model, compress.weights(model.decoder, bias=True), sparsity=0.5)
    assert [found.name for found in pruner.layers()] == ["decoder.0.weight", "decoder.0.bias"]


def node_forms(model: Net) -> dict[str, Any]:
    """The nodes of `conv1` and `decoder.0`, in every form."""
    return {
        "patterns": compress.nodes("conv1", "decoder.*"),
        "a list": compress.nodes(["conv1", "decoder.0"]),
        "modules": compress.nodes(model.conv1, model.decoder),
        "parameters": compress.nodes(model.conv1.weight, model.decoder[0].bias),
        "pairs": compress.nodes((model.conv1, "weight"), (model.decoder[0], "weight")),
        "what is left": compress.nodes("*", exclude=["stem", model.conv2]),
        "what is left of modules": compress.nodes(model, exclude=[model.stem[0].weight, "conv2"]),
    }


@pytest.mark.parametrize("form", node_forms(network()))
def test_nodes_in_every_form(form: str) -> None:
    model = network()
    pruner = compress.Pruner(model, node_forms(model)[form], sparsity=0.5, example=EXAMPLE)
    assert [(found.name, found.size, found.pruned) for found in pruner.layers()] == [
        ("conv1", 24, 12),
        ("decoder.0", 20, 10),
    ]
    pruner.finalize()
    assert widths(compress.slim(model.eval(), EXAMPLE)) == [16, 12, 16, 10]


# --- how much ---

AMOUNTS = {
    "sparsity": 0.5,
    "params": 0.5,
    "macs": 0.5,
    "layers": {"*": 0.5},
    "keep": {"conv1": torch.arange(24) < 12},
}


@pytest.mark.parametrize("amount", AMOUNTS)
def test_each_amount(amount: str) -> None:
    model = network()
    target = compress.nodes("conv1")
    if amount in ("params", "macs"):
        target = compress.nodes("*")
    pruner = compress.Pruner(model, target, example=EXAMPLE, **{amount: AMOUNTS[amount]})  # type: ignore[arg-type]
    pruner.finalize()
    small = compress.slim(model.eval(), EXAMPLE)
    if amount in ("params", "macs"):
        left, whole = (getattr(measure(net, EXAMPLE), amount) for net in (small, network()))
        assert pruner.achieved == left / whole <= 0.5
    else:
        assert widths(small) == [16, 12, 16, 20]
        assert pruner.achieved == 0.5


@pytest.mark.parametrize("pair", [*combinations(AMOUNTS, 2), ()])
@pytest.mark.parametrize("target", [compress.nodes("conv1"), compress.weights("conv1")])
def test_exactly_one_amount(pair: tuple[str, ...], target: Any) -> None:
    model = network()
    with pytest.raises(InputError, match="give exactly one of") as caught:
        compress.Pruner(model, target, example=EXAMPLE, **{name: AMOUNTS[name] for name in pair})
    assert all(name in str(caught.value) for name in pair)
    assert not prune.is_pruned(model)


def test_masks_of_weights_by_name_and_in_order() -> None:
    keep = torch.rand(20, 144) > 0.3
    for form in ([keep], {"decoder.0.weight": keep}):
        model = network()
        compress.Pruner(model, "decoder", keep=form).finalize()
        assert torch.equal(model.decoder[0].weight == 0, ~keep)


def test_layers_of_weights() -> None:
    model = network()
    pruner = compress.Pruner(model, "*", layers={"conv*": 0.25, "*": 0})
    assert {layer.name: layer.share for layer in pruner.layers()} == {
        "stem.0.weight": 0,
        "conv1.weight": 0.25,
        "conv2.weight": 0.25,
        "decoder.0.weight": 0,
        "head.weight": 0,
    }


# --- which ---

WORDS = [(word, member) for member in CRITERIA for word in member.words]
LOSSLESS = ("variance", "principal_axes", "obs")


@pytest.mark.parametrize(("word", "member"), WORDS, ids=[word for word, _ in WORDS])
@pytest.mark.parametrize("kind", ["weights", "nodes"])
def test_every_criterion_by_word_and_as_an_object(
    word: str, member: Any, kind: str, loader: list[tuple[Tensor, Tensor]]
) -> None:
    """A word and its object choose the same; a criterion of the other kind, or without its data, says so."""
    target = compress.weights("decoder.*") if kind == "weights" else compress.nodes("decoder.*")
    given = {"sparsity": 0.5, "example": EXAMPLE}
    data = {"batches": loader, "loss": F.cross_entropy}
    model = network()
    if not (member.ranks_weights() if kind == "weights" else member.ranks_nodes()):
        with pytest.raises(TargetError, match=f"the criterion {word} ranks .* and the target is {kind}"):
            compress.Pruner(model, target, criterion=word, **given, **data)
        assert not prune.is_pruned(model)
        return
    found = []
    for criterion in (word, member(**member.decided_by(word))):
        model = network()
        pruner = compress.Pruner(model, target, criterion=criterion, **given, **data)
        pruner.finalize()
        found.append(zeros(model))
        assert pruner.achieved == 0.5
    assert same(*found)
    if not member.needs_data:
        plain = network()
        compress.Pruner(plain, target, criterion=word, **given).finalize()
        assert same(zeros(plain), found[0])
        return
    for missing in ("batches", "loss"):
        if missing == "loss" and word in LOSSLESS:
            continue
        model = network()
        rest = {name: value for name, value in data.items() if name != missing}
        with pytest.raises(InputError, match=f"the criterion {word} needs .*; give {missing}="):
            compress.Pruner(model, target, criterion=word, **given, **rest)
        assert not prune.is_pruned(model)


def test_the_options_of_a_criterion_count(loader: list[tuple[Tensor, Tensor]]) -> None:
    """Taylor of the first 20 samples is Taylor of the first batch."""
    found = []
    for criterion, batches in ((compress.Taylor(samples=20), loader), (compress.Taylor(), loader[:1])):
        model = network()
        compress.Pruner(model, "*", sparsity=0.5, criterion=criterion, batches=batches, loss=F.cross_entropy).finalize()
        found.append(zeros(model))
    assert same(*found)


@pytest.mark.parametrize("batches", ["a loader", "a list", "a function of the size"])
def test_batches_in_every_form(batches: str, loader: list[tuple[Tensor, Tensor]]) -> None:
    x, y = (torch.cat(part) for part in zip(*loader, strict=True))
    data = torch.utils.data.TensorDataset(x, y)
    form = {
        "a loader": torch.utils.data.DataLoader(data, batch_size=25),
        "a list": list(zip(x.split(25), y.split(25), strict=True)),
        "a function of the size": lambda size: zip(x.split(size), y.split(size), strict=True),
    }[batches]
    model = network()
    target, how = compress.nodes("conv*"), {"sparsity": 0.5, "example": EXAMPLE, "loss": F.cross_entropy}
    compress.Pruner(model, target, criterion="taylor_square", batches=form, **how).finalize()  # type: ignore[arg-type]
    expected = network()
    slices = list(zip(x.split(25), y.split(25), strict=True))
    compress.Pruner(expected, target, criterion="taylor_square", batches=slices, **how).finalize()  # type: ignore[arg-type]
    assert same(zeros(model), zeros(expected))


def test_a_function_that_scores_a_tensor() -> None:
    """Of weights each entry's score, of nodes the sum over all their entries."""

    def largest_first(weight: Tensor) -> Tensor:
        return -weight.abs()

    model, dense = network(), network()
    compress.Pruner(model, "decoder.*", sparsity=0.25, criterion=largest_first).finalize()
    size = dense.decoder[0].weight.abs().flatten()
    gone = (model.decoder[0].weight == 0).flatten()
    assert gone.sum() == round(0.25 * len(size))
    assert size[gone].min() >= size[~gone].max()

    model = network()
    pruner = compress.Pruner(
        model, compress.nodes("decoder.*"), sparsity=0.25, example=EXAMPLE, criterion=largest_first
    )
    pruner.finalize()
    layer, reader = dense.decoder[0], dense.head
    total = layer.weight.abs().sum(1) + layer.bias.abs() + reader.weight.abs().sum(0)
    assert torch.equal((model.decoder[0].weight == 0).all(1), total > total.sort().values[14])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda weight: 1 / 0, r"failed on decoder\.0\.weight .*ZeroDivisionError"),
        (lambda weight: weight.sum(), r"gave torch\.float32 \[\] for decoder\.0\.weight; it must give a float score"),
        (lambda weight: weight > 0, r"gave torch\.bool"),
        (lambda weight: weight.tolist(), "gave list"),
        (lambda weight: weight * float("nan"), "hold NaN"),
        (lambda: 3, r"failed on decoder\.0\.weight .*TypeError"),
    ],
)
@pytest.mark.parametrize("target", [compress.weights("decoder.*"), compress.nodes("decoder.*")])
def test_a_function_that_scores_nothing(wrong: Any, says: str, target: Any) -> None:
    model = network()
    with pytest.raises(InputError, match=says):
        compress.Pruner(model, target, sparsity=0.25, example=EXAMPLE, criterion=wrong)
    assert not prune.is_pruned(model)


# --- how ---

REMOVALS = [
    compress.Hard(),
    compress.Soft(steps=6),
    compress.Soft(factor=0.05, final=1e-3),
    compress.Soft(steps=6, decay="cosine"),
    compress.Soft(steps=6, decay=lambda progress: 1 - progress),
    compress.Soft(steps=6, learns=True),
    compress.Gradual(steps=6, every=2),
    compress.GradualSoft(steps=6, every=2),
    compress.SFP(steps=6, every=2),
    compress.SRFP(steps=6, every=2),
    compress.GReg(steps=6),
]


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.word)
@pytest.mark.parametrize("kind", ["weights", "nodes"])
def test_every_removal(removal: compress.Removal, kind: str, loader: list[tuple[Tensor, Tensor]]) -> None:
    model = network()
    target = compress.weights("conv*", "decoder.*") if kind == "weights" else compress.nodes("conv*", "decoder.*")
    pruner = compress.Pruner(model, target, sparsity=0.5, removal=removal, example=EXAMPLE)
    assert pruner.removed == (removal.length == 0)
    for _ in training(model, loader, removal.length):
        pruner.step()
    assert pruner.removed
    pruner.finalize()
    assert (pruner.removed, pruner.achieved) == (True, 0.5)
    assert not prune.is_pruned(model)
    if kind == "weights":
        found = [model.conv1.weight, model.conv2.weight, model.decoder[0].weight]
        assert sum(int((one == 0).sum()) for one in found) == round(0.5 * sum(one.numel() for one in found))
    else:
        assert widths(compress.slim(model.eval(), EXAMPLE)) == [16, 12, 8, 10]


def test_at_once_if_nothing_is_said() -> None:
    found = []
    for how in ({}, {"removal": "hard"}, {"removal": compress.Hard()}):
        model = network()
        compress.Pruner(model, "*", sparsity=0.5, **how).finalize()  # type: ignore[arg-type]
        found.append(zeros(model))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


# --- what it says of itself ---


def test_a_line_says_what_is_pruned_and_how_far_it_is(loader: list[tuple[Tensor, Tensor]]) -> None:
    model = network()
    pruner = compress.Pruner(model, "decoder.*", sparsity=0.9, removal=compress.Soft(steps=4, decay="linear"))
    seen = [repr(pruner)]
    for _ in training(model, loader, 4):
        pruner.step()
        seen.append(repr(pruner))
    pruner.finalize()
    seen.append(repr(pruner))
    start = "Pruner(decoder.*: 2,592 of 2,880 weights (90.0%), soft, "
    assert [line.removeprefix(start) for line in seen] == [
        "step 0 of 4, at 1 of their start)",
        "step 1 of 4, at 0.75 of their start)",
        "step 2 of 4, at 0.5 of their start)",
        "step 3 of 4, at 0.25 of their start)",
        "step 4 of 4, at 0 of their start)",
        "finished)",
    ]
    nodes = compress.Pruner(network(), compress.nodes("conv*"), sparsity=0.5, example=EXAMPLE)
    assert str(nodes) == "Pruner(conv*: 20 of 40 nodes (50.0%), hard, removed at once)"


@pytest.mark.parametrize("removal", [compress.Hard(), compress.Gradual(steps=4, every=1)])
@pytest.mark.parametrize("kind", ["weights", "nodes"])
def test_layers_achieved_and_removed_at_every_moment(
    removal: compress.Removal, kind: str, loader: list[tuple[Tensor, Tensor]]
) -> None:
    model = network()
    target = compress.weights("conv*") if kind == "weights" else compress.nodes("conv*")
    pruner = compress.Pruner(model, target, sparsity=0.5, removal=removal, example=EXAMPLE)

    def check() -> float:
        layers = pruner.layers()
        sizes = {"weights": [16 * 24 * 9] * 2, "nodes": [24, 16]}[kind]
        assert [layer.name for layer in layers] == {
            "weights": ["conv1.weight", "conv2.weight"],
            "nodes": ["conv1", "conv2"],
        }[kind]
        assert [layer.size for layer in layers] == sizes
        for layer in layers:
            assert layer.share == layer.pruned / layer.size
        weights = (model.conv1.weight, model.conv2.weight)
        seen = [int((w == 0).sum()) if kind == "weights" else int((w == 0).flatten(1).all(1).sum()) for w in weights]
        assert [layer.pruned for layer in layers] == seen
        assert pruner.achieved == pytest.approx(sum(seen) / sum(sizes))
        return pruner.achieved

    shares = [check()]
    for _ in training(model, loader, removal.length):
        pruner.step()
        shares.append(check())
    pruner.finalize()
    assert (check(), pruner.removed) == (0.5, True)
    assert shares == sorted(shares)


# --- stage after stage ---


@pytest.mark.parametrize("given", ["the pruner", "its pruned"])
def test_what_an_earlier_pruner_took_counts_and_stays(given: str) -> None:
    model = network()
    first = compress.Pruner(model, "*", sparsity=0.4)
    first.finalize()
    before = zeros(model)
    second = compress.Pruner(
        model, "*", sparsity=0.6, criterion="random", earlier=first if given == "the pruner" else first.pruned
    )
    second.finalize()
    after = zeros(model)
    assert all(not (before[name] & ~after[name]).any() for name in before)
    total = sum(mask.numel() for mask in after.values())
    assert sum(int(mask.sum()) for mask in after.values()) == round(0.6 * total)
    assert second.achieved == pytest.approx(0.6, abs=1e-4)


def test_nodes_after_weights_and_weights_after_nodes() -> None:
    model = network()
    first = compress.Pruner(model, compress.nodes("conv*"), sparsity=0.5, example=EXAMPLE)
    first.finalize()
    second = compress.Pruner(model, "decoder.*", sparsity=0.5, earlier=first)
    second.finalize()
    third = compress.Pruner(model, compress.nodes("conv*", "decoder.*"), macs=0.3, example=EXAMPLE, earlier=second)
    third.finalize()
    small = compress.slim(model.eval(), EXAMPLE)
    assert measure(small, EXAMPLE).macs <= 0.3 * measure(network(), EXAMPLE).macs
    assert (model.decoder[0].weight == 0).sum() >= 0.5 * 2880


def test_a_pruner_at_work_is_not_earlier() -> None:
    model = network()
    first = compress.Pruner(model, "decoder.*", sparsity=0.4)
    with pytest.raises(InputError, match=r"earlier: this pruner has not finished; call its finalize\(\) first"):
        compress.Pruner(model, "head.*", sparsity=0.4, earlier=first)


@pytest.mark.parametrize("regrow", [0.3, compress.Regrowth(share=0.3, samples=40)])
def test_regrow(regrow: Any, loader: list[tuple[Tensor, Tensor]]) -> None:
    model, returned = network(), 0
    how = {"batches": loader, "loss": F.cross_entropy, "removal": compress.Gradual(steps=8, every=2)}
    pruner = compress.Pruner(model, "conv*", sparsity=0.5, regrow=regrow, **how)
    before = torch.zeros(16, 24, 3, 3, dtype=torch.bool)
    for _ in training(model, loader, 8):
        pruner.step()
        now = model.conv2.weight_pruned.clone()
        returned += int((before & ~now).sum())
        before = now
    pruner.finalize()
    assert returned > 0
    assert pruner.achieved == 0.5


def test_compensate_is_the_best_that_the_reader_can_do(
    loader: list[tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's outputs, fitted by least squares to the dense ones on the nodes that are kept."""
    monkeypatch.setattr("compress.select.compensation.fit.RIDGE", 1e-5)
    model, dense = network().eval(), network().eval()
    target = compress.nodes("decoder.*")
    pruner = compress.Pruner(model, target, sparsity=0.5, example=EXAMPLE, compensate=True, batches=loader)
    pruner.finalize()
    keep = ~(model.decoder[0].weight == 0).all(1)
    assert keep.sum() == 10
    x = torch.cat([inputs for inputs, _ in loader])
    nodes = dense.decoder(
        F.max_pool2d(F.relu(dense.conv2(F.relu(dense.norm(dense.conv1(dense.stem(x)))))), 2).flatten(1)
    )
    columns = torch.cat([nodes[:, keep], torch.ones(len(x), 1)], 1).detach().double()
    best = columns @ torch.linalg.lstsq(columns, dense(x).detach().double()).solution
    torch.testing.assert_close(model(x).detach().double(), best, rtol=1e-3, atol=1e-3)


def test_principal_axes_put_a_bottleneck_in(loader: list[tuple[Tensor, Tensor]]) -> None:
    model, dense = network().eval(), network().eval()
    pruner = compress.Pruner(
        model, compress.nodes("decoder.0"), sparsity=0.5, example=EXAMPLE, criterion="principal_axes", batches=loader
    )
    assert [(layer.name, layer.size, layer.pruned) for layer in pruner.layers()] == [("head.axes", 20, 10)]
    pruner.finalize()
    small = compress.slim(model, EXAMPLE)
    assert small.get_parameter("head.axes.weight").shape == (10, 20)
    x = torch.cat([inputs for inputs, _ in loader])
    assert (small(x) - dense(x)).square().mean() < 0.05 * dense(x).var()


# --- resuming ---

RESUMED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "weights, soft": (lambda: "*", {"sparsity": 0.5, "removal": compress.Soft(steps=12)}),
    "weights, gradual soft with regrowth": (
        lambda: "conv*",
        {"sparsity": 0.5, "removal": compress.GradualSoft(steps=12, every=2), "regrow": 0.2},
    ),
    "weights by chance, gradual": (
        lambda: "conv*",
        {"sparsity": 0.5, "criterion": "random", "removal": compress.Gradual(steps=12, every=2)},
    ),
    "weights, learning": (lambda: "*", {"sparsity": 0.5, "removal": compress.SRFP(steps=12, every=3)}),
    "nodes, soft": (
        lambda: compress.nodes("*", exclude="stem.*"),
        {"macs": 0.5, "criterion": "taylor_square", "scope": "global", "removal": compress.Soft(steps=12)},
    ),
    "nodes, gradual": (
        lambda: compress.nodes("*"),
        {"sparsity": 0.5, "criterion": "norms", "removal": compress.GradualSoft(steps=12, every=2)},
    ),
    "principal axes": (
        lambda: compress.nodes("decoder.0"),
        {"sparsity": 0.5, "criterion": "principal_axes", "removal": compress.Soft(steps=12)},
    ),
    "compensated": (
        lambda: compress.nodes("decoder.*"),
        {"sparsity": 0.5, "compensate": True, "removal": compress.Hard()},
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_equals_the_uninterrupted_one(case: str, loader: list[tuple[Tensor, Tensor]]) -> None:
    target, words = RESUMED[case]

    def made(start: bool = True) -> tuple[Net, compress.Pruner, torch.optim.Optimizer]:
        model = network()
        if not start:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(3)  # whatever it held before: the checkpoint decides
        data = {"batches": loader, "loss": F.cross_entropy, "example": EXAMPLE}
        pruner = compress.Pruner(model, target(), start=start, **data, **words)
        return model, pruner, torch.optim.Adam(model.parameters(), lr=0.01)

    def steps(model: nn.Module, pruner: compress.Pruner, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            x, y = loader[step % len(loader)]
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()

    def run(interrupted: bool) -> dict[str, Tensor]:
        parts = made()
        steps(*parts, range(7))
        if interrupted:
            saved = copy.deepcopy([part.state_dict() for part in parts])
            parts = made(start=False)
            for part, state in zip((parts[0], parts[2], parts[1]), (saved[0], saved[2], saved[1]), strict=True):
                part.load_state_dict(state)
        steps(*parts, range(7, 13))
        model, pruner, _ = parts
        pruner.finalize()
        assert pruner.achieved == pytest.approx(0.5, abs=0.1)
        return model.state_dict()

    whole, halves = run(False), run(True)
    assert same(halves, whole)


# --- two doors to one engine ---

RETRAIN = {"epochs": 2, "optimizer": "adam", "lr": 0.01}
TWO_DOORS: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "weights, gradual soft, regrowth": (
        {
            "target": {"weights": ["conv*", "decoder.*"], "exclude": "conv2"},
            "criterion": {"kind": "taylor", "samples": 60},
            "sparsity": 0.75,
            "scope": "erk",
            "min_keep": 3,
            "regrow": {"share": 0.2},
            "removal": {"kind": "gradual_soft", "over": "8 steps", "every": "2 steps", "cohort": "3 steps"},
            "retrain": RETRAIN,
        },
        compress.weights("conv*", "decoder.*", exclude="conv2"),
        {
            "criterion": compress.Taylor(samples=60),
            "sparsity": 0.75,
            "scope": "erk",
            "min_keep": 3,
            "regrow": 0.2,
            "removal": compress.GradualSoft(steps=8, every=2, cohort=3),
        },
    ),
    "weights of layers, with biases": (
        {
            "target": {"weights": "*", "bias": True},
            "criterion": "random",
            "layers": {"conv1.*": 0.3, "*": 0.6},
            "removal": {"kind": "soft", "over": "7 steps", "decay": "cosine"},
            "retrain": RETRAIN,
        },
        compress.weights("*", bias=True),
        {"criterion": "random", "layers": {"conv1.*": 0.3, "*": 0.6}, "removal": compress.Soft(7, "cosine")},
    ),
    "nodes to a budget": (
        {
            "target": {"nodes": "*", "exclude": ["stem.*"]},
            "criterion": "taylor_square",
            "macs": 0.5,
            "scope": "global",
            "multiple_of": 4,
            "min_keep": 0.2,
            "removal": {"kind": "soft", "over": "8 steps"},
            "retrain": RETRAIN,
        },
        compress.nodes("*", exclude=["stem.*"]),
        {
            "criterion": "taylor_square",
            "macs": 0.5,
            "scope": "global",
            "multiple_of": 4,
            "min_keep": 0.2,
            "removal": compress.Soft(steps=8),
        },
    ),
    "nodes that others make up for": (
        {
            "target": {"nodes": "decoder.*"},
            "criterion": {"kind": "skeletonization", "reduce": "abs"},
            "sparsity": 0.5,
            "compensate": True,
            "removal": "hard",
        },
        compress.nodes("decoder.*"),
        {"criterion": compress.Skeletonization(reduce="abs"), "sparsity": 0.5, "compensate": True},
    ),
    "principal axes, a penalty": (
        {
            "target": {"nodes": "decoder.0"},
            "criterion": "principal_axes",
            "sparsity": 0.5,
            "removal": {"kind": "greg", "over": "9 steps"},
            "retrain": RETRAIN,
        },
        compress.nodes("decoder.0"),
        {"criterion": "principal_axes", "sparsity": 0.5, "removal": compress.GReg(steps=9)},
    ),
}


@pytest.mark.parametrize("case", TWO_DOORS)
def test_a_stage_of_a_recipe_and_the_same_call_give_the_same_bits(case: str, npz: Path) -> None:
    wanted, target, words = TWO_DOORS[case]
    data = from_npz(npz)
    setting = Setting(data, "classify", 20, torch.device("cpu"), 5, unwatched, Clock())
    stage = Stage.model_validate(wanted)
    by_recipe, by_hand = network(), network()
    number = 1
    run_stage(by_recipe, stage, number, Pruned(), setting)

    pruner = compress.Pruner(
        by_hand,
        target,
        example=setting.example,
        batches=lambda size: data.batches("train", size, "classify")(),
        loss=F.cross_entropy,
        seed=setting.seed + number,
        **words,
    )
    if stage.retrain is not None:
        steps, removal = removal_of(stage, setting.steps_per_epoch)
        assert removal.length == pruner.removal.length
        train(
            by_hand,
            data.batches("train", 20, "classify"),
            F.cross_entropy,
            steps,
            optimization(stage.retrain),
            generator=torch.Generator().manual_seed(setting.seed),
            after_step=lambda step: pruner.step(),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finalize()
    if stage.retrain is None:  # the default of recipes
        chance = torch.Generator().manual_seed(setting.seed)
        compress.recalibrate(by_hand, lambda size: data.batches("train", size, "classify")(chance))
    assert same(by_hand.state_dict(), by_recipe.state_dict())
    assert any((entry == 0).any() for entry in by_hand.parameters())
