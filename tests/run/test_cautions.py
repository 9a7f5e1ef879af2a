"""What a recipe is warned of: each kind with a recipe that has it and one that has not, everywhere it is shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import Result

from compress.graph.coupling import Coupling, couplings
from compress.remove.removals import Gradual, GradualSoft, Hard, Soft
from compress.report.page import with_code
from compress.run.cautions import decay_steps, layers_of
from compress.run.widths import Widths
from compress.run_warnings import RunWarning, entry, text_of

Run = Callable[..., Result]

NET = """\
from torch import nn
def build():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 12), nn.ReLU(), nn.Linear(12, 40), nn.ReLU(),
        nn.Linear(40, CLASSES))
"""
RECIPE = """\
name: cautious
model: {factory: "cautious_net:build"}
data: {npz: cautious.npz, batch_size: 8}
task: classify
train: {epochs: 2, optimizer: adamw, lr: 1e-2}
stages:
  - target: {nodes: "1"}
    criterion: norms
    sparsity: 0.5
    removal: {kind: soft, over: 1 epoch}
    retrain: {epochs: 2, optimizer: adamw, lr: 1e-3}
export: [onnx]
benchmark: {batch_sizes: [1]}
"""
CLASSES = 5


@pytest.fixture
def warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, pictures: Any) -> Callable[..., list[Any]]:
    """The warnings of `plan`, for a recipe with these changes: 200 training samples, 25 steps an epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    np.savez("cautious.npz", **pictures(240, classes=CLASSES))
    Path("cautious_net.py").write_text(NET.replace("CLASSES", str(CLASSES)))
    Path("cautious.yaml").write_text(RECIPE)
    run("train", "cautious.yaml", "-o", "model.pt", "-q")

    def plan(*changes: str) -> list[Any]:
        options = [word for change in changes for word in ("--set", change)]
        result = run("plan", "cautious.yaml", "model.pt", "--json", *options)
        found: list[Any] = json.loads(result.stdout)["warnings"]
        for one in found:
            assert text_of(one) in result.stderr, "what is in the document is on the terminal, too"
        return found

    return plan


