"""Which removal of whole nodes keeps most, at equal steps, beside a peer? Three autoencoders and four classifiers.
Six chains of dense layers, which differ in one thing at a time, show what makes soft removal win.

All methods prune the same share of every width (`scope: layer`). Each method's learning rate, and the strength of the
peer's regulariser, are chosen on held-out training samples at the middle budget, about a quarter of the multiply-adds.
Then every method is measured on the test samples after exact removal, once for each seed of the retraining. Finished
cells are in docs/benchmarks/structures.json, so that an interrupted run resumes:

    pip install --no-deps --target DIR torch-pruning==1.6.1    # the peer is not a dependency of this project
    python benchmarks/structures.py --peer DIR --data-root DIR
    python benchmarks/structures.py mnist_autoencoder --budgets middle --seeds 5 --peer DIR --data-root DIR
"""

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from defaults import NETWORKS as SMALL
from peer import Peer, PeerError
from study import Cells, metric, on_cpu
from torch import nn

from compress.data.dataset import Divisible, TrainingData
from compress.errors import CompressError
from compress.files.checkpoint import load_weights, read_weights, write_weights
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe, Stage
from compress.remove.removals import Hard
from compress.run.building import build_model
from compress.run.data_sets import build_data
from compress.run.pruning import in_batches_of, pruner_of, removal_of
from compress.run.setting import Setting, optimization
from compress.run.stage import run_stage
from compress.select.pruned import Pruned

CELLS = Cells("structures")

AUTOENCODER = ["train.epochs=20"]
CONVOLUTIONAL = ["data.train=5000", "data.test=1000", "data.batch_size=50", "train.epochs=20"]
CHAINS = {"": "{}", "_norm": "{norm: true}", "_shortcut": "{shortcut: true}"}
BATCH = 64
"""Samples of a batch in retraining, or those of a batch of the data if these are fewer."""


def chain(kind: str, words: str) -> tuple[str, list[str], int, float]:
    model = f"model={{factory: 'small_networks:chain_{kind}', args: {CHAINS[words]}}}"
    task = "task=reconstruct" if kind == "autoencoder" else "task=classify"
    train = "train={epochs: 15, optimizer: adamw, lr: 1e-3, lr_schedule: cosine}"
    return "mnist_latent", [model, "data={name: mnist, train: 10000, test: 2000, batch_size: 64}", task, train], 3, 1e-3


# name -> the recipe whose network and data are used, what is changed, epochs of retraining and the usual rate
NETWORKS: dict[str, tuple[str, list[str], int, float]] = {
    "mnist_autoencoder": ("mnist_latent", AUTOENCODER, 3, 3e-3),
    "fashion_autoencoder": ("fashion_mnist_ae", [*AUTOENCODER, "data.train=20000"], 3, 3e-3),
    "conv_autoencoder": ("cifar10_ae", CONVOLUTIONAL, 3, 6e-3),
    **{name: SMALL[name] for name in ("lstm", "mobilenet", "vit", "resnet20")},
    **{f"chain_{kind}{words}": chain(kind, words) for kind in ("autoencoder", "classifier") for words in CHAINS},
}
"""The chains differ in one thing at a time: what is learned, norms, shortcuts."""
WHOLE = {"conv_autoencoder": "decoder.1"}
"""A layer that keeps its nodes: its 72 are 8 channels of 3 x 3. The peer cannot prune these, and 2 channels would be a
narrower code than the latent nodes."""

SEVENTY_PERCENT = {"sparsity": 0.7}
QUARTER = {"macs": 0.25}

Budget = dict[str, float]


def budgets(name: str) -> dict[str, Budget]:
    """The middle budget is 70 % of every width in autoencoders and chains, which leaves about a quarter."""
    return {
        "middle": QUARTER if name in SMALL else SEVENTY_PERCENT,
        "half": {"macs": 0.5},
        "eighth": {"macs": 0.125},
    }


TO_THE_END = "{{kind: soft, over: {epochs} epochs}}"
TAYLOR = "{kind: taylor_square, samples: 500}"
OURS: dict[str, dict[str, Any]] = {
    "hard": {"criterion": "norms", "removal": "hard", "compensate": "false"},
    "hard, compensated": {"criterion": "norms", "removal": "hard"},
    "soft": {"criterion": "norms", "removal": "soft"},
    "soft to the end": {"criterion": "norms", "removal": TO_THE_END},
    "gradual soft": {"criterion": "norms", "removal": "gradual_soft"},
    "hard, taylor_square": {"criterion": TAYLOR, "removal": "hard", "compensate": "false"},
    "soft, taylor_square": {"criterion": TAYLOR, "removal": "soft"},
    "hard, distilled": {"criterion": "norms", "removal": "hard", "compensate": "false"},
    "soft, distilled": {"criterion": "norms", "removal": "soft"},
}
"""Keys of a stage; a removal that is only a word takes its default length, three quarters of the retraining."""

