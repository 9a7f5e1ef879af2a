"""Prunes a ResNet-20 to half of its multiply-adds by torch-pruning 1.6.1, at the steps and settings of our recipe.

    pip install --no-deps --target /some/folder torch-pruning==1.6.1    # the peer is not a dependency of this project
    python benchmarks/structured.py cifar10_resnet.pt --peer /some/folder --data-root DIR

The peer prunes channels by magnitude, at once, the same share of every width: the lowest that leaves no more than half
of the multiply-adds. Then the network trains as the recipe's stage says, with the same images in the same order. Ours
is the experiment `cifar10_resnet` of benchmarks/rivals.py; this leaves docs/benchmarks/structured.json.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from compress.files.checkpoint import load_weights, read_weights
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.run.building import build_model, build_task
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.setting import Setting, optimization, unwatched

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "structured.json"
RECIPE = "cifar10_resnet"
HALVINGS = 12


def main(
    model: Annotated[Path, typer.Argument(help="The dense network's weights.")],
    peer: Annotated[Path, typer.Option(help="The folder that torch-pruning was installed into.")],
    data_root: Annotated[Path, typer.Option(help="Where the data lie.")] = Path("data"),
    seeds: Annotated[int, typer.Option(help="How many.")] = 3,
) -> None:
    """Measure what docs/benchmarks/structured.json does not have yet."""
    torch.set_num_threads(1)
    sys.path.append(str(peer))
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    recipe = load_recipe(RECIPE)
    data, task = build_data(recipe.data, data_root), build_task(recipe.task)
    for seed in range(seeds):
        if str(seed) in found:
            continue
        setting = Setting(data, task, recipe.data.batch_size, torch.device("cpu"), seed, unwatched, Clock())
        found[str(seed)] = measured(recipe, model, setting)
        print(seed, found[str(seed)], flush=True)
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(recipe: Any, weights: Path, setting: Setting) -> dict[str, Any]:
    stage = recipe.stages[0]
    dense = build_model(recipe.model, setting.seed)
    load_weights(dense, read_weights(weights), str(weights))
    small = pruned(dense, setting, stage.macs)
    before = setting.evaluate(small)
    setting.train(small, stage.retrain.epochs * setting.steps_per_epoch, optimization(stage.retrain))
    whole, slim = measure(dense, setting.example), measure(small, setting.example)
    left = {"params": slim.params / whole.params, "macs": slim.macs / whole.macs}
    return {"before_retraining": before, "after": setting.evaluate(small), "left": left}


def pruned(dense: nn.Module, setting: Setting, budget: float) -> nn.Module:
    """The network with the lowest pruning ratio whose multiply-adds are within the budget."""
    import torch_pruning as tp  # type: ignore[import-not-found]

    allowed = budget * measure(dense, setting.example).macs
    low, high, best = 0.0, 1.0, dense
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        model = copy.deepcopy(dense)
        tp.pruner.MagnitudePruner(
            model,
            setting.example,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            max_pruning_ratio=0.95,
            ignored_layers=[model.get_submodule("head")],
        ).step()
        if measure(model, setting.example).macs <= allowed:
            high, best = ratio, model
        else:
            low = ratio
    return best


if __name__ == "__main__":
    typer.run(main)
