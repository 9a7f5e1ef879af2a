"""What do the two stages of the autoencoders' recipes give, beside other settings and the same shape from scratch?

Applies the recipes as a user would, with the changes of `CASES`, and adds the figures to
docs/benchmarks/autoencoders.json; those that are there are not computed again:

    python benchmarks/autoencoders.py --data-root DIR --seeds 3
    python benchmarks/autoencoders.py mnist_ae --cases recipe scratch --data-root DIR
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from choices import without_quantiles

import compress
from compress import models
from recipes import run

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "autoencoders.json"
RECIPES = ("mnist_ae", "fashion_mnist_ae")
CASES: dict[str, list[str]] = {
    "recipe": [],
    "skeletonization": ["stages.0.criterion=skeletonization"],
    "hard": ["stages.1.removal=hard", "stages.1.compensate=false"],
    "gradual soft": ["stages.1.removal={kind: gradual_soft, over: 5 epochs, every: 100 steps}"],
    "soft, 11 epochs": ["stages.1.removal={kind: soft, over: 11 epochs}"],
    "half": ["stages.1.macs=0.5"],
    "scratch": ["rivals.scratch=true"],  # the recipe, and its shape trained for the same total of epochs
}
ONCE = ("half", "scratch")
"""With seed 0 alone."""


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), help=", ".join(RECIPES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-root", default=os.environ.get("COMPRESS_DATA", "data"))
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for dense networks and results")
    arguments = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    if "calls" not in found:
        OUT.write_text(json.dumps({"calls": calls(), **found}, indent=1) + "\n", encoding="utf-8")
    for name in arguments.recipes:
        model = arguments.work / f"{name}.pt"
        if not model.exists():
            run("train", name, "-o", str(model), "--data-root", arguments.data_root)
        for seed in range(arguments.seeds):
            for case in arguments.cases:
                found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
                cells = found.setdefault(name, {})
                key = f"{case}, seed {seed}"
                if key in cells or (seed and case in ONCE):
                    continue
                cells[key] = measure(name, model, CASES[case], seed, arguments)
                OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(name, key, cells[key], flush=True)


def calls() -> dict[str, float]:
    """Milliseconds of the dense autoencoder at batch 1, and of its layers with one node each: the time of the calls."""
    example = torch.rand(2, 1, 28, 28)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("dense", "one node each")}
        model = models.autoencoder()
        compress.export.onnx(model, files["dense"], example)
        pruner = compress.Pruner(model, compress.nodes("*"), sparsity=0.999, criterion="norms", example=example)
        pruner.finalize()
        compress.export.onnx(compress.slim(model, example), files["one node each"], example)
        timed = compress.export.measure(files, batch_sizes=[1]).summary()
    return {name: round(of["1"].p50, 5) for name, of in timed.items()}


def measure(name: str, model: Path, changes: list[str], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = [word for change in changes for word in ("--set", change)]
    words = ("--seed", str(seed), "--data-root", arguments.data_root, "--force", "-o", str(arguments.work / "ae"))
    results = run("apply", name, str(model), *words, *settings)
    dense, slim = (results["models"][kind] for kind in ("dense", "slim"))
    return {
        "dense": dense["metric"]["loss"],
        "stages": [stage["after_removal"]["loss"] for stage in results["stages"]],
        "loss": slim["metric"]["loss"],
        "params": [dense["params"], slim["params"]],
        "macs": [dense["macs"], slim["macs"]],
        "latency": {batch: times["ratio"] for batch, times in slim["latency_ms"].items()},
        "choices": {
            kind: {key: choice[key] for key in ("bytes", "metric", "latency_ms", "refused") if key in choice}
            for kind, choice in without_quantiles(results["choices"]).items()
        },
        "load": results.get("load"),
        "seconds": results["timing"]["total"],
        **({"scratch": results["rivals"]["scratch"]} if "rivals" in results else {}),
    }


if __name__ == "__main__":
    main()
