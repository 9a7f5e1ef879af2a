"""Which branches go: compared with brute force over the same networks."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compress
from compress.errors import InputError, TargetError, UnsupportedModelError
from compress.graph.stats import measure
from compress.models.resnet import resnet20
from compress.select.selections import selection_of
from tests.graph.test_branches import Block


class Stack(nn.Module):
    """Blocks between two layers, as in a small transformer."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.blocks(self.stem(x)).mean(1))
        return found


ENDS = [f"blocks.{block}.{end}" for block in range(3) for end in ("attention.out_proj", "mlp.2")]
INPUTS = torch.randn(40, 5, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 3
BATCHES = [(INPUTS[:20], LABELS[:20]), (INPUTS[20:], LABELS[20:])]


def stack() -> Stack:
    torch.manual_seed(3)
    model = Stack().eval()
    for index, name in enumerate(ENDS):  # of very different weight
        nn.init.normal_(model.get_parameter(f"{name}.weight"), std=0.2 + 0.1 * ((5 * index) % 7))
    return model


def without(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    found = copy.deepcopy(model)
    for name in names:
        nn.init.zeros_(found.get_parameter(f"{name}.weight"))
        nn.init.zeros_(found.get_parameter(f"{name}.bias"))
    return found


def pruned(model: nn.Module, target: object = compress.branches("*"), **options: object) -> compress.Pruner:
    options = {"batches": BATCHES, "loss": F.cross_entropy, **options}
    return compress.Pruner(model, target, example=INPUTS[:2], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_greedy_choice_is_that_of_brute_force(count: int) -> None:
    model = stack()
    expected: tuple[str, ...] = ()
    with torch.no_grad():
        for _ in range(count):
            left = [name for name in ENDS if name not in expected]
            losses = {name: F.cross_entropy(without(model, (*expected, name))(INPUTS), LABELS) for name in left}
            expected = (*expected, min(losses, key=lambda name: float(losses[name])))
    pruner = pruned(model, sparsity=count / 6)
    assert {layer.name for layer in pruner.layers() if layer.pruned} == set(expected)
    pruner.finalize()
    assert torch.equal(model(INPUTS), without(stack(), expected)(INPUTS))


def test_without_a_loss_the_outputs_decide() -> None:
    model = stack()
    with torch.no_grad():
        changes = {name: float((without(model, (name,))(INPUTS) - model(INPUTS)).square().sum()) for name in ENDS}
    pruner = pruned(model, sparsity=1 / 6, batches=[INPUTS], loss=None)
    assert [layer.name for layer in pruner.layers() if layer.pruned] == [min(changes, key=lambda one: changes[one])]


@pytest.mark.parametrize("measured", ["params", "macs"])
@pytest.mark.parametrize("value", [0.9, 0.6, 0.45])
def test_a_budget_is_met_by_the_slim_network(measured: str, value: float) -> None:
    model = stack()
    pruner = pruned(model, **{measured: value})
    pruner.finalize()
    small = compress.slim(model, INPUTS[:2])
    if measured == "params":
        assert sum(map(torch.numel, small.parameters())) <= value * sum(map(torch.numel, stack().parameters()))
        left = sum(map(torch.numel, small.parameters())) / sum(map(torch.numel, stack().parameters()))
        # The norms of a removed branch go as well, and only whole branches can.
        assert pruner.achieved == pytest.approx(left)
    else:
        assert measure(small, INPUTS[:2]).macs < measure(model, INPUTS[:2]).macs
    assert pruner.achieved <= value


def test_earlier_ones_remain_and_count_and_nodes_know_of_them() -> None:
    model = stack()
    first = pruned(model, sparsity=1 / 3)
    first.finalize()
    gone = {layer.name for layer in first.layers() if layer.pruned}
    second = pruned(model, sparsity=0.5, earlier=first)
    second.finalize()
    assert gone < {layer.name for layer in second.layers() if layer.pruned}
    assert second.achieved == 0.5
    third = pruned(model, compress.nodes("*"), params=0.5, criterion="norms", earlier=second)
    third.finalize()
    small = compress.slim(model, INPUTS[:2])
    share = sum(map(torch.numel, small.parameters())) / sum(map(torch.numel, stack().parameters()))
    assert 0.4 < share <= 0.5, "nodes would be cut far below what is asked, if removed branches counted"


def test_soft_removal_lets_the_branch_fade() -> None:
    model, dense = stack(), stack()
    pruner = pruned(model, compress.branches(ENDS[0]), sparsity=0.9, removal=compress.Soft(steps=4, decay="linear"))
    for step in range(4):
        module = model.get_submodule(ENDS[0])
        share = 1 - step / 4
        torch.testing.assert_close(module.weight, share * dense.get_submodule(ENDS[0]).weight)
        torch.testing.assert_close(module.bias, share * dense.get_submodule(ENDS[0]).bias)
        pruner.step()
    pruner.finalize()
    assert not model.get_parameter(f"{ENDS[0]}.weight").any()
    compress.slim(model, INPUTS[:2])


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (compress.branches("blocks.1"), ENDS[2:4]),
        (compress.branches("*.mlp"), ENDS[1::2]),
        (compress.branches("*", exclude="blocks.0"), ENDS[2:]),
        (compress.branches("blocks.0.mlp.2", "blocks.?.attention*"), [ENDS[0], ENDS[1], ENDS[2], ENDS[4]]),
    ],
)
def test_targets_name_the_end_or_a_module_around_it(target: object, names: list[str]) -> None:
    found = selection_of(stack(), target, sparsity=0.5, example=INPUTS[:2], batches=[INPUTS])  # type: ignore[arg-type]
    assert list(found.layers) == names


def test_targets_take_modules_and_parameters() -> None:
    model = stack()
    target = compress.branches(model.blocks[2], model.get_parameter(f"{ENDS[0]}.bias"))
    found = selection_of(model, target, sparsity=0.5, example=INPUTS[:2], batches=[INPUTS])
    assert list(found.layers) == [ENDS[0], *ENDS[4:]]


WRONG = [
    ({"target": compress.branches("blocks.3")}, UnsupportedModelError, "'blocks.3.norm2' cannot be removed: its short"),
    ({"target": compress.branches("block.0")}, TargetError, "matches no residual branch.*did you mean"),
    ({"target": compress.branches("*", exclude="*")}, TargetError, "nothing is left"),
    ({"criterion": "magnitude"}, TargetError, "does not rank branches; use ablation"),
    ({"scope": "global"}, InputError, "scope is for weights or nodes"),
    ({"min_keep": 2}, InputError, "min_keep is for weights or nodes"),
    ({"multiple_of": 8}, InputError, "multiple_of is for weights or nodes"),
    ({"sparsity": None, "layers": {"*": 0.5}}, InputError, "layers is for weights and nodes"),
    ({"sparsity": None, "macs": 0.05}, InputError, "cannot be reached: without the targeted branches, "),
    ({"batches": None}, InputError, "needs data"),
    ({"batches": []}, InputError, "gave none"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_refuses(options: dict[str, object], error: type[Exception], message: str) -> None:
    image = torch.randn(2, 3, 32, 32)
    given = {"target": compress.branches("*"), "sparsity": 0.5, "example": image, "batches": [image], **options}
    model = resnet20().eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        compress.Pruner(model, given.pop("target"), **given)  # type: ignore[arg-type]
    assert all(map(torch.equal, before.values(), model.state_dict().values()))


@pytest.mark.parametrize("sparsity", [1 / 3, 0.5])
def test_compensation_makes_up_for_much_of_what_is_missing(sparsity: float) -> None:
    samples = torch.randn(600, 5, 6, generator=torch.Generator().manual_seed(1))
    dense, errors = stack(), []
    for compensate in (False, True):
        model = stack()
        pruner = pruned(model, sparsity=sparsity, batches=[samples], loss=None, compensate=compensate)
        pruner.finalize()
        with torch.no_grad():
            errors.append(float((model(INPUTS) - dense(INPUTS)).square().mean()))
        small = compress.slim(model, INPUTS[:2])
        torch.testing.assert_close(small(INPUTS), model(INPUTS))
    assert errors[1] < 0.5 * errors[0]


def test_a_constant_branch_is_made_up_for_exactly() -> None:
    """A branch that adds the same to every sample is what the bias of the next one can carry."""
    model = stack()
    first, others = ENDS[0], itertools.chain(ENDS[1:])
    nn.init.zeros_(model.get_parameter(f"{first}.weight"))
    nn.init.normal_(model.get_parameter(f"{first}.bias"))
    assert list(others) == ENDS[1:]
    dense = copy.deepcopy(model)
    samples = torch.randn(600, 5, 6, generator=torch.Generator().manual_seed(1))
    pruner = pruned(model, compress.branches(first), sparsity=0.9, batches=[samples], loss=None, compensate=True)
    pruner.finalize()
    with torch.no_grad():
        change = (model(INPUTS) - dense(INPUTS)).square().mean() / dense(INPUTS).var()
        plain = (without(dense, (first,))(INPUTS) - dense(INPUTS)).square().mean() / dense(INPUTS).var()
    assert change < 0.02 * plain


def test_a_resumed_pruner_has_the_same_branches() -> None:
    model = stack()
    options = {"sparsity": 0.5, "removal": compress.Soft(steps=3)}
    pruner = pruned(model, **options)
    pruner.step()
    state, weights = pruner.state_dict(), copy.deepcopy(model.state_dict())
    other = stack()
    resumed = pruned(other, start=False, **options)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    assert resumed.layers() == pruner.layers()
    for each in (pruner, resumed):
        each.step()
        each.step()
        each.finalize()
    assert torch.equal(other(INPUTS), model(INPUTS))
