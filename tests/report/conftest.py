"""Results of the other task, with two stages, beside the `results` of all tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLASSIFIER = """\
name: tiny_classes
model: {name: classifier, image: [1, 6, 6], classes: 3}
data: {npz: NPZ, batch_size: 20}
task: classify
train: {epochs: 8, optimizer: adam, lr: 1e-3}
stages:
  - target: {weights: ["dense.*"]}
    criterion: magnitude
    sparsity: 0.9
    removal: {kind: gradual_soft, cohort: 2 steps, every: 1 step}
    retrain: {epochs: 2, optimizer: adam, lr: 1e-3}
  - {target: {nodes: ["dense.0", "dense.2"]}, criterion: norms, sparsity: 0.5, removal: hard}
"""


@pytest.fixture(scope="session")
def classified(made_once: Callable[..., Path], npz: Path, run: Callable[..., Any]) -> Path:
    """The folder of a run that classifies, in two stages of which the second does not train; not to be changed."""

    def fill(folder: Path) -> None:
        recipe = folder / "recipe.yaml"
        recipe.write_text(CLASSIFIER.replace("NPZ", json.dumps(str(npz))), encoding="utf-8")
        run("train", recipe, "-o", folder / "model.pt")
        run("apply", recipe, folder / "model.pt", "-o", folder / "out", "--set", "benchmark.batch_sizes=[1, 4]")

    return made_once("classified", fill) / "out"


@pytest.fixture
def classes(classified: Path) -> dict[str, Any]:
    """The results.json of `classified`, to be changed at will."""
    content: dict[str, Any] = json.loads((classified / "results.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def changed(results: dict[str, Any]) -> dict[str, Any]:
    """`results`, to be changed at will."""
    copy: dict[str, Any] = json.loads(json.dumps(results))
    return copy
