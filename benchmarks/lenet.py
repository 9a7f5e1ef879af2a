"""LeNet-300-100 and LeNet-5 on MNIST, where the pruning literature compares itself: test error and exact zeros.

Each seed trains a dense network on all 60,000 training images. Then every removal prunes it by global magnitude with
the same steps and distillation, each at its best learning rate on held-out training images (seed 0). `nodes` prunes
LeNet-5 as structure. Finished cells are in docs/benchmarks/lenet.json, so that an interrupted run resumes:

    python benchmarks/lenet.py --data-root DIR
    python benchmarks/lenet.py lenet_5 --cells "111x, gradual soft" --seeds 1 --data-root DIR
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from study import Cells, on_cpu
from torch import nn

import compress
from compress.data.dataset import Divisible, TrainingData
from compress.files.checkpoint import load_weights, read_weights, write_weights
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe
from compress.run.building import build_model
from compress.run.data_sets import build_data
from compress.run.setting import optimization
from compress.run.stage import run_stage
from compress.select.pruned import Pruned

CELLS = Cells("lenet")
RATES = (2e-3, 5e-3)


@dataclass(frozen=True)
class Network:
    """epochs: of the retraining. tuning: of the shorter retrainings by which the rate is chosen."""

    epochs: int
    tuning: int
    compressions: tuple[int, ...]
    rates: tuple[float, ...] = RATES


NETWORKS = {
    "lenet_300_100": Network(epochs=40, tuning=15, compressions=(68, 12)),
    "lenet_5": Network(epochs=15, tuning=3, compressions=(111, 280)),
}
REMOVALS = {
    "hard": "hard",
    "soft": "{{kind: soft, over: {most} epochs}}",
    "gradual": "{{kind: gradual, over: {most} epochs}}",
    "gradual soft": "{{kind: gradual_soft, over: {nearly} epochs, cohort: {cohort} epochs}}",
}
"""With shares of the retraining: three quarters, five sixths, two fifteenths."""

NODES = "nodes"
NODES_MACS = 0.165
"""A little below 9-18-65-25 (Louizos, Welling & Kingma, 2018), whose multiply-adds are 0.170 of the dense network's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"{', '.join(NETWORKS)}; all if absent")
    parser.add_argument("--cells", nargs="+", help='such as "111x, gradual soft" or "nodes"; all if absent')
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("COMPRESS_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("runs/lenet"), help="folder for the dense networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--epochs", type=int, help="of the retraining; the cells of another number have it in their names"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks or NETWORKS:
        study = Study(name, arguments.data_root, arguments.work, arguments.epochs)
        for seed in arguments.seeds:
            for cell in arguments.cells or study.cells:
                study.fill(cell, seed)


class Study:
    """The cells of one network."""

    def __init__(self, name: str, data_root: Path, work: Path, epochs: int | None = None) -> None:
        self.name, self.network, self.work = name, NETWORKS[name], work
        self.epochs = epochs or self.network.epochs
        self.cells = [f"{times}x, {removal}" for times in self.network.compressions for removal in REMOVALS]
        self.cells += [NODES] if name == "lenet_5" else []
        self.data = build_data(load_recipe(name).data, data_root)

    def fill(self, cell: str, seed: int) -> None:
        """Measure a cell, unless it is there."""
        longer = "" if self.epochs == self.network.epochs else f", {self.epochs} epochs"
        key = f"{cell}{longer}, seed {seed}"
        if key in CELLS.read().get(self.name, {}).get("cells", {}):
            return
        self._train_dense(seed)
        rate, began = self._rate(cell), time.process_time()
        model, found = self._pruned(cell, seed, rate, self.epochs, self.data)
        found |= sizes(model, self.data.example.args[0], cell == NODES) | {"int8": self._in_int8(model, cell)}
        found["seconds"] = round(time.process_time() - began, 1)
        print(self.name, key, found, flush=True)
        CELLS.note(self.name, "cells", {key: found})

    def _train_dense(self, seed: int) -> None:
        if self._weights(seed).exists() and f"seed {seed}" in CELLS.read().get(self.name, {}).get("dense", {}):
            return
        recipe = load_recipe(self.name, ["export=[]"])
        setting, train = on_cpu(recipe, self.data, seed), recipe.train
        assert train is not None
        model = self._built(recipe, seed)
        setting.train(model, train.epochs * setting.steps_per_epoch, optimization(train))
        write_weights(model.state_dict(), self._weights(seed))
        error = 1 - setting.evaluate(model)["accuracy"]
        print(self.name, "dense", seed, error, flush=True)
        CELLS.note(self.name, "dense", {f"seed {seed}": {"error": error}})

    def _rate(self, cell: str) -> float:
        """The best on held-out training images, from shorter retrainings; one rate for a removal."""
        removal = cell.split(", ")[-1]
        known = CELLS.read().get(self.name, {}).get("rates", {})
        if removal not in known:
            assert isinstance(self.data, Divisible)
            held_out = self.data.held_out(1 / 6)
            losses = {
                rate: self._pruned(cell, 0, rate, self.network.tuning, held_out)[1]["loss"]
                for rate in self.network.rates
            }
            print(self.name, removal, losses, flush=True)
            known = {removal: min(losses, key=lambda rate: losses[rate])}
            CELLS.note(self.name, "rates", known)
        found: float = known[removal]
        return found

    def _pruned(
        self, cell: str, seed: int, rate: float, epochs: int, data: TrainingData
    ) -> tuple[nn.Module, dict[str, Any]]:
        recipe = load_recipe(self.name, ["export=[]", f"stages=[{stage(cell, rate, epochs)}]"])
        model = self._built(recipe, seed)
        load_weights(model, read_weights(self._weights(seed)), str(self._weights(seed)))
        found = run_stage(model, recipe.stages[0], 0, Pruned(), on_cpu(recipe, data, seed))["after_removal"]
        return model, {"error": 1 - found["accuracy"], "loss": found["loss"]}

    def _in_int8(self, model: nn.Module, cell: str) -> dict[str, Any]:
        """Of the file without zeros in 8 bits: its bytes, and the test error of the network that it is."""
        example, recipe = self.data.example.args[0], load_recipe(self.name)
        small = compress.slim(model, example) if cell == NODES else model
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.safetensors"
            compress.export.sparse(small, path, int8=True)
            again = compress.load(path, model=lambda: build_model(recipe.model, 0))
            error = 1 - on_cpu(recipe, self.data, 0).evaluate(again)["accuracy"]
            return {"bytes": path.stat().st_size, "error": error}

    def _built(self, recipe: Recipe, seed: int) -> nn.Module:
        # Convolutions of a few channels are faster in this order in memory.
        return build_model(recipe.model, seed).to(memory_format=torch.channels_last)

    def _weights(self, seed: int) -> Path:
        return self.work / f"{self.name}_{seed}.safetensors"


def stage(cell: str, rate: float, epochs: int) -> str:
    most, nearly, cohort = (round(epochs * share, 2) for share in (3 / 4, 5 / 6, 2 / 15))
    if cell == NODES:
        what = f"target: {{nodes: '*'}}, criterion: taylor_square, scope: global, macs: {NODES_MACS}"
        removal = REMOVALS["soft"]
    else:
        times, word = cell.split("x, ")
        what = f"target: {{weights: '*'}}, criterion: magnitude, scope: global, sparsity: {1 - 1 / int(times)}"
        removal = REMOVALS[word]
    how = removal.format(most=most, nearly=nearly, cohort=cohort) if "{" in removal else removal
    retrain = f"epochs: {epochs}, optimizer: adam, lr: {rate}, lr_schedule: cosine"
    return f"{{{what}, removal: {how}, retrain: {{{retrain}, distill: {{weight: 0.9, temperature: 4}}}}}}"


def sizes(model: nn.Module, example: torch.Tensor, nodes: bool) -> dict[str, Any]:
    """Nonzero weights (without biases), and what a file without the zeros takes; of the slim network if nodes went."""
    if nodes:
        dense = measure(model, example).macs
        model = compress.slim(model, example)
        widths = [one.weight.shape[0] for one in model.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
        return {"macs": measure(model, example).macs / dense, "widths": widths, **file_bytes(model)}
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    nonzero = sum(int(weight.count_nonzero()) for weight in weights)
    return {"nonzero": nonzero, "weights": sum(weight.numel() for weight in weights), **file_bytes(model)}


def file_bytes(model: nn.Module) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        compress.export.sparse(model, path)
        return {"bytes": path.stat().st_size}


if __name__ == "__main__":
    main()
