"""Counts which of torchvision's networks can be slimmed exactly, and how quickly, beside torch-pruning 1.6.1.

    pip install --no-deps --target /some/folder torch-pruning==1.6.1    # the peer is not a dependency of this project
    python benchmarks/zoo.py --peer /some/folder --onnx

Every network has random weights and biases, and batch norms with the statistics of two batches of random pictures, so
that its outputs depend on the picture. Half of the nodes of every coupled width are set to zero on
both sides, the classifier's outputs are kept, and the network is slimmed. It passes if it runs, its outputs keep their
shape, at least 30 % of its parameters are cut, and it computes what the masked network does (1e-5 of its scale). The
peer prunes the same networks by magnitude, half of everything but the layers that have the classes as outputs; it
passes if it runs, with the same shape and saving. The analysis is `couplings` here, and building the dependency graph
with all its groups there, both on one picture of 224 x 224 in one thread, after a first analysis of a tiny network and
without garbage collection. Seconds are of processor time.

Detection networks are tried as a whole, and then their backbone, which is its own network, alone.

Each network has its own process, with 120 seconds and 16 GB. Measurements are kept in --cache and not repeated;
`--onnx` adds a pass that exports the slim classifiers and compares onnxruntime's outputs. The tables are written
after each run, from the whole cache.
"""

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from lively import calibrate
from outputs import difference
from processes import Parts, Row, measure, short
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision import models as zoo
from zoo_page import DOCS, write

from compress.graph.coupling import Couplings, couplings
from compress.slimming.shrink import slim

LEAST_GONE = 0.30


def names(kind: str) -> list[str]:
    module = {"classification": zoo, "segmentation": zoo.segmentation, "detection": zoo.detection}[kind]
    return sorted(zoo.list_models(module=module))


