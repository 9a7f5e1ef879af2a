"""What do the codes hold, and what does it cost, where a latent space is shaped while its nodes are pruned?

Applies the recipe mnist_ae_features as a user would, with the changes of `CASES`, probes the codes of the slim file,
and adds the figures to docs/benchmarks/latent_features.json; those that are there are not computed again:

    python benchmarks/latent_features.py --data-root DIR --seeds 5
    python benchmarks/latent_features.py --data fashion_mnist --cases shaped plain --data-root DIR
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compress
from compress.data.dataset import Dataset
from compress.data.nuisances import hues
from compress.evaluation_mode import evaluation_mode
from compress.recipe.loading import load_recipe
from compress.run.building import build_model
from compress.run.data_sets import build_data
from compress.train.probes import HIDDEN, Codes, chance
from recipes import run

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "latent_features.json"
RECIPE = "mnist_ae_features"
CODES = "decoder.1.axes"
"""The layer whose outputs are the codes of the slim network."""

HARD = ["stages.0.removal=hard", "stages.0.compensate=false"]
UNPRUNED = ["stages.0.sparsity=0.015625", *HARD]  # one node of 64: a stage prunes at least one
CASES: dict[str, list[str]] = {
    "shaped": [],
    "plain": ["stages.0.shape=null"],
    "hard": HARD,
    "hard, plain": [*HARD, "stages.0.shape=null"],
    "unpruned": UNPRUNED,
}


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("mnist", "fashion_mnist"), default="mnist")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=5, help="from 0")
    parser.add_argument("--data-root", default=os.environ.get("COMPRESS_DATA", "data"))
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for dense networks and results")
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        for case in arguments.cases:
            if (key := f"{case}, seed {seed}") in there().get(arguments.data, {}):
                continue
            cell = measure(case, seed, arguments)
            found = there()  # another process may have added cells meanwhile
            found.setdefault(arguments.data, {})[key] = cell
            OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(arguments.data, key, cell, flush=True)


def there() -> dict[str, Any]:
    """The figures so far: cells by data set."""
    return json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}


def measure(case: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one cell; each seed has a dense network of its own."""
    changes = [f"data.name={arguments.data}", *CASES[case]]
    settings = [word for change in changes for word in ("--set", change)]
    common = ("--seed", str(seed), "--data-root", arguments.data_root, *settings)
    model = arguments.work / f"{arguments.data}_features_{seed}.pt"
    if not model.exists():
        run("train", RECIPE, "-o", str(model), *common)
    out = arguments.work / f"{arguments.data}_features_{seed}_{case.replace(', ', '_')}"
    results = run("apply", RECIPE, str(model), "--force", "-o", str(out), *common)
    recipe = load_recipe(RECIPE, changes)
    data = build_data(recipe.data, Path(arguments.data_root))
    assert isinstance(data, Dataset)
    small = compress.load(out / "slim.safetensors", model=lambda: build_model(recipe.model, seed))
    dense = build_model(recipe.model, seed)
    dense.load_state_dict(torch.load(model, weights_only=True))
    found: dict[str, Any] = {
        "nodes": small.get_submodule(CODES).out_features,
        "probes": probes(small, CODES, data),
        "loss": results["models"]["slim"]["metric"]["loss"],
        "parts": parts(small, data),
        "seconds": results["timing"]["total"],
    }
    if "latents" in results:
        (latent,) = results["latents"]
        found["dense"] = {
            "probes": {one["name"]: one["dense"] for one in latent["attributes"]},
            "parts": parts(dense, data),
        }
    return found


def probes(model: nn.Module, layer: str, data: Dataset) -> dict[str, dict[str, float]]:
    """By attribute: chance, and what a linear and a two-layer probe find among the test samples."""
    names = ("label", "tint")

    def codes_of(part: Any) -> Codes:
        return compress.codes(model, layer, data.batches(part, 1000, "reconstruct", attributes=names)())

    train, test = codes_of("train"), codes_of("test")
    return {
        name: {
            "chance": chance(test.attributes[name]),
            "linear": compress.probe(train, test, name),
            "two_layer": compress.probe(train, test, name, hidden=HIDDEN),
        }
        for name in names
    }


def parts(model: nn.Module, data: Dataset) -> dict[str, float]:
    """The mean squared error over the test images in all tints, in its two parts, which add up to it.

    Of each image in all tints, the mean output is compared with the mean image (kept: the part that does not depend on
    the tint), and what is left of the outputs with what is left of the images (tint).
    """
    count = data.attributes["tint"]
    # The grey value of a tinted image is its largest channel, since each hue has a channel of 1.
    grey = data.test.images.amax(1, keepdim=True).float() / 255
    kept, tint, images = 0.0, 0.0, 0
    with evaluation_mode(model):
        for piece in torch.split(grey, 500):
            every = (hues(count)[:, None, :, None, None] * piece).float()
            outputs = torch.stack([model(scaled(batch, data)) for batch in every])
            kept += float(F.mse_loss(outputs.mean(0), every.mean(0))) * len(piece)
            tint += float(F.mse_loss(outputs - outputs.mean(0), every - every.mean(0))) * len(piece)
            images += len(piece)
    return {"kept": kept / images, "tint": tint / images}


def scaled(images: Tensor, data: Dataset) -> Tensor:
    mean, std = (statistic.view(-1, 1, 1) for statistic in (data.mean, data.std))
    return (images - mean) / std


if __name__ == "__main__":
    main()