SOFT_COMPENSATED = "soft, compensated"
"""Not a removal of this package: the kept weights move to their least-squares values as the nodes fade."""

PEER_MAGNITUDE, PEER_SPARSE = "peer, magnitude", "peer, group-norm training"
METHODS = (*OURS, SOFT_COMPENSATED, PEER_MAGNITUDE, PEER_SPARSE)
STRENGTHS = (1e-6, 1e-5, 1e-4)
SPARSE_SHARE = 1 / 3
"""The share of the steps that the peer trains with its regulariser before it cuts."""


@dataclass(frozen=True)
class Choice:
    """What is chosen on held-out samples for a method."""

    rate: float
    strength: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"{', '.join(NETWORKS)}; all if absent")
    parser.add_argument("--budgets", nargs="+", default=["middle", "eighth", "half"])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--peer", type=Path, required=True, help="the folder that torch-pruning was installed into")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("COMPRESS_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("runs/structures"), help="folder for the dense networks")
    parser.add_argument("--seeds", type=int, default=5, help="of the order of the samples in retraining")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks or NETWORKS:
        study = Study(name, arguments.data_root, arguments.work, Peer(arguments.peer))
        for budget in arguments.budgets:
            for seed in range(arguments.seeds):
                for method in arguments.methods:
                    study.fill(budget, method, seed)


