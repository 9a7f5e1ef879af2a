"""Counts which of torchvision's networks can be slimmed exactly, and how quickly, beside torch-pruning 1.6.1.

    pip install --no-deps --target /some/folder torch-pruning==1.6.1    # the peer is not a dependency of this project
    python benchmarks/zoo.py --peer /some/folder --onnx

Every network has random weights, biases and statistics. Half of the nodes of every coupled width are set to zero on
both sides, the classifier's outputs are kept, and the network is slimmed. It passes if it runs, its outputs keep their
shape, at least 30 % of its parameters are cut, and it computes what the masked network does (1e-5 of its scale). The
peer prunes the same networks by magnitude, half of everything but the layers that have the classes as outputs; it
passes if it runs, with the same shape and saving. The analysis is `couplings` here, and building the dependency graph
with all its groups there, both on one picture of 224 x 224 in one thread, after a first analysis of a tiny network and
without garbage collection. Seconds are of processor time.

Detection networks are tried as a whole, and then their backbone, which is a network of its own, alone.

Each network has a process, 120 seconds and 16 GB of its own. Measurements are kept in --cache and not repeated;
`--onnx` adds a pass that exports the slim classifiers and compares onnxruntime's outputs. The tables are written
after each run, from the whole cache.
"""

import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision import models as zoo

DOCS = Path(__file__).parents[1] / "docs"
TIME_LIMIT = 120
MEMORY_LIMIT = 16 << 30
LEAST_GONE = 0.30
Row = dict[str, Any]


def names(kind: str) -> list[str]:
    module = {"classification": zoo, "segmentation": zoo.segmentation, "detection": zoo.detection}[kind]
    return sorted(zoo.list_models(module=module))


def build(name: str) -> nn.Module:
    """The network `name` with random weights, in evaluation mode; norms and biases are random too."""
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
                module.get_buffer("running_mean").normal_(0, 0.1)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return model


def picture(name: str) -> Tensor:
    size = {"inception_v3": 299, "ssd300_vgg16": 300}.get(name, 224)
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def shapes(model: nn.Module, example: Tensor) -> list[list[int]]:
    with torch.no_grad():
        return [list(leaf.shape) for leaf in tree_leaves(model(example)) if isinstance(leaf, Tensor)]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def timed(analyse: Callable[[nn.Module, Tensor], Any], model: nn.Module, example: Tensor) -> tuple[Any, float]:
    """The result of the analysis of `model`, and its seconds."""
    analyse(tiny(), example)
    gc.collect()
    gc.disable()
    begin = time.process_time()
    found = analyse(model, example)
    seconds = time.process_time() - begin
    gc.enable()
    return found, seconds


def halved(model: nn.Module, example: Tensor) -> tuple[nn.Module, Row]:
    """The slim network, and what was measured on the way; `model` is the masked one afterwards."""
    from compress.graph.coupling import couplings
    from compress.slimming.shrink import slim

    known, analysis = timed(couplings, model, example)
    with torch.no_grad():
        for coupling in known.found:
            keep = torch.arange(coupling.size) % 2 == 0
            for parameter, mask in coupling.masks(model, keep).items():
                model.get_parameter(parameter).mul_(mask)
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
PARTS: dict[str, Callable[[str], Row]] = {"ours": ours, "peer": peer, "onnx": onnx, "backbone": backbone}
KINDS = {
    "classification": ("ours", "peer", "onnx"),
    "segmentation": ("ours", "peer"),
    "detection": ("ours", "backbone"),
}


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


def measure(part: str, name: str, cache: Path) -> Row:
    """The measurement in the cache, or that of a new process."""
    file = cache / part / f"{name}.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    file.parent.mkdir(parents=True, exist_ok=True)
    # A fork has torch imported already, which takes longer than many a network.
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=one, args=(part, name, theirs))
    process.start()
    theirs.close()
    try:
        found: Row = mine.recv()
    except EOFError:
        process.join()
        found = {"pass": False, "error": ended(process.exitcode)}
    process.join()
    file.write_text(json.dumps(found), encoding="utf-8")
    print(part, name, json.dumps(found), flush=True)
    return found


def ended(code: int | None) -> str:
    """Why a process ended without an answer."""
    if code == -signal.SIGXCPU:
        return f"took more than {TIME_LIMIT} seconds"
    return f"its process was ended by {signal.Signals(-code).name}" if code and code < 0 else f"it exited with {code}"


