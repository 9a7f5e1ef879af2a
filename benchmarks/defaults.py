"""Which criterion, scope, floor and removal do least harm? Nodes of seven networks, at two budgets of multiply-adds.

Each dense network is trained once, on a part of its data. The learning rate of the retraining is chosen for each
network and budget on held-out training samples, with the first of the settings, from half of the usual rate, the usual
one, twice and four times that. Then every setting of `SETTINGS` is measured with the same steps, on the test samples
after exact removal. Finished cells are in docs/benchmarks/defaults.json, so that an interrupted run resumes:

    python benchmarks/defaults.py --data-root DIR --seeds 3
    python benchmarks/defaults.py vgg lstm --data-root DIR
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
from study import Cells, metric, on_cpu

from compress.data.dataset import Divisible, TrainingData
from compress.errors import CompressError
from compress.files.checkpoint import load_weights, read_weights, write_weights
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe
from compress.run.building import build_model
from compress.run.data_sets import build_data
from compress.run.setting import optimization
from compress.run.stage import run_stage
from compress.select.pruned import Pruned

CELLS = Cells("defaults")

CIFAR = ["data={name: cifar10, train: 5000, test: 2000, batch_size: 50}"]
BRIEF_CIFAR = [*CIFAR, "train={epochs: 8, optimizer: adamw, lr: 2e-3, lr_schedule: cosine, weight_decay: 1e-2}"]
ADAM = "{{epochs: {epochs}, optimizer: adamw, lr: {lr}, lr_schedule: cosine, weight_decay: 1e-2}}"

# name -> the recipe whose network and data are used, what is changed, epochs of retraining and the usual rate
NETWORKS: dict[str, tuple[str, list[str], int, float]] = {
    "autoencoder": (
        "mnist_latent",
        ["data={name: mnist, train: 10000, test: 2000, batch_size: 64}", "train.epochs=30", "model.latent=32"],
        3,
        1.5e-3,
    ),
    "vgg": ("cifar10_resnet", ["model={factory: 'small_networks:vgg'}", *BRIEF_CIFAR], 1, 1e-3),
    "mobilenet": ("cifar10_resnet", ["model={factory: 'small_networks:mobilenet'}", *BRIEF_CIFAR], 1, 1e-3),
    "lstm": (
        "mnist_lstm",
        ["data={name: mnist, train: 5000, test: 2000, batch_size: 50}", "train.epochs=6"],
        1,
        2e-3,
    ),
    "vit": (
        "fashion_mnist_vit",
        ["data={name: fashion_mnist, train: 5000, test: 2000, batch_size: 50}", "train.epochs=8"],
        1,
        1e-3,
    ),
    "bert": ("bert_tiny", [], 2, 3e-4),
    "resnet20": ("cifar10_resnet", [*BRIEF_CIFAR, "data.train=3000", "data.batch_size=30"], 1, 1e-3),
}
BUDGETS = (0.5, 0.25)

SOFT = "{kind: soft, over: 0.4 epochs}"
GRADUAL_SOFT = "{kind: gradual_soft, over: 0.4 epochs, cohort: 20 steps, every: 5 steps}"
CRITERIA = {"taylor_square": "{kind: taylor_square, samples: 500}", "norms": "norms", "magnitude": "magnitude"}
REMOVALS: dict[str, str | float] = {
    "hard": "hard",
    "soft": SOFT,
    "gradual soft": GRADUAL_SOFT,
    "soft for three quarters": 0.75,
    "soft to the end": 1.0,
}
"""Keys of a stage, or the share of the retraining that a soft removal takes."""


def setting(criterion: str, scope: str, floor: float, removal: str = "soft") -> tuple[str, dict[str, Any]]:
    """A name, and the keys of a stage. A floor of 0 is one node."""
    name = f"{criterion}, {scope}, floor {floor:g}, {removal}"
    keys = {"criterion": CRITERIA[criterion], "scope": scope, "min_keep": floor or 1, "removal": REMOVALS[removal]}
    if removal == "hard":
        keys["compensate"] = "false"  # the plain removal
    return name, keys


SETTINGS = dict(
    [
        *(setting(criterion, "layer", 0) for criterion in CRITERIA),
        *(setting("taylor_square", "layer", 0, removal) for removal in REMOVALS if removal != "soft"),
        *(setting("taylor_square", scope, floor) for scope in ("isomorphic", "global") for floor in (0, 0.1, 0.25)),
        *(setting("norms", scope, 0.1) for scope in ("isomorphic", "global")),
        setting("taylor_square", "global", 0.25, "gradual soft"),
    ]
)
BASE = next(iter(SETTINGS.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"{', '.join(NETWORKS)}; all if absent")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("COMPRESS_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("runs/defaults"), help="folder for the dense networks")
    parser.add_argument("--seeds", type=int, default=3, help="of the order of the samples in retraining")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        for name in arguments.networks or NETWORKS:
            Study(name, arguments.data_root, arguments.work).fill(seed)


class Study:
    """The cells of one network."""

    def __init__(self, name: str, data_root: Path, work: Path) -> None:
        source, changes, self.epochs, self.rate = NETWORKS[name]
        self.name, self.source, self.changes, self.data_root = name, source, changes, data_root
        self.recipe = self._recipe()
        self.data = build_data(self.recipe.data, data_root)
        self.weights = work / f"{name}.safetensors"

    def fill(self, seed: int) -> None:
        """Measure what is not there yet."""
        found = CELLS.read().get(self.name, {})
        if "dense" not in found or not self.weights.exists():
            self._train_dense()
        for budget in BUDGETS:
            place = f"{budget:g}"
            if place not in CELLS.read()[self.name].get("rate", {}):
                CELLS.note(self.name, "rate", {place: self._best_rate(budget)})
            for name, changes in SETTINGS.items():
                cell = f"{place}, {name}, seed {seed}"
                if cell not in CELLS.read()[self.name].get("cells", {}):
                    rate = CELLS.read()[self.name]["rate"][place]
                    began = time.process_time()
                    result = self._measured(budget, changes, rate, seed, self.data)
                    result["seconds"] = round(time.process_time() - began, 1)
                    print(self.name, cell, result, flush=True)
                    CELLS.note(self.name, "cells", {cell: result})

    def _recipe(self, *changes: str) -> Recipe:
        return load_recipe(self.source, [*self.changes, "export=[]", *changes])

    def _train_dense(self) -> None:
        train, setting = self.recipe.train, on_cpu(self.recipe, self.data, 0)
        assert train is not None
        torch.manual_seed(0)
        model = build_model(self.recipe.model, 0)
        setting.train(model, train.epochs * setting.steps_per_epoch, optimization(train))
        write_weights(model.state_dict(), self.weights)
        size = measure(model, setting.example)
        entry = {"params": size.params, "macs": size.macs, **metric(setting.evaluate(model))}
        print(self.name, "dense", entry, flush=True)
        CELLS.note(self.name, "dense", entry)
        CELLS.note(self.name, "recipe", {"name": self.source, "changes": self.changes, "epochs": self.epochs})

    def _best_rate(self, budget: float) -> float:
        assert isinstance(self.data, Divisible)
        held_out = self.data.held_out(0.2)
        losses = {
            rate: self._measured(budget, BASE, rate, 0, held_out)["loss"]
            for rate in (self.rate / 2, self.rate, self.rate * 2, self.rate * 4)
        }
        print(self.name, budget, losses, flush=True)
        return min(losses, key=lambda rate: losses[rate])

    def _measured(
        self, budget: float, changes: dict[str, Any], rate: float, seed: int, data: TrainingData
    ) -> dict[str, Any]:
        if isinstance(share := changes["removal"], float):
            changes = {**changes, "removal": f"{{kind: soft, over: {share * self.epochs:g} epochs}}"}
        stage = ", ".join(f"{key}: {value}" for key, value in changes.items())
        retrain = ADAM.format(epochs=self.epochs, lr=rate)
        recipe = self._recipe(f"stages=[{{target: {{nodes: '*'}}, macs: {budget}, {stage}, retrain: {retrain}}}]")
        model = build_model(recipe.model, 0)
        load_weights(model, read_weights(self.weights), str(self.weights))
        pruned = Pruned()
        try:
            result = run_stage(model, recipe.stages[0], 0, pruned, on_cpu(recipe, data, seed))
        except CompressError as error:
            return {"refused": str(error)}
        return {**metric(result["after_removal"]), "narrowest": _narrowest(pruned)}


def _narrowest(pruned: Pruned) -> float:
    """The least share of its nodes that a layer keeps."""
    return min(float(keep.float().mean()) for keep in pruned.keep_nodes.values())


if __name__ == "__main__":
    main()