class Study:
    """The cells of one network."""

    def __init__(self, name: str, data_root: Path, work: Path, peer: Peer) -> None:
        self.source, self.changes, self.epochs, self.rate = NETWORKS[name]
        self.name, self.peer, self.budgets = name, peer, budgets(name)
        self.recipe = self._recipe()
        self.data = build_data(self.recipe.data, data_root)
        self.weights = work / f"{name}.safetensors"
        if "dense" not in CELLS.read().get(name, {}) or not self.weights.exists():
            self._train_dense()

    def fill(self, budget: str, method: str, seed: int) -> None:
        """Measure a cell, unless it is there."""
        cell = f"{budget}, {method}, seed {seed}"
        if cell in CELLS.read()[self.name].get("cells", {}):
            return
        choice, began = self._choice(method), time.process_time()
        result = self._measured(budget, method, choice, seed, self.data)
        result["seconds"] = round(time.process_time() - began, 1)
        print(self.name, cell, result, flush=True)
        CELLS.note(self.name, "cells", {cell: result})

    def _recipe(self, *changes: str) -> Recipe:
        return load_recipe(self.source, [*self.changes, "export=[]", *changes])

    def _train_dense(self) -> None:
        train, setting = self.recipe.train, on_cpu(self.recipe, self.data, 0)
        assert train is not None
        model = build_model(self.recipe.model, 0)
        setting.train(model, train.epochs * setting.steps_per_epoch, optimization(train))
        write_weights(model.state_dict(), self.weights)
        size = measure(model, setting.example)
        entry = {"params": size.params, "macs": size.macs, **metric(setting.evaluate(model))}
        print(self.name, "dense", entry, flush=True)
        CELLS.note(self.name, "dense", entry)
        CELLS.note(self.name, "recipe", {"name": self.source, "changes": self.changes, "epochs": self.epochs})

    def _choice(self, method: str) -> Choice:
        """The best of a grid on held-out samples, by its loss; distillation has that of its plain method."""
        method = method.replace(", distilled", "")
        if found := CELLS.read()[self.name].get("choices", {}).get(method):
            return Choice(found["rate"], found["strength"])
        assert isinstance(self.data, Divisible)
        held_out = self.data.held_out(0.2)

        def loss(choice: Choice) -> float:
            found: float = self._measured("middle", method, choice, 0, held_out).get("loss", float("inf"))
            return found

        strengths = STRENGTHS if method == PEER_SPARSE else (None,)
        usual = best_of([Choice(self.rate, strength) for strength in strengths], loss)
        choice = best_of([Choice(self.rate * factor, usual.strength) for factor in (0.5, 1, 2)], loss)
        CELLS.note(self.name, "choices", {method: {"rate": choice.rate, "strength": choice.strength}})
        return choice

    def _measured(self, budget: str, method: str, choice: Choice, seed: int, data: TrainingData) -> dict[str, Any]:
        recipe = self._stage(budget, OURS.get(method, OURS["hard"]), choice.rate, "distilled" in method)
        model = build_model(recipe.model, 0)
        load_weights(model, read_weights(self.weights), str(self.weights))
        setting = on_cpu(recipe, data, seed)
        try:
            if method in OURS:
                return metric(run_stage(model, recipe.stages[0], 0, Pruned(), setting)["after_removal"])
            if method == SOFT_COMPENSATED:
                soft = self._stage(budget, OURS["soft"], choice.rate, False).stages[0]
                setting = in_batches_of(soft, setting)
                softly_compensated(model, recipe.stages[0], soft, setting)
                return metric(setting.evaluate(model))
            return self._peer(method, self.budgets[budget], choice, model, recipe, setting)
        except (CompressError, PeerError) as error:
            return {"refused": str(error)}

    def _stage(self, budget: str, keys: dict[str, Any], rate: float, distilled: bool) -> Recipe:
        stage = ", ".join(f"{key}: {value}" for key, value in {**self.budgets[budget], **keys}.items())
        stage = stage.replace(TO_THE_END, TO_THE_END.format(epochs=self.epochs))
        batch = min(BATCH, self.recipe.data.batch_size)
        retrain = f"epochs: {self.epochs}, batch_size: {batch}, optimizer: adamw, lr: {rate}, lr_schedule: cosine"
        teacher = ", distill: {weight: 0.5}" if distilled else ""
        whole = f", exclude: {WHOLE[self.name]}" if self.name in WHOLE else ""
        target = f"target: {{nodes: '*'{whole}}}, scope: layer, min_keep: 1"
        return self._recipe(f"stages=[{{{target}, {stage}, retrain: {{{retrain}, weight_decay: 1e-2{teacher}}}}}]")

    def _peer(
        self, method: str, budget: Budget, choice: Choice, model: nn.Module, recipe: Recipe, setting: Setting
    ) -> dict[str, Any]:
        retrain, example = recipe.stages[0].retrain, setting.example.args[0]
        assert retrain is not None
        how, setting = optimization(retrain), in_batches_of(recipe.stages[0], setting)
        dense, steps = measure(model, example), round(retrain.epochs * setting.steps_per_epoch)
        ratio = budget.get("sparsity") or self.peer.ratio(model, example, budget["macs"])
        if method == PEER_SPARSE:
            sparse = round(steps * SPARSE_SHARE)
            steps -= sparse
            assert choice.strength is not None
            train = partial(setting.train, model, sparse, constant(how))
            self.peer.sparsely_trained(model, example, ratio, choice.strength, train)
        else:
            model = self.peer.cut(model, example, ratio)
        setting.train(model, steps, how)
        return {**metric(setting.evaluate(model)), "macs": measure(model, example).macs / dense.macs}


def softly_compensated(model: nn.Module, hard: Stage, soft: Stage, setting: Setting) -> None:
    """Prune softly; while the factor of the nodes goes to zero, the kept weights go to what compensates for them."""
    steps, removal = removal_of(soft, setting.steps_per_epoch)
    compensated = copy.deepcopy(model)
    pruner_of(compensated, hard, 0, Pruned(), setting, Hard(), compensate=True).finalize()
    moves = {
        name: after.detach() - before.detach()
        for (name, before), after in zip(model.named_parameters(), compensated.parameters(), strict=True)
    }
    pruner = pruner_of(model, soft, 0, Pruned(), setting, removal)
    parameters = {name.removesuffix("_orig"): parameter for name, parameter in model.named_parameters()}
    for name, keep in pruner.pruned.keep.items():
        moves[name] *= keep
    factor = 1.0

    @torch.no_grad()
    def after_step(step: int) -> None:
        nonlocal factor
        pruner.step()
        before, factor = factor, 0.0 if pruner.removed else pruner.factor or 0.0
        for name, move in moves.items():
            parameters[name].add_(move, alpha=before - factor)

    assert soft.retrain is not None
    setting.train(model, steps, optimization(soft.retrain), after_step, pruner=pruner)
    pruner.finalize()


def constant(how: Any) -> Any:
    """The same training at a constant rate: the cosine starts with the cut."""
    return type(how)(**{**vars(how), "lr_schedule": "constant"})


def best_of(choices: Sequence[Choice], loss: Callable[[Choice], float]) -> Choice:
    return min(choices, key=loss) if len(choices) > 1 else choices[0]


if __name__ == "__main__":
    main()
