"""Patterns, scopes and budgets of nodes on a small residual network, judged by what is left after `slim`."""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.sources import from_npz
from compress.errors import InputError, TargetError, UnsupportedModelError
from compress.graph.coupling import couplings
from compress.graph.stats import measure
from compress.recipe.schema import Stage
from compress.run.clock import Clock
from compress.run.setting import Setting, unwatched
from compress.run.stage import check_stage, run_stage
from compress.select.node_selection import NodeSelection
from compress.select.pruned import Pruned
from compress.slimming.shrink import slim

RETRAIN = {"epochs": 2, "optimizer": "sgd", "lr": 0.01}  # 10 steps
REMOVALS: list[dict[str, Any]] = [
    {"removal": "hard"},
    {"removal": {"kind": "soft", "over": "6 steps"}, "retrain": RETRAIN},
    {"removal": {"kind": "gradual", "over": "8 steps", "every": "2 steps"}, "retrain": RETRAIN},
    {
        "removal": {"kind": "gradual_soft", "over": "9 steps", "cohort": "3 steps", "every": "1 step"},
        "retrain": RETRAIN,
    },
]


def each_removal_and(names: tuple[str, ...], *values: tuple[Any, ...]) -> pytest.MarkDecorator:
    """Not all combinations, which would take minutes: hard, soft, gradual and gradual_soft with their own values."""
    rows = [(how, *value) for how, value in zip(REMOVALS, values, strict=True)]
    return pytest.mark.parametrize(("how", *names), rows)


class Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(8, hidden, 3, padding=1), nn.BatchNorm2d(hidden)
        self.b, self.norm_b = nn.Conv2d(hidden, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))))