def one(part: str, name: str, pipe: Connection) -> None:
    """In a process of its own; seconds are those of its processor, whatever else the machine does."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT + 5))  # at the second it would be SIGKILL
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    begin = time.process_time()
    try:
        found = PARTS[part](name)
    except MemoryError:
        found = {"pass": False, "error": f"took more than {MEMORY_LIMIT >> 30} GB"}
    except Exception as error:
        found = {"pass": False, "error": short(error)}
    pipe.send(found | {"seconds": time.process_time() - begin})


def page(results: dict[str, dict[str, Row]]) -> str:
    """Markdown: how many pass, and a table for each kind of network. Unmeasured networks are left out."""
    kinds = {
        kind: {name: parts for name, parts in results.items() if parts["kind"] == {"is": kind} and "ours" in parts}
        for kind in KINDS
    }
    lines = ["# Torchvision's networks, slimmed", ""]
    lines += [
        "Half of every width that can shrink is set to zero and cut out; the result is proven to compute the same."
    ]
    lines += ["Written by `python benchmarks/zoo.py`, which says at its top what passes and how time is taken."]
    missing = sum("ours" not in parts for parts in results.values())
    lines += [f"{missing} of torchvision's {len(results)} networks have not been measured yet."] if missing else []
    lines += ["", *summary(kinds)]
    for kind, rows in kinds.items():
        if rows:
            lines += ["", f"## {kind.capitalize()}", "", *(detection(rows) if kind == "detection" else table(rows))]
    return "\n".join(lines) + "\n"


def summary(kinds: dict[str, dict[str, dict[str, Row]]]) -> list[str]:
    said = {
        "ours": "{kind}: here {good} of {all} measured networks pass",
        "peer": "{kind}: with torch-pruning {good} of {all} pass",
        "backbone": "{kind}, the backbone alone: here {good} of {all} pass",
    }
    lines = []
    for kind, rows in kinds.items():
        for part, text in said.items():
            tried = [parts[part]["pass"] for parts in rows.values() if part in parts]
            if tried:
                lines.append(f"- {text.format(kind=kind.capitalize(), good=sum(tried), all=len(tried))}.")
    converted = [parts["onnx"] for rows in kinds.values() for parts in rows.values() if "onnx" in parts]
    if converted:
        good, neither = sum(row["pass"] for row in converted), sum("dense_error" in row for row in converted)
        text = f"- ONNX: of {len(converted)} slim classifiers, {good} compute the same in onnxruntime"
        lines.append(text + (f"; of {neither} the dense network cannot be exported either." if neither else "."))
    return lines + pace([parts for rows in kinds.values() for parts in rows.values()])


def pace(rows: list[dict[str, Row]]) -> list[str]:
    seconds = [[parts.get(part, {}).get("analysis_seconds") for part in ("ours", "peer")] for parts in rows]
    ratios = [mine / other for mine, other in seconds if mine and other]
    if not ratios:
        return []
    slowest = max(mine for mine, _ in seconds if mine)
    quicker = sum(ratio <= 1 for ratio in ratios)
    line = (
        f"- Analysis: it takes {median(ratios):.2f} times as long as torch-pruning's (median of {len(ratios)} "
        f"networks, {quicker} of which take no longer; at most {max(ratios):.1f} times). Our slowest: {slowest:.2f} s."
    )
    return [line]


def table(rows: dict[str, dict[str, Row]]) -> list[str]:
    onnx = any("onnx" in parts for parts in rows.values())
    heads = ["network", "parameters", "gone", "analysis", "result", *(["ONNX"] if onnx else [])]
    heads += ["peer: gone", "peer: analysis"]
    explained = (
        "`result`: an instance of the network's own class, or, where the class has sizes in its code, the traced graph."
    )
    if onnx:
        explained += " `ONNX`: the largest difference between onnxruntime and torch, or why there is none."
    lines = [explained, "", f"| {' | '.join(heads)} |", "|---|--:|--:|--:|---|" + "--:|" * (len(heads) - 5)]
    for name, parts in rows.items():
        mine, other = parts["ours"], parts.get("peer", {})
        result = "" if "traced" not in mine else "graph" if mine["traced"] else "class"
        cells = [name, size(mine), gone(mine), seconds(mine), result]
        cells += [parity(parts.get("onnx", {}))] if onnx else []
        lines.append(f"| {' | '.join([*cells, gone(other), seconds(other)])} |")
    return lines


def detection(rows: dict[str, dict[str, Row]]) -> list[str]:
    reasons = {parts["ours"].get("error", "").partition(": ")[2] for parts in rows.values()} - {""}
    lines = [f"As a whole: {reason}." for reason in sorted(reasons)]
    lines += [
        "Which parts of a picture reach the next part, such as the boxes that are left, depends on its values, which a",
        "trace does not have. The backbone is a network from pictures to features, whose outputs are kept, and can be",
        "slimmed by itself: `model.backbone = compress.slim(model.backbone, pictures)`.",
        "",
        "| network | parameters | of its backbone | of those gone | analysis |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, parts in rows.items():
        mine = parts.get("backbone", {})
        whole = f"{mine['whole'] / 1e6:.1f} M" if "whole" in mine else ""
        lines.append(f"| {' | '.join([name, whole, size(mine), gone(mine), seconds(mine)])} |")
    return lines


def size(row: Row) -> str:
    return f"{row['params'] / 1e6:.1f} M" if "params" in row else ""


def seconds(row: Row) -> str:
    return f"{row['analysis_seconds']:.2f} s" if "analysis_seconds" in row else ""


def parity(row: Row) -> str:
    if not row:
        return ""
    if row["pass"]:
        return f"{row['difference']:.0e}"
    return f"{'neither is the dense one: ' if 'dense_error' in row else ''}{row['error'].replace('|', '/')[:80]}"


def gone(row: Row) -> str:
    if not row:
        return ""
    if "gone" not in row:
        return f"failed: {row['error'].replace('|', '/')[:80]}"
    return f"{row['gone']:.0%}" + ("" if row["pass"] else " (fails)")


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
                    results[name][part] = measure(part, name, cache)
    DOCS.joinpath("zoo.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    DOCS.joinpath("zoo.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
