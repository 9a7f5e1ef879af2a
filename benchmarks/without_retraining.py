"""How much does a network lose without a training step? Plain cuts beside `compress.prune`, on four networks.

The dense networks are those of defaults.py, and the ResNet-20 of the recipe cifar10_resnet, which is trained on all
images. They are trained once into --work. Every cell takes 500 training samples, drawn by
its seed, and is measured on the test samples. Finished cells are in docs/benchmarks/without_retraining.json, so that an
interrupted run resumes:

    python benchmarks/without_retraining.py --data-root DIR --work DIR --seeds 3
    python benchmarks/without_retraining.py vit --data-root DIR --work DIR
    python benchmarks/without_retraining.py --resnet50
"""

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from defaults import NETWORKS as SMALL
from torch import nn

import compress
from compress.files.checkpoint import load_weights, read_weights, write_weights
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.remove.prune import BRANCH_SAMPLES
from compress.run.building import build_model, build_task
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.setting import Setting, optimization, unwatched
from compress.select.criteria.ablation import Ablation
from compress.tasks import loss
from compress.train.recalibrate import calibrated

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "without_retraining.json"

SAMPLES = 500
ALL_IMAGES = "resnet20, all images"
NETWORKS: dict[str, tuple[str, list[str]]] = {
    **{name: (source, changes) for name, (source, changes, *_) in SMALL.items()},
    ALL_IMAGES: ("cifar10_resnet", ["train.precision=float32"]),
}
MACS = {"resnet20": 0.7, ALL_IMAGES: 0.7, "vit": 0.75, "bert": 0.75}
PLAIN, RECALIBRATED, CUT, PRUNE = "magnitude", "magnitude, norms re-estimated", "obs", "compress.prune"
ABLATION = "ablation"
BUT_EMBEDDINGS = "50 % of the weights but embeddings"
"""As is usual for language models (Frantar & Alistarh, "SparseGPT", 2023)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"{'; '.join(MACS)}; all if absent")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("COMPRESS_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("runs/defaults"), help="folder for the dense networks")
    parser.add_argument("--seeds", type=int, default=3, help="of the samples")
    parser.add_argument("--resnet50", action="store_true", help="only the seconds of a ResNet-50 of torchvision")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.resnet50:
        _note("resnet50", resnet50())
        return
    for name in arguments.networks or MACS:
        network = Network(name, arguments.data_root, arguments.work)
        for seed in range(arguments.seeds):
            network.fill(seed)


class Network:
    """A trained network, and its cells."""

    def __init__(self, name: str, data_root: Path, work: Path) -> None:
        source, changes = NETWORKS[name]
        self.name, recipe = name, load_recipe(source, [*changes, "export=[]"])
        task = build_task(recipe.task)
        data = build_data(recipe.data, data_root)
        self.setting = Setting(data, task, recipe.data.batch_size, torch.device("cpu"), 0, unwatched, Clock())
        self.model = build_model(recipe.model, 0)
        weights = work / f"{name}.safetensors"
        if not weights.exists():
            assert recipe.train is not None
            torch.manual_seed(0)
            steps = recipe.train.epochs * self.setting.steps_per_epoch
            self.setting.train(self.model, steps, optimization(recipe.train))
            work.mkdir(parents=True, exist_ok=True)
            write_weights(self.model.state_dict(), weights)
        load_weights(self.model, read_weights(weights), str(weights))
        self.model.eval()

    def fill(self, seed: int) -> None:
        if "dense" not in _read().get(self.name, {}):
            _note(self.name, {"dense": self._measured(self.model)})
        macs = MACS[self.name]
        amounts: dict[str, dict[str, Any]] = {
            "fewer multiply-adds": {"macs": macs},
            "50 % of the weights": {"sparsity": 0.5, "target": compress.weights("*")},
            "fewer branches": {"macs": macs, "target": compress.branches("*")},
        }
        if tables := [name for name, layer in self.model.named_modules() if isinstance(layer, nn.Embedding)]:
            amounts[BUT_EMBEDDINGS] = {"sparsity": 0.5, "target": compress.weights("*", exclude=tables)}
        for amount, how in amounts.items():
            for method in (PRUNE, ABLATION) if amount == "fewer branches" else (PRUNE, PLAIN, RECALIBRATED, CUT):
                cell = f"{amount}, {method}, seed {seed}"
                useless = (method == RECALIBRATED and not calibrated(self.model)) or (method == PLAIN and seed)
                if cell in _read()[self.name] or useless:
                    continue
                began = time.process_time()
                found = self._pruned(how, method, self._samples(seed))
                seconds = round(time.process_time() - began, 1)
                entry = {**self._measured(found), "seconds": seconds}
                if amount == "fewer branches":
                    entry["macs"] = round(self._macs(found) / self._macs(self.model), 3)
                print(self.name, cell, entry, flush=True)
                _note(self.name, {cell: entry})

    def _pruned(self, how: dict[str, Any], method: str, samples: list[Any]) -> nn.Module:
        example = self.setting.example
        if method == PRUNE:
            return compress.prune(self.model, example, batches=samples, loss=loss(self.setting.task), **how)
        model = copy.deepcopy(self.model)
        target = how.get("target", compress.nodes("*"))
        amount = {key: value for key, value in how.items() if key != "target"}
        criterion: Any
        if method == ABLATION:
            criterion, amount["loss"] = Ablation(BRANCH_SAMPLES), loss(self.setting.task)
        else:
            criterion, amount["scope"] = "obs" if method == CUT else "magnitude", "layer"
        compress.Pruner(model, target, example=example, criterion=criterion, batches=samples, **amount).finalize()
        if method == ABLATION:
            return compress.slim(model, example)
        if method == RECALIBRATED:
            compress.recalibrate(model, samples)
        return model

    def _samples(self, seed: int) -> list[Any]:
        chance = torch.Generator().manual_seed(seed)
        batches = self.setting.data.batches("train", 50, self.setting.task, self.setting.device)(chance)
        return [next(batches) for _ in range(SAMPLES // 50)]

    def _macs(self, model: nn.Module) -> int:
        return measure(model, self.setting.example).macs

    def _measured(self, model: nn.Module) -> dict[str, float]:
        found: Any = self.setting.evaluate(model)
        return {key: float(found[key]) for key in ("loss", "accuracy")}


def resnet50() -> dict[str, Any]:
    """Seconds on one thread, of random weights, which take as long as trained ones."""
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    model = build().eval()
    samples = [torch.randn(16, 3, 224, 224) for _ in range(4)]
    before = _forward_pass(model, samples)
    began, busy = time.monotonic(), time.process_time()
    small = compress.prune(model, samples[0][:1], macs=0.7, batches=samples)
    found = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time() - busy, 1)}
    found["forward_pass"] = round((before + _forward_pass(model, samples)) / 2, 1)
    share = measure(small, samples[0][:1]).macs / measure(model, samples[0][:1]).macs
    print(found, share, flush=True)
    return {**found, "samples": 64, "macs": round(share, 3)}


@torch.no_grad()
def _forward_pass(model: nn.Module, samples: list[torch.Tensor]) -> float:
    """Seconds of the processor for all samples."""
    busy = time.process_time()
    for inputs in samples:
        model(inputs)
    return time.process_time() - busy


def _read() -> dict[str, Any]:
    return json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}


def _note(network: str, entries: dict[str, Any]) -> None:
    found = _read()
    found.setdefault(network, {}).update(entries)
    OUT.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