class Residual(nn.Module):
    """Widths: 8 in the stream, which stem and both blocks write; 12 and 16 inside the blocks; 20 before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(12), Block(16))
        self.dense, self.head = nn.Linear(8 * 9, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.blocks(F.relu(self.norm(self.stem(x)))), 2)
        logits: Tensor = self.head(torch.tanh(self.dense(x.flatten(1))))
        return logits


def network() -> Residual:
    """Norms have seen data, and every channel has a scale and its own shift."""
    torch.manual_seed(0)
    model = Residual()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model(torch.randn(50, 1, 6, 6))
    return model


def widths(model: nn.Module) -> list[int]:
    """Stream, inside the blocks, and before the head."""
    return [len(model.get_parameter(f"{name}.weight")) for name in ("stem", "blocks.0.a", "blocks.1.a", "dense")]


def stage(nodes: Sequence[str] = ("*",), **changes: Any) -> Stage:
    plain = {"target": {"nodes": list(nodes)}, "criterion": "magnitude", "removal": "hard"}
    level = {} if {"params", "macs"} & changes.keys() else {"sparsity": 0.5}
    return Stage.model_validate(plain | level | changes)


@pytest.fixture
def setting(npz: Path) -> Setting:
    return Setting(from_npz(npz), "classify", 20, torch.device("cpu"), 0, unwatched, Clock())


def pruned_by(stages: Sequence[Stage], setting: Setting) -> tuple[nn.Module, nn.Module, list[dict[str, Any]], Pruned]:
    """The masked network, the slim one, the stages' entries, and what they took."""
    model, pruned = network(), Pruned()
    found = [run_stage(model, stage, number, pruned, setting) for number, stage in enumerate(stages)]
    model.eval()
    inputs, _ = next(iter(setting.data.batches("test", 20, "classify")()))
    small = slim(model, setting.example)
    torch.testing.assert_close(small(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    return model, small, found, pruned


# --- which layers a pattern means ---


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["blocks.*"], [4, 6, 8, 20]),  # the stream too: the blocks write it
        (["blocks.*.a"], [8, 6, 8, 20]),
        (["blocks.1.*", "blocks.*.b", "*.1.a", "stem"], [4, 12, 8, 20]),  # each once, however often it is named
        (["*e*"], [4, 12, 16, 10]),  # the head's width remains, and a pattern does not mind
    ],
)
def test_a_pattern_takes_every_coupling_of_the_layers_that_it_matches(
    setting: Setting, nodes: list[str], expected: list[int]
) -> None:
    wanted = stage(nodes)
    _, small, (entry,), _ = pruned_by([wanted], setting)
    assert widths(small) == expected
    full = [width for width, left in zip(widths(network()), expected, strict=True) if left < width]
    assert (entry["of"], entry["pruned"]) == (sum(full), sum(full) // 2)
    assert entry["achieved"] == 0.5
    assert check_stage(network(), wanted, 0, setting) == sum(full) // 2


@pytest.mark.parametrize(
    ("nodes", "error", "text"),
    [
        (["encoder.*"], TargetError, "There is no layer 'encoder.*' with nodes"),
        (["*", "nothing?"], TargetError, "There is no layer 'nothing.'"),
        (
            ["blocks.*", "head"],
            UnsupportedModelError,
            "The layer 'head' must keep its width: it is the network's output",
        ),
        (["head*"], TargetError, "There is no layer 'head.'"),
    ],
)
def test_a_pattern_that_takes_nothing_is_refused_before_anything_is_done(
    setting: Setting, nodes: list[str], error: type[InputError], text: str
) -> None:
    with pytest.raises(error, match=f"^line 3 of stages.0.target: {text}"):
        check_stage(network(), stage(nodes), 0, setting, lambda place: f"line 3 of {place}")


# --- how much goes ---


@each_removal_and(("budget", "scope"), ("macs", "layer"), ("params", "global"), ("params", "layer"), ("macs", "global"))
def test_the_slim_network_keeps_to_its_budget(setting: Setting, budget: str, scope: str, how: dict[str, Any]) -> None:
    _, small, (entry,), _ = pruned_by([stage(scope=scope, **{budget: 0.4}, **how)], setting)
    dense, left = (getattr(measure(model, setting.example), budget) for model in (network(), small))
    assert 0.33 * dense < left <= 0.4 * dense
    assert (entry["measure"], entry["asked"]) == (budget, 0.4)
    assert entry["achieved"] == left / dense
    assert entry["pruned"] == sum(widths(network())) - sum(widths(small))
    assert entry["of"] == sum(widths(network()))


def test_parameters_are_those_of_the_slim_network_one_by_one(setting: Setting) -> None:
    _, small, (entry,), _ = pruned_by([stage(["blocks.*"], params=0.6)], setting)
    stream, first, second, dense = widths(small)
    convolution = 10 * stream + sum(2 * 9 * stream * width + width + stream for width in (first, second))
    norms = 2 * (stream + first + stream + second + stream)
    expected = convolution + norms + (9 * stream + 1) * dense + (dense + 1) * 3
    assert sum(parameter.numel() for parameter in small.parameters()) == expected
    total = sum(parameter.numel() for parameter in network().parameters())
    assert entry["achieved"] == expected / total <= 0.6


@each_removal_and(("scope",), ("isomorphic",), ("global",), ("layer",), ("global",))
def test_widths_are_round_and_not_too_small(setting: Setting, scope: str, how: dict[str, Any]) -> None:
    _, small, _, _ = pruned_by([stage(scope=scope, sparsity=0.5, multiple_of=4, min_keep=5, **how)], setting)
    assert all(width % 4 == 0 and width >= 8 for width in widths(small))
    assert sum(widths(small)) < sum(widths(network()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sparsity": 0.9, "min_keep": 0.4}, [4, 5, 7, 8]),  # 0.4 of 8, 12, 16 and 20, rounded up
        ({"sparsity": 0.9, "min_keep": 10}, [8, 10, 10, 10]),  # as far as there are nodes
        ({"sparsity": 0.5, "multiple_of": 4}, [4, 8, 8, 12]),
    ],
)
def test_what_stays_of_each_width(setting: Setting, options: dict[str, Any], expected: list[int]) -> None:
    assert widths(pruned_by([stage(**options)], setting)[1]) == expected


def test_a_budget_out_of_reach_is_refused_before_anything_is_trained(setting: Setting) -> None:
    for options, least in (({"params": 0.05, "min_keep": 0.5}, "min_keep=0.5"), ({"macs": 0.1, "min_keep": 6}, "6")):
        with pytest.raises(InputError, match=rf"^stages\.2\.target: (params|macs)=.* cannot be reached: .*{least}"):
            check_stage(network(), stage(**options), 2, setting)
    assert check_stage(network(), stage(params=0.05), 2, setting) > 0


# --- who competes with whom ---


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("layer", [6, 9, 12, 15]),  # each by itself
        ("isomorphic", [8, 10, 9, 15]),  # channels with channels: 9 of 36 go
        ("global", [8, 10, 4, 20]),  # 14 of all 56
    ],
)
def test_the_scope_says_whose_nodes_compete(setting: Setting, scope: str, expected: list[int]) -> None:
    """The loss depends on next to nothing in the second block, and on two channels of the first that are always off."""
    model = network()
    with torch.no_grad():
        model.get_parameter("blocks.1.b.weight").mul_(1e-6)
    wanted = stage(scope=scope, criterion={"kind": "taylor", "samples": 40}, sparsity=0.25)
    run_stage(model, wanted, 0, Pruned(), setting)
    assert widths(slim(model.eval(), setting.example)) == expected


# --- stage after stage ---


def test_a_later_stage_gives_nothing_back(setting: Setting) -> None:
    first = stage(["blocks.*.a"], sparsity=0.5)
    model, small, entries, pruned = pruned_by([first, stage(["*"], sparsity=0.25)], setting)
    assert widths(small) == [6, 6, 8, 15]
    assert [entry["pruned"] for entry in entries] == [14, 2 + 6 + 8 + 5]
    alone, _, _, before = pruned_by([first], setting)
    for coupling, keep in before.keep_nodes.items():
        assert torch.equal(pruned.keep_nodes[coupling], keep)
    for name, parameter in alone.named_parameters():
        assert not model.get_parameter(name)[parameter == 0].any()