def build(name: str) -> nn.Module:
    """The network `name` with random weights, in evaluation mode; batch norms have seen random pictures."""
    torch.manual_seed(0)
    options: Row = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}  # takes minutes
    if name not in names("classification"):
        options |= {"weights_backbone": None}
    model: nn.Module = zoo.get_model(name, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    if name in names("classification"):
        calibrate(model, lambda model: model(torch.randn(4, *picture(name).shape[1:])))
    elif name in names("segmentation"):
        calibrate(model, lambda model: model(torch.randn(2, 3, 128, 128)))
    else:
        calibrate(model.get_submodule("backbone"), lambda model: model(torch.randn(2, *picture(name).shape[1:])))
    return model


def picture(name: str) -> Tensor:
    size = {"inception_v3": 299, "ssd300_vgg16": 300}.get(name, 224)
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def shapes(model: nn.Module, example: Tensor) -> list[list[int]]:
    with torch.no_grad():
        return [list(leaf.shape) for leaf in tree_leaves(model(example)) if isinstance(leaf, Tensor)]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def timed(analyse: Callable[[nn.Module, Any], Any], model: nn.Module, example: object) -> tuple[Any, float]:
    """The result of the analysis of `model`, and its seconds."""
    analyse(tiny(), torch.randn(1, 3, 32, 32))
    gc.collect()
    gc.disable()
    begin = time.process_time()
    found = analyse(model, example)
    seconds = time.process_time() - begin
    gc.enable()
    return found, seconds


@torch.no_grad()
def halve(model: nn.Module, known: Couplings) -> None:
    """Set every second node of each width to zero, on both sides."""
    for coupling in known.found:
        keep = torch.arange(coupling.size) % 2 == 0
        for parameter, mask in coupling.masks(model, keep).items():
            model.get_parameter(parameter).mul_(mask)


def halved(model: nn.Module, example: Tensor) -> tuple[nn.Module, Row]:
    """The slim network, and what was measured on the way; `model` is the masked one afterwards."""
    known, analysis = timed(couplings, model, example)
    halve(model, known)
    begin = time.process_time()
    small = slim(model, example)
    found = {"analysis_seconds": analysis, "slim_seconds": time.process_time() - begin}
    return small, found | {"widths": len(known.found), "traced": isinstance(small, torch.fx.GraphModule)}


def ours(name: str) -> Row:
    return slimmed(build(name), picture(name))


def backbone(name: str) -> Row:
    """The part of a detection network that computes features of a batch of pictures."""
    model = build(name)
    return {"whole": count(model)} | slimmed(model.get_submodule("backbone"), picture(name))


def slimmed(model: nn.Module, example: Tensor) -> Row:
    small, found = halved(model, example)
    dense, left = count(model), count(small)
    same = shapes(small, example) == shapes(model, example)
    with torch.no_grad():
        found["depends"] = difference(model(example), model(torch.randn_like(example)))
    return found | {"params": dense, "gone": 1 - left / dense, "pass": same and 1 - left / dense >= LEAST_GONE}


def onnx(name: str) -> Row:
    """Parity of the exported slim network; where it cannot be exported, whether the dense one can."""
    import compress.export

    small, _ = halved(build(name), picture(name))
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {"pass": True, "difference": compress.export.onnx(small, Path(folder) / "m.onnx", picture(name))}
        except Exception as error:
            found = {"pass": False, "error": short(error)}
        try:
            compress.export.onnx(build(name), Path(folder) / "m.onnx", picture(name))
        except Exception as error:
            return found | {"dense_error": short(error)}
    return found


def peer(name: str) -> Row:
    import torch_pruning as tp  # type: ignore[import-not-found]

    def analyse(model: nn.Module, example: Tensor) -> None:
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
        list(graph.get_all_groups())

    model, example = build(name), picture(name)
    dense, before = count(model), shapes(model, example)
    _, analysis = timed(analyse, model, example)
    classes = (1000, 21)
    heads = [layer for layer in model.modules() if getattr(layer, "out_features", 0) in classes]
    heads += [layer for layer in model.modules() if getattr(layer, "out_channels", 0) in classes]
    pruner = tp.pruner.MagnitudePruner(
        model,
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=heads,
        num_heads={layer: layer.num_heads for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)},
    )
    pruner.step()
    gone = 1 - count(model) / dense
    same = shapes(model, example) == before
    return {"analysis_seconds": analysis, "params": dense, "gone": gone, "pass": same and gone >= LEAST_GONE}


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))


# The measurements of each kind of network.
PARTS: Parts = {"ours": ours, "peer": peer, "onnx": onnx, "backbone": backbone}
KINDS = {
    "classification": ("ours", "peer", "onnx"),
    "segmentation": ("ours", "peer"),
    "detection": ("ours", "backbone"),
}


def main(
    peer: Annotated[Path | None, typer.Option(help="The folder that torch-pruning was installed into.")] = None,
    cache: Annotated[Path, typer.Option(help="Where measurements are kept, one file each.")] = Path(".zoo"),
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export the slim networks.")] = False,
    only: Annotated[str, typer.Option(help="Networks whose names contain this.")] = "",
    kind: Annotated[str, typer.Option(help="classification, segmentation or detection; all by default.")] = "",
) -> None:
    """Measure what is not in the cache yet, and write docs/zoo.json and docs/zoo.md."""
    torch.set_num_threads(1)  # which makes forks safe, too
    skipped = {*(() if peer else ("peer",)), *(() if onnx else ("onnx",))}
    sys.path += [str(peer)] if peer else []
    results: dict[str, dict[str, Row]] = {}
    for group, parts in KINDS.items():
        for name in names(group):
            results[name] = {"kind": {"is": group}}
            for part in parts:
                wanted = part not in skipped and only in name and kind in group
                if wanted or (cache / part / f"{name}.json").exists():
                    results[name][part] = measure(PARTS, part, name, cache)
    DOCS.joinpath("zoo.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write()


if __name__ == "__main__":
    typer.run(main)
