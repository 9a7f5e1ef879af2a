"""A `.pt2` program as the network of a recipe: no class, no state_dict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compress
from compress.export import read_program

TAYLOR = "{target: {nodes: ['*']}, criterion: taylor, sparsity: 0.5, removal: soft, retrain: RETRAIN}"
RETRAIN = "{epochs: 1, optimizer: adamw, lr: 0.001}"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.dropout = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout()
        self.hidden, self.out = nn.Linear(128, 24), nn.Linear(24, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.dropout(self.norm(self.conv(images)).relu()).flatten(1)
        logits: Tensor = self.out(self.hidden(features).relu())
        return logits


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def program(network: Network, tmp_path: Path) -> Path:
    path = tmp_path / "network.pt2"
    compress.export.pt2(network, path, torch.zeros(2, 1, 6, 6))
    return path


@pytest.fixture
def apply(tmp_path: Path, npz: Path, run: Callable[..., Any]) -> Callable[..., Any]:
    """Run `compress apply` with a stage on a program; gives the results, or where `code` is not 0 the error."""

    def applied(program: Path, stage: str, code: int = 0, model: str = "{name: program}", export: str = "[]") -> Any:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"name: own\nmodel: {model}\ndata: {{npz: {json.dumps(str(npz))}, batch_size: 20}}\ntask: classify\n"
            f"stages:\n  - {stage.replace('RETRAIN', RETRAIN)}\nexport: {export}\n",
            encoding="utf-8",
        )
        result = run("apply", recipe, program, "-o", tmp_path / "out", "--json", code=code)
        return result.stderr if code else json.loads(result.stdout)

    return applied


def test_a_program_computes_and_is_called_as_the_network_was(network: Network, program: Path) -> None:
    read, images = read_program(program), torch.randn(5, 1, 6, 6)
    assert torch.equal(read(images), network.eval()(images))
    assert [name for name, _ in read.named_parameters()] == [name for name, _ in network.named_parameters()]
    assert torch.equal(read.train()(images), network(images))  # as exported


@pytest.mark.extended
def test_a_program_is_pruned_retrained_and_slimmed(program: Path, apply: Any, tmp_path: Path) -> None:
    results = apply(program, TAYLOR, export="[onnx, safetensors, pt2]")
    dense, slim = results["models"]["dense"], results["models"]["slim"]
    assert results["stages"][0]["achieved"] == 0.5
    assert dense["params"] == sum(parameter.numel() for parameter in Network().parameters())
    # 4 of 8 channels with their norms, and 12 of 24 nodes, by hand:
    assert slim["params"] == (4 * 9 + 4) + 8 + (4 * 16 * 12 + 12) + (12 * 3 + 3)
    again = compress.load(tmp_path / "out" / "slim.safetensors", model=lambda: read_program(program))
    images = torch.randn(4, 1, 6, 6)
    written = torch.export.load(tmp_path / "out" / "slim.pt2").module()
    assert torch.allclose(again(images), written(images), atol=1e-6)


@pytest.mark.extended
@pytest.mark.parametrize(
    "stage",
    [
        "{target: {weights: '*'}, criterion: obd, sparsity: 0.9, removal: gradual_soft, retrain: RETRAIN}",
        "{target: {nodes: hidden}, criterion: norms, sparsity: 0.5, removal: sfp, retrain: RETRAIN}",
        "{target: {weights: 'hidden.*'}, sparsity: 0.9, removal: {kind: soft, learns: true}, retrain: RETRAIN}",
    ],
)
def test_other_ways_to_choose_and_remove(program: Path, apply: Any, stage: str) -> None:
    results = apply(program, stage if "criterion" in stage else stage.replace("sparsity", "criterion: lamp, sparsity"))
    (found,) = results["stages"]
    assert found["achieved"] == pytest.approx(found["asked"], abs=0.001)
    assert results["models"]["masked"]["nonzero"] < results["models"]["dense"]["nonzero"]


def test_what_watches_layers_is_refused(program: Path, apply: Any) -> None:
    error = apply(program, TAYLOR.replace("taylor", "skeletonization"), code=2)
    assert "the criterion skeletonization watches layers, and a program has only operators" in error


def test_program_and_recipe_go_together(program: Path, apply: Any, trained: Path) -> None:
    error = apply(program, TAYLOR, 2, "{name: classifier, image: [1, 6, 6], classes: 3}")
    assert "network.pt2 is a program, and the recipe names another model" in error
    assert "model.pt is not a program" in apply(trained, TAYLOR, 2)


def test_what_cannot_be_trained_on_is_refused(network: Network, apply: Any, tmp_path: Path) -> None:
    example, path = torch.zeros(2, 1, 6, 6), tmp_path / "other.pt2"
    torch.export.save(torch.export.export(network.eval(), (example,)), path)
    assert "takes batches of 2 and no others: export it with torch.export.export(" in apply(path, TAYLOR, 2)
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network.train(), (example,), dynamic_shapes=batch), path)
    assert "was exported in training mode" in apply(path, TAYLOR, 2)
    path.write_bytes(b"no archive")
    assert "other.pt2 cannot be read as an exported program" in apply(path, TAYLOR, 2)
    assert "missing.pt2 does not exist" in apply(tmp_path / "missing.pt2", TAYLOR, 2)
