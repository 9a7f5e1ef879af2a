"""Prunes a ResNet-20 to half of its multiply-adds by torch-pruning 1.6.1, at the steps and settings of our recipe.

    pip install --no-deps --target /some/folder torch-pruning==1.6.1    # the peer is not a dependency of this project
    python benchmarks/structured.py cifar10_resnet.pt --peer /some/folder --data-root DIR

The peer prunes channels by magnitude, at once, the same share of every width: the lowest that leaves no more than half
of the multiply-adds. Then the network trains as the recipe's stage says, with the same images in the same order. Ours
is the experiment `cifar10_resnet` of benchmarks/rivals.py; this leaves docs/benchmarks/structured.json.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peer import Peer

from compress.files.checkpoint import load_weights, read_weights
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.run.building import build_model, build_task
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.setting import Setting, optimization, unwatched

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "structured.json"
RECIPE = "cifar10_resnet"


def main(
    model: Annotated[Path, typer.Argument(help="The dense network's weights.")],
    peer: Annotated[Path, typer.Option(help="The folder that torch-pruning was installed into.")],
    data_root: Annotated[Path, typer.Option(help="Where the data lie.")] = Path("data"),
    seeds: Annotated[int, typer.Option(help="How many.")] = 3,
) -> None:
    """Measure what docs/benchmarks/structured.json does not have yet."""
    torch.set_num_threads(1)
    library = Peer(peer)
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    recipe = load_recipe(RECIPE)
    data, task = build_data(recipe.data, data_root), build_task(recipe.task)
    for seed in range(seeds):
        if str(seed) in found:
            continue
        setting = Setting(data, task, recipe.data.batch_size, torch.device("cpu"), seed, unwatched, Clock())
        found[str(seed)] = measured(library, recipe, model, setting)
        print(seed, found[str(seed)], flush=True)
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(peer: Peer, recipe: Any, weights: Path, setting: Setting) -> dict[str, Any]:
    stage = recipe.stages[0]
    dense = build_model(recipe.model, setting.seed)
    load_weights(dense, read_weights(weights), str(weights))
    example = setting.example.args[0]
    small = peer.cut(dense, example, peer.ratio(dense, example, stage.macs))
    before = setting.evaluate(small)
    setting.train(small, stage.retrain.epochs * setting.steps_per_epoch, optimization(stage.retrain))
    whole, slim = measure(dense, setting.example), measure(small, setting.example)
    left = {"params": slim.params / whole.params, "macs": slim.macs / whole.macs}
    return {"before_retraining": before, "after": setting.evaluate(small), "left": left}


if __name__ == "__main__":
    typer.run(main)
