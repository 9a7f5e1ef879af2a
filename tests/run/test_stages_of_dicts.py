"""Stages, training and results on loaders whose batches are dicts: those of one tensor, to the last bit."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

from compress.data.loaders import from_loaders
from compress.recipe.schema import Stage
from compress.run.clock import Clock
from compress.run.setting import Setting, unwatched
from compress.run.stage import run_stage
from compress.run.witness import Evaluated, Witness
from compress.select.pruned import Pruned
from compress.slimming.shrink import slim

MODULE = """
import torch
from torch import nn


class OneTensor(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.head = nn.Linear(5, 8), nn.Linear(3, 8), nn.Linear(8, 3)

    def scores(self, a, b):
        return self.head(torch.relu(self.left(a) + self.right(b)))

    def forward(self, both):
        return self.scores(both[:, :5].contiguous(), both[:, 5:].contiguous())


class TwoInputs(OneTensor):
    def forward(self, a, b):
        return {"count": 3, "logits": self.scores(a, b)}


class Batches(list):
    def __init__(self, number, form):
        generator = torch.Generator().manual_seed(number)
        for _ in range(number):
            a, b = torch.randn(20, 5, generator=generator), torch.randn(20, 3, generator=generator)
            self.append(form(a, b, (a[:, :3] + b).argmax(1)))


def one(): return tuple(Batches(number, lambda a, b, y: (torch.cat([a, b], 1), y)) for number in (4, 2))
def dicts(): return tuple(Batches(number, lambda a, b, y: {"b": b, "a": a, "labels": y}) for number in (4, 2))
def tuples(): return tuple(Batches(number, lambda a, b, y: ((a, b), y)) for number in (4, 2))
"""

RETRAIN = {"epochs": 2, "optimizer": "adamw", "lr": 0.01, "distill": {"weight": 0.5}}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "two_inputs.py").write_text(MODULE, encoding="utf-8")
    import sys

    import two_inputs  # type: ignore[import-not-found]

    yield two_inputs
    del sys.modules["two_inputs"]


def setting(loaders: Any) -> Setting:
    data = from_loaders(loaders, "mine")
    device = torch.device("cpu")
    return Setting(data, "classify", 20, device, 0, unwatched, Clock(), witness=Witness())


@pytest.mark.parametrize("form", ["dicts", "tuples"])
@pytest.mark.parametrize("criterion", ["taylor_square", "variance"])
def test_a_stage(module: Any, form: str, criterion: str) -> None:
    stage = Stage.model_validate(
        {"target": {"nodes": "left"}, "criterion": criterion, "sparsity": 0.5, "removal": "soft", "retrain": RETRAIN}
    )

    def pruned(network: nn.Module, loaders: Any) -> tuple[dict[str, Tensor], Any, nn.Module]:
        chosen = setting(loaders)
        found = run_stage(network, stage, 0, Pruned(), chosen)
        small = slim(network.eval(), chosen.example, known=chosen.couplings(network))
        return network.state_dict(), found["after_removal"], small

    found, metric, small = pruned(module.TwoInputs(), getattr(module, form)())
    wanted, expected, _ = pruned(module.OneTensor(), module.one())
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    assert metric == expected
    assert small.get_parameter("left.weight").shape == (4, 5)


@pytest.mark.parametrize("form", ["one", "dicts", "tuples"])
def test_the_example_is_the_first_samples(module: Any, form: str) -> None:
    loaders = getattr(module, form)()
    example = setting(loaders).example
    assert example.rows == 2
    first = module.one()[0][0][0][:2]
    parts = [example.kwargs["a"], example.kwargs["b"]] if example.kwargs else [*example.args]
    assert torch.equal(torch.cat(parts, 1), first)
    assert example.kwargs.keys() == ({"a", "b"} if form == "dicts" else set())


def test_the_witness_sees_samples_whatever_their_batches() -> None:
    ids, states = torch.arange(12).view(4, 3), torch.randn(7, 4, 5)

    def evaluated(rows: list[list[int]], positions: Tensor, labels: Tensor) -> Evaluated:
        found = Evaluated()
        for part in rows:
            given = {"ids": ids[part], "positions": positions, "states": states[:, part], "scale": 2.0}
            found.add(given, {"class": labels[part]})
        return found

    positions, labels = torch.arange(3)[None], torch.tensor([0, 1, 0, 1])
    whole = evaluated([[0, 1, 2, 3]], positions, labels)
    assert whole == evaluated([[2, 1], [0, 3]], positions, labels)
    assert whole != evaluated([[0, 1, 2, 3]], positions + 1, labels)
    assert whole != evaluated([[0, 1, 2, 3]], positions, 1 - labels)


RECIPE = """\
name: two
model: {factory: "two_inputs:TwoInputs"}
data: {factory: "two_inputs:dicts"}
task: classify
train: {epochs: 1, optimizer: adamw, lr: 1e-2}
stages:
  - target: {nodes: "*"}
    criterion: taylor_square
    sparsity: 0.5
    removal: soft
    retrain: {epochs: 1, optimizer: adamw, lr: 1e-2}
export: [onnx, safetensors, pt2]
benchmark: {batch_sizes: [1]}
"""


@pytest.mark.extended
def test_a_run(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Its files take the network's arguments by name, and no labels."""
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run("train", "recipe.yaml", "-o", "model.pt")
    plan = json.loads(run("plan", "recipe.yaml", "model.pt", "--json").stdout)
    result = json.loads(run("apply", "recipe.yaml", "model.pt", "-o", "out", "--json").stdout)
    assert result["models"]["slim"]["params"] == plan["stages"][0]["after"]["params"] == 24 + 16 + 15
    run("export", "model.pt", "--recipe", "recipe.yaml", "--format", "onnx", "-o", "files")
    dense = onnxruntime.InferenceSession("files/model.onnx")
    session = onnxruntime.InferenceSession("out/slim.onnx")
    assert {one.name for one in dense.get_inputs()} == {"a", "b"}
    assert {one.name for one in session.get_inputs()} == {"a", "b"}
    program = torch.export.load("out/slim.pt2").module()
    given = {"a": torch.randn(5, 5), "b": torch.randn(5, 3)}
    outputs = session.run(["logits"], {name: tensor.numpy() for name, tensor in given.items()})
    torch.testing.assert_close(torch.from_numpy(outputs[0]), program(**given)["logits"])
