"""Compares removals on a recurrent language model: perplexity of the GRU of the recipe `char_lm`.

The dense network is trained once, as the recipe says, if it is not there yet. Then single weights of the recurrent
matrix are pruned, or half of the states, by each removal with the same steps of retraining. Finished cells are in
docs/benchmarks/language.json, so that an interrupted run resumes:

    python benchmarks/language.py --model runs/char_lm.pt --seeds 5
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from compress.files.checkpoint import load_weights, read_weights
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe
from compress.run.building import build_model, build_task
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.setting import Setting, unwatched
from compress.run.stage import run_stage
from compress.select.pruned import Pruned

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "language.json"
RECIPE = "char_lm"

REMOVALS = {
    "hard": "hard",
    "soft": "{kind: soft, over: 0.6 epochs}",
    "gradual_soft": "{kind: gradual_soft, over: 0.6 epochs, cohort: 20 steps, every: 5 steps}",
}
WEIGHTS = ("stages.0.target={weights: gru.weight_hh_l*}", "stages.0.criterion=magnitude")
STATES = (
    "stages.0.target={nodes: gru}",
    "stages.0.criterion={kind: taylor_square, samples: 500}",
    "stages.0.compensate=false",  # the plain removal, if it is hard
)
PRUNED = {
    "50 % of the recurrent weights": (*WEIGHTS, "stages.0.sparsity=0.5"),
    "75 % of the recurrent weights": (*WEIGHTS, "stages.0.sparsity=0.75"),
    "90 % of the recurrent weights": (*WEIGHTS, "stages.0.sparsity=0.9"),
    "half of the states": (*STATES, "stages.0.sparsity=0.5"),
}
RETRAIN = "stages.0.retrain={epochs: 1, optimizer: adam, lr: 2e-3, lr_schedule: cosine}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/char_lm.pt"), help="trained here if it is absent")
    parser.add_argument("--seeds", type=int, default=5, help="of the order of the samples in retraining")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.model.exists():
        arguments.model.parent.mkdir(parents=True, exist_ok=True)
        command = ("train", RECIPE, "-o", str(arguments.model))
        subprocess.run([sys.executable, "-m", "compress.cli", *command], check=True)
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"cells": {}}
    recipe = load_recipe(RECIPE)
    data = build_data(recipe.data, Path())
    setting = _setting(recipe, data, 0)
    found["data"] = {"name": data.name, "sha256": data.sha256, "note": data.note}
    found["recipe"] = {"model": recipe.model.model_dump(), "retrain": RETRAIN, "removals": REMOVALS}
    found["dense"] = _metric(setting.evaluate(_dense(recipe, arguments.model)))
    for name, pruned, removal, seed in cells(arguments.seeds):
        if name not in found["cells"]:
            began = time.process_time()
            metric = measured(arguments.model, data, (*PRUNED[pruned], REMOVALS[removal]), seed)
            found["cells"][name] = {**metric, "seconds": round(time.process_time() - began, 1)}
            OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(name, found["cells"][name], flush=True)


def cells(seeds: int) -> Iterator[tuple[str, str, str, int]]:
    """(name, what is pruned, removal, seed), all of one seed before the next."""
    for seed in range(seeds):
        for pruned in PRUNED:
            for removal in REMOVALS:
                yield f"{pruned}, {removal}, seed {seed}", pruned, removal, seed


def measured(model: Path, data: Any, changes: tuple[str, ...], seed: int) -> dict[str, float]:
    """The test metric after exact removal."""
    *others, removal = changes
    recipe = load_recipe(RECIPE, [*others, RETRAIN, f"stages.0.removal={removal}"])
    network = _dense(recipe, model)
    result = run_stage(network, recipe.stages[0], 0, Pruned(), _setting(recipe, data, seed))
    return _metric(result["after_removal"])


def _dense(recipe: Recipe, weights: Path) -> torch.nn.Module:
    network = build_model(recipe.model, 0)
    load_weights(network, read_weights(weights), str(weights))
    return network


def _setting(recipe: Recipe, data: Any, seed: int) -> Setting:
    task = build_task(recipe.task)
    return Setting(data, task, recipe.data.batch_size, torch.device("cpu"), seed, unwatched, Clock())


def _metric(metric: Any) -> dict[str, float]:
    return {"loss": metric["loss"], "perplexity": math.exp(metric["loss"])}


if __name__ == "__main__":
    main()
