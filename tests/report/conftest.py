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


@pytest.fixture
def every_choice(classes: dict[str, Any]) -> dict[str, Any]:
    """`classes` with made-up figures of all choices; int8 of the slim network was refused, and dense int8 is best."""

    def timed(first: float, second: float, ratio: float) -> dict[str, Any]:
        return {
            batch: {"p50": p50, "p90": p50, "p99": p50, "min": p50, "runs": 9, "ratio": ratio, "quantiles": [p50] * 21}
            for batch, p50 in (("1", first), ("4", second))
        }

    def choice(runtime: str, size: int, accuracy: float, **more: Any) -> dict[str, Any]:
        return {"runtime": runtime, "bytes": size, "metric": {"loss": 1.0, "accuracy": accuracy}, **more}

    tried = [{"kind": "static", "method": "minmax", "note": "none"}]
    quantization = {
        "per_channel": True,
        "excluded": [],
        "float_metric": {"loss": 1.0},
        "tried": tried,
        "why": "static is the fastest",
    }
    classes["choices"] = {
        "dense": choice("onnxruntime", 4000, 0.9, latency_ms=timed(1.0, 2.0, 1.0), peak_memory=12_300_000),
        "dense_int8": choice(
            "onnxruntime",
            1000,
            0.898,
            latency_ms=timed(0.4, 0.8, 0.4),
            peak_memory=11_000_000,
            agreement={"equal": 0.995, "largest": 0.5, "mean": 0.01},
            quantization={**quantization, "kind": "static", "method": "minmax"},
        ),
        "slim": choice("onnxruntime", 2000, 0.88, latency_ms=timed(0.3, 0.6, 0.3), file="slim.onnx"),
        "slim_int8": {"runtime": "onnxruntime", "quantization": quantization, "refused": "it loses 3 points"},
        "sparse": choice(
            "torch",
            1000,
            0.88,
            latency_ms=timed(0.5, 0.25, 0.25),
            torch_dense_latency_ms=timed(2.0, 4.0, 1.0),
            file="slim.sparse.safetensors",
        ),
    }
    classes["best"] = {"bound": "fastest at batch 1 within 0.5 points of dense's accuracy", "choice": "dense_int8"}
    classes["recipe"]["export"] = ["onnx", "safetensors", "int8", "sparse"]
    return classes
