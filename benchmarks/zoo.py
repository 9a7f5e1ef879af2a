"""How many of torchvision's networks can be slimmed exactly, and how quickly, beside torch-pruning 1.6.1?

    pip install --no-deps --target /some/folder torch-pruning==1.6.1    # the peer is no dependency of this project
    python benchmarks/zoo.py --peer /some/folder

Every network has random weights, biases and statistics. Half of the nodes of every coupled width are set to zero on
both sides, the classifier's outputs stay, and the network is slimmed. It passes if it runs, its outputs keep their
shape, at least 30 % of its parameters are gone, and it computes what the masked network does (1e-5 of its scale). The
peer prunes the same networks by magnitude, half of everything but the classifier; it passes if it runs, with the same
shape and saving. The analysis is `couplings` here, and building the dependency graph with all its groups there, both
on one picture of 224 x 224 in one thread, after a first analysis of a tiny network. Seconds are of processor time.

Each network has a process and 120 seconds of its own. What has been measured is kept in --cache and not measured
again; `--onnx` adds a pass that exports the slim networks and compares onnxruntime's outputs. The table is written
after each run from all that is in the cache.
"""

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
    size = 299 if name == "inception_v3" else 224
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def shapes(model: nn.Module, example: Tensor) -> list[list[int]]:
    with torch.no_grad():
        return [list(leaf.shape) for leaf in tree_leaves(model(example)) if isinstance(leaf, Tensor)]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def halved(name: str) -> tuple[nn.Module, nn.Module, Row]:
    """The masked network, the slim one, and what was measured on the way."""
    from compress.slim.coupling import couplings
    from compress.slim.shrink import slim

    couplings(tiny(), picture(name))
    model, example = build(name), picture(name)
    begin = time.process_time()
    known = couplings(model, example)
    analysis = time.process_time() - begin
    with torch.no_grad():
        for coupling in known.found:
            keep = torch.arange(coupling.size) % 2 == 0
            for parameter, mask in coupling.masks(model, keep).items():
                model.get_parameter(parameter).mul_(mask)
    begin = time.process_time()
    small = slim(model, example)
    found = {"analysis_seconds": analysis, "slim_seconds": time.process_time() - begin}
    return model, small, found | {"widths": len(known.found), "traced": isinstance(small, torch.fx.GraphModule)}


def ours(name: str) -> Row:
    masked, small, found = halved(name)
    dense, left = count(masked), count(small)
    same = shapes(small, picture(name)) == shapes(masked, picture(name))
    return found | {"params": dense, "gone": 1 - left / dense, "pass": same and 1 - left / dense >= LEAST_GONE}


def onnx(name: str) -> Row:
    """Parity of the exported slim network; where it cannot be exported, whether the dense one can."""
    import compress.export

    _, small, _ = halved(name)
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

    def analyse(model: nn.Module) -> None:
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=picture(name))
        list(graph.get_all_groups())

    analyse(tiny())
    model, example = build(name), picture(name)
    dense, before = count(model), shapes(model, example)
    begin = time.process_time()
    analyse(model)
    analysis = time.process_time() - begin
    heads = [layer for layer in model.modules() if getattr(layer, "out_features", 0) == 1000]
    heads += [layer for layer in model.modules() if getattr(layer, "out_channels", 0) == 1000]
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


PARTS: dict[str, Callable[[str], Row]] = {"ours": ours, "peer": peer, "onnx": onnx}


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


def measure(part: str, name: str, cache: Path) -> Row:
    """What the cache has, or a process of its own finds."""
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
        limit = process.exitcode == -signal.SIGXCPU
        found = {"pass": False, "error": f"took more than {TIME_LIMIT} seconds" if limit else "its process died"}
    process.join()
    file.write_text(json.dumps(found), encoding="utf-8")
    print(part, name, json.dumps(found), flush=True)
    return found


def one(part: str, name: str, pipe: Connection) -> None:
    """In a process of its own; seconds are those of its processor, whatever else the machine does."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    begin = time.process_time()
    try:
        found = PARTS[part](name)
    except Exception as error:
        found = {"pass": False, "error": short(error)}
    pipe.send(found | {"seconds": time.process_time() - begin})


def table(results: dict[str, dict[str, Row]]) -> str:
    """Markdown: how many pass, and a row for each network."""
    lines = [
        "# Torchvision's networks, slimmed",
        "",
        "Written by `python benchmarks/zoo.py`, which says how. Only what",
    ]
    lines += ["has been measured counts; a network with an empty row has not been yet.", ""]
    for kind in ("classification", "segmentation", "detection"):
        rows = {name: parts for name, parts in results.items() if parts["kind"] == {"is": kind}}
        for part in PARTS:
            tried = [parts[part] for parts in rows.values() if part in parts]
            if tried:
                lines.append(f"- {kind}, {part}: {sum(row['pass'] for row in tried)} of {len(tried)} pass")
    pairs = [(parts.get("ours", {}), parts.get("peer", {})) for parts in results.values()]
    ratios = [
        a["analysis_seconds"] / b["analysis_seconds"]
        for a, b in pairs
        if "analysis_seconds" in a and "analysis_seconds" in b
    ]
    if ratios:
        slowest = max(a["analysis_seconds"] for a, _ in pairs if "analysis_seconds" in a)
        lines.append(
            f"- analysis: median ratio of ours to the peer's {median(ratios):.2f}; our slowest {slowest:.1f} s"
        )
    lines += [
        "",
        "| network | parameters | gone | analysis | as | ONNX | peer: gone | analysis |",
        "|---|--:|--:|--:|---|---|--:|--:|",
    ]
    lines += [line(name, parts) for name, parts in results.items()]
    return "\n".join(lines) + "\n"


def line(name: str, parts: dict[str, Row]) -> str:
    mine, other = parts.get("ours", {}), parts.get("peer", {})
    converted = parts.get("onnx", {})
    cells = [
        name,
        f"{mine['params'] / 1e6:.1f} M" if "params" in mine else "",
        gone(mine),
        f"{mine['analysis_seconds']:.2f} s" if "analysis_seconds" in mine else "",
        "" if "traced" not in mine else "graph" if mine["traced"] else "class",
        f"{converted['difference']:.0e}"
        if converted.get("pass")
        else converted.get("error", "").replace("|", "/")[:60],
        gone(other),
        f"{other['analysis_seconds']:.2f} s" if "analysis_seconds" in other else "",
    ]
    return f"| {' | '.join(cells)} |"


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
    parts = ["ours", *(["peer"] if peer else []), *(["onnx"] if onnx else [])]
    sys.path += [str(peer)] if peer else []
    results: dict[str, dict[str, Row]] = {}
    for group in ("classification", "segmentation", "detection"):
        for name in names(group):
            results[name] = {"kind": {"is": group}}
            for part in PARTS:
                wanted = (
                    part in parts and only in name and kind in group and (part != "onnx" or group == "classification")
                )
                if wanted or (cache / part / f"{name}.json").exists():
                    results[name][part] = measure(part, name, cache)
    DOCS.joinpath("zoo.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    DOCS.joinpath("zoo.md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