@each_removal_and(("scope",), ("layer",), ("isomorphic",), ("global",), ("layer",))
def test_a_budget_counts_what_earlier_stages_took(setting: Setting, scope: str, how: dict[str, Any]) -> None:
    first = stage(["blocks.1.a"], sparsity=0.75)
    second = stage(["blocks.0.a", "dense"], scope=scope, params=0.5, **how)
    third = stage(scope=scope, criterion="norms", params=0.4)
    sketch = Pruned()
    for number, wanted in enumerate((first, second, third)):
        check_stage(network(), wanted, number, setting, str, sketch)
    _, small, entries, _ = pruned_by([first, second, third], setting)
    dense, left = (sum(parameter.numel() for parameter in model.parameters()) for model in (network(), small))
    assert 0.4 < entries[1]["achieved"] <= 0.5
    assert 0.33 < entries[2]["achieved"] == left / dense <= 0.4


def test_a_budget_that_is_met_already_takes_nothing(setting: Setting) -> None:
    _, small, entries, _ = pruned_by([stage(sparsity=0.5), stage(params=0.9)], setting)
    assert widths(small) == [4, 6, 8, 10]
    left, dense = (sum(parameter.numel() for parameter in model.parameters()) for model in (small, network()))
    assert entries[1]["achieved"] == left / dense


def test_a_budget_that_needs_an_earlier_stage_is_not_refused(setting: Setting) -> None:
    stages = [stage(["blocks.*.a"], sparsity=0.9), stage(["dense"], params=0.3)]
    with pytest.raises(InputError, match="cannot be reached"):
        check_stage(network(), stages[1], 0, setting)
    sketch = Pruned()
    for wanted in stages:
        check_stage(network(), wanted, 0, setting, str, sketch)
    assert pruned_by(stages, setting)[2][1]["achieved"] <= 0.3


# --- who trains ---


def test_adjacent_is_what_writes_and_what_reads_the_nodes(setting: Setting) -> None:
    adjacent = {f"blocks.{index}.{part}" for index in (0, 1) for part in ("a", "norm_a", "b")} | {"dense", "head"}
    model, before = network(), network()
    wanted = stage(["blocks.*.a", "de*"], sparsity=0.0, retrain=RETRAIN | {"trainable": "adjacent"})
    run_stage(model, wanted, 0, Pruned(), setting)
    moved = {
        name.rpartition(".")[0]
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before.get_parameter(name))
    }
    assert moved == adjacent


def test_adjacent_of_a_parameter_of_the_network_itself(setting: Setting) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.shift = nn.Linear(36, 8), nn.Parameter(torch.randn(8))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(torch.tanh(self.a(x.flatten(1)) + self.shift))
            return logits

    torch.manual_seed(0)
    model = Net()
    before = copy.deepcopy(model)
    run_stage(model, stage(["a"], retrain=RETRAIN | {"trainable": "adjacent"}), 0, Pruned(), setting)
    assert not torch.equal(model.shift, before.shift)
    assert slim(model.eval(), setting.example).get_parameter("shift").shape == (4,)


# --- while it goes ---


@pytest.mark.parametrize("level", [{"sparsity": 0.5}, {"macs": 0.5}])
def test_a_ramp_only_ever_takes_more(
    setting: Setting, level: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[dict[str, Tensor]] = []
    choose = NodeSelection._masks

    def watched(self: NodeSelection, *arguments: Any) -> dict[str, Tensor]:
        taken.append(choose(self, *arguments))
        return taken[-1]

    monkeypatch.setattr(NodeSelection, "_masks", watched)
    wanted = stage(scope="global", criterion={"kind": "taylor", "samples": 20}, **level, **REMOVALS[3])
    pruned_by([wanted], setting)
    counts = [sum(int((~mask).sum()) for mask in masks.values()) for masks in taken]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    for before, after in itertools.pairwise(taken):
        assert all(not (after[name] & ~mask).any() for name, mask in before.items())


@each_removal_and(("criterion",), ("skeletonization",), ("norms",), ("variance",), ("taylor_square",))
def test_nothing_is_lost_behind_a_batch_norm(setting: Setting, criterion: str, how: dict[str, Any]) -> None:
    """`pruned_by` compares masked with slim; here also that each width is what was asked."""
    _, small, _, _ = pruned_by([stage(criterion=criterion, sparsity=0.5, **how)], setting)
    assert widths(small) == [4, 6, 8, 10]
    known = couplings(small, setting.example)
    assert [coupling.size for coupling in known.found] == [4, 6, 8, 10]