NARROW = "stages.0.target={nodes: ['1', '3', '5']}"
CASES = {
    "layer_loss": (("stages.0.sparsity=0.92",), ("stages.0.sparsity=0.9",)),
    "bottleneck": (("stages.0.sparsity=0.9",), ("stages.0.sparsity=0.6",)),
    "short_decay": (("stages.0.removal.over=19 steps",), ("stages.0.removal.over=20 steps",)),
    "late_decay": (("stages.0.removal.over=2 epochs",), ("stages.0.removal.over=49 steps",)),
    "short_retraining": (
        ("stages.0.retrain.epochs=3", "stages.0.retrain.batch_size=200", "stages.0.removal=hard"),
        ("stages.0.retrain.epochs=4", "stages.0.retrain.batch_size=200", "stages.0.removal=hard"),
    ),
    "large_batch": (
        ("stages.0.retrain.batch_size=300", "stages.0.retrain.epochs=60"),
        ("stages.0.retrain.batch_size=192", "stages.0.retrain.epochs=60"),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind(warned: Callable[..., list[Any]], kind: str) -> None:
    bad, good = CASES[kind]
    found = [one for one in warned(*bad) if one["kind"] == kind]
    assert found
    assert all(one["way_out"] for one in found)
    assert kind not in {one["kind"] for one in warned(*good)}


def test_a_sound_recipe_has_none(warned: Callable[..., list[Any]]) -> None:
    assert warned() == []


def test_a_removal_of_the_default_length_leaves_time_to_train(warned: Callable[..., list[Any]]) -> None:
    assert warned("stages.0.removal=soft") == []


def test_widths_are_named_with_their_sizes(warned: Callable[..., list[Any]]) -> None:
    every = warned("stages.0.target={nodes: ['1', '5']}", "stages.0.sparsity=0.9")
    (found,) = [one for one in every if "classes" in one["text"]]
    assert found["kind"] == "bottleneck"
    assert "2 layers keep fewer nodes than there are classes (5): 1 (40 to 4), 5 (40 to 4)" in found["text"]


def test_a_width_below_the_bottleneck_that_follows(warned: Callable[..., list[Any]]) -> None:
    (found,) = [one for one in warned("stages.0.sparsity=0.75") if one["kind"] == "bottleneck"]
    assert "1 layer keeps fewer nodes than the bottleneck that follows (3: 12): 1 (40 to 10)" in found["text"]
    assert found["way_out"] == "set `min_keep: 12`, or prune less"
    both = warned("stages.0.target={nodes: ['1', '3']}", "stages.0.sparsity=0.75", "task=classify")
    assert "bottleneck that follows" not in str(both), "3 of 12 are left of it, and 10 of 40 before it"
    assert warned("stages.0.target={nodes: ['5']}", "stages.0.sparsity=0.75") == [], "it follows the bottleneck"


def test_weights_of_a_layer_that_loses_more_than_was_asked(warned: Callable[..., list[Any]]) -> None:
    stage = ("stages.0.target={weights: ['1.weight', '5.weight']}", "stages.0.criterion=magnitude")
    assert "layer_loss" not in {one["kind"] for one in warned(*stage)}
    weights = torch.load("model.pt")
    weights["5.weight"].view(-1)[10:] *= 1e-3  # of 480 weights; the other layer has 1,440
    torch.save(weights, "model.pt")
    (found,) = [one for one in warned(*stage) if one["kind"] == "layer_loss"]
    assert "1 tensor loses more than 90% of the weights, and 50% were asked of all: 5.weight (480 to " in found["text"]
    found = warned(*stage, "stages.0.sparsity=0.95")
    assert "layer_loss" not in {one["kind"] for one in found}, "that much was asked of all"


@pytest.mark.extended
def test_everything_is_in_results_and_report(warned: Callable[..., list[Any]], run: Run) -> None:
    changes = ("stages.0.sparsity=0.92", "stages.0.removal.over=19 steps", "stages.0.retrain.batch_size=300")
    changes += ("stages.0.retrain.epochs=25",)
    planned = warned(*changes)
    assert {one["kind"] for one in planned} == {"layer_loss", "bottleneck", "short_decay", "large_batch"}
    options = [word for change in changes for word in ("--set", change)]
    result = run("apply", "cautious.yaml", "model.pt", "-o", "out", *options, "--set", "allow_constant=true")
    done = json.loads(Path("out/results.json").read_text())["warnings"]
    page = " ".join(Path("out/report.html").read_text().split())
    for one in planned:
        assert one in done
        assert text_of(one) in result.stderr
        assert with_code(one["text"].split(": ", 2)[-1]) in page
        assert f"<b>Way out:</b> {with_code(one['way_out'])}" in page
    assert page.index("Before you read on") < page.index("What you can deploy")


def test_train_warns_of_a_large_batch(warned: Callable[..., list[Any]], run: Run) -> None:
    result = run("train", "cautious.yaml", "-o", "again.pt", "--set", "data.batch_size=500")
    assert "a batch of 500 is larger than the training data, which have" in " ".join(result.stderr.split())


# --- the parts ---


def test_the_form_of_a_warning() -> None:
    found = entry(RunWarning("too much", "ask for less", "stages.0"))
    assert found == {"kind": "other", "text": "too much", "way_out": "ask for less", "where": "stages.0"}
    assert text_of(found) == str(RunWarning("too much", "ask for less")) == "too much; ask for less"
    assert entry(UserWarning("odd")) == {"kind": "other", "text": "odd"}
    assert entry(UserWarning()) == {"kind": "other", "text": "UserWarning"}, "a text is never empty"


def test_what_decays() -> None:
    assert decay_steps(Hard()) == decay_steps(Gradual(steps=40)) == 0
    assert decay_steps(Soft(steps=40)) == 40
    assert decay_steps(GradualSoft(steps=40, cohort=7)) == 7


def test_layers_have_matrices() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.LSTM(4, 5))
    assert layers_of(network) == ["0", "3"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.up(self.down(x).relu()))  # type: ignore[no-any-return]


def widths(network: nn.Module) -> tuple[Widths, dict[str, Coupling]]:
    known = couplings(network, torch.randn(2, 6))
    sizes = {one: one.size for one in known.found}
    return Widths(known, sizes), {one.name: one for one in known.found}


@pytest.mark.parametrize(
    ("sizes", "bottlenecks"),
    [
        ([12, 4, 12, 6], ["1"]),
        ([12, 4, 4, 12, 6], ["1"]),  # the first of equals
        ([12, 4, 4, 3], []),  # it never grows again
        ([4, 12, 6], []),  # nothing wider comes before it: 6 inputs
        ([16, 8, 4, 8, 16, 6], ["2"]),
        ([16, 4, 16, 5, 16, 6], ["1", "3"]),
    ],
)
def test_bottlenecks_of_a_chain(sizes: list[int], bottlenecks: list[str]) -> None:
    layers = [nn.Linear(*pair) for pair in zip([6, *sizes], sizes, strict=False)]
    found, by_name = widths(nn.Sequential(*layers))
    expected = bottlenecks if sizes != [4, 12, 6] else ["0"]
    assert [name for name, one in by_name.items() if found.is_bottleneck(one)] == expected


def test_what_goes_around_a_bottleneck_does_not_pass_it() -> None:
    found, by_name = widths(Residual())
    assert found.is_bottleneck(by_name["down"])
    assert not found.all_pass(by_name["stem"], by_name["down"])
    chain, named = widths(nn.Sequential(nn.Linear(6, 12), nn.Linear(12, 4), nn.Linear(4, 12), nn.Linear(12, 3)))
    assert chain.all_pass(named["0"], named["1"])
    assert not chain.all_pass(named["2"], named["1"])
