"""Slims networks beyond torchvision's (`networks.py`), called as their users call them, beside torch-pruning 1.6.1.

    pip install --no-deps --target /some/folder timm==1.0.30 diffusers==0.42.1 torch-pruning==1.6.1
    PYTHONPATH=/some/folder python benchmarks/beyond.py --peer --onnx

These are the measured versions; `pip install 'softprune[zoo,transformers]'` brings timm and diffusers without the peer.

Half of the nodes of every coupled width are set to zero on both sides, and the network is slimmed with the arguments
that its users give it. It passes if it runs, gives the same structure of outputs, has at least 30 % of its parameters
cut, and computes what the masked network does (1e-4 of the scale of each output, in float32), here and for another
size of the batch. If it becomes a graph, it is slimmed once more with the sizes that vary named, and the outcome is
compared at another length. One step of gradient descent must lower a loss.

The peer prunes the same networks by magnitude with the same arguments. It gets the layers that give the outputs and
the number of heads of each attention; the attributes of attentions are set to the new sizes, as in its examples. It
passes if it runs, with the same structure of outputs and 30 % of the parameters cut.

Analysis is `couplings` here, and building the dependency graph with all its groups there, in one thread, without
garbage collection, in seconds of processor time: cold is the first in a process (after one of a tiny network), warm the
second. Each network has its own process, with 120 seconds and 16 GB. Measurements are kept in --cache and not repeated.
"""

import importlib
import importlib.util
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from networks import NETWORKS, Network
from outputs import difference, leaves
from processes import Parts, Row, measure, short
from torch import Tensor, nn
from zoo import LEAST_GONE, count, halve, timed
from zoo_page import DOCS, write

from compress.errors import CompressError
from compress.graph.coupling import Couplings, couplings
from compress.inputs import inputs_of
from compress.slimming.shrink import slim

TOLERANCE = 1e-4


def ours(name: str) -> Row:
    network = NETWORKS[name]
    model, example = network.build(), network.example()
    known, cold = timed(couplings, model, example)
    _, warm = timed(couplings, model, example)
    found: Row = {"params": count(model), "analysis_seconds": cold, "warm_seconds": warm, "kept": reasons(model, known)}
    halve(model, known)
    small = smaller(model, network, found)
    gone, equal = 1 - count(small) / found["params"], difference(run(model, example), run(small, example))
    rows = network.example(5)
    batch = difference(run(model, rows), run(small, rows))
    found |= {"gone": gone, "difference": equal, "batch_difference": batch, "depends": depends(model, network)}
    found |= {"length": at_other_length(model, small, network), "trains": trains(small, example)}
    return found | {"pass": gone >= LEAST_GONE and max(equal, batch) <= TOLERANCE}


def smaller(model: nn.Module, network: Network, found: Row) -> nn.Module:
    """The slim network; `found` gets its figures."""
    small = slim(model, network.example())
    found["traced"] = isinstance(small, torch.fx.GraphModule)
    if network.other and found["traced"]:
        try:
            return slim(model, network.example(), dynamic=network.varying(model))
        except Exception as error:
            found["fixed"] = short(error)
    return small


def reasons(model: nn.Module, known: Couplings) -> list[tuple[str, float]]:
    """Why layers keep their width, with the share of the parameters in them; the three that hold most."""
    shares: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        shares[known.kept.get(name.rpartition(".")[0], known.kept.get(name, ""))] += parameter.numel()
    del shares[""]
    total = count(model)
    return [(reason, size / total) for reason, size in shares.most_common(3)]


def run(model: nn.Module, example: object) -> Any:
    torch.manual_seed(2)
    with torch.no_grad():
        return inputs_of(example).call(model)


def depends(model: nn.Module, network: Network) -> float:
    """How much the outputs of two inputs differ, relative to their scale."""
    return difference(run(model, network.example()), run(model, network.example(seed=3)))


def at_other_length(model: nn.Module, small: nn.Module, network: Network) -> float | str | None:
    """The difference at another length, or why there is none; None where the network takes one length only."""
    if not network.other:
        return None
    example = network.example(3, network.other)
    wanted = run(model, example)
    try:
        return difference(wanted, run(small, example))
    except Exception as error:
        return short(error)


def trains(model: nn.Module, example: object) -> bool | str:
    """Whether one step of gradient descent lowers the mean square of the outputs, on the same random numbers."""

    def loss() -> Tensor:
        torch.manual_seed(2)
        outputs = [tensor for _, tensor in leaves(inputs_of(example).call(model)) if tensor.requires_grad]
        return torch.stack([output[output.isfinite()].float().square().mean() for output in outputs]).sum()

    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        before = loss()
        slopes = torch.autograd.grad(before, parameters, allow_unused=True)
        moved = [(one, slope) for one, slope in zip(parameters, slopes, strict=True) if slope is not None]
        steepness = torch.stack([slope.square().sum() for _, slope in moved]).sum()
        for part in (1e-1, 1e-2, 1e-3, 1e-4):  # of the loss, were it linear
            step = part * before.detach() / steepness
            _move(moved, -step)
            lower = bool(loss() < before)
            _move(moved, step)
            if lower:
                return True
    except Exception as error:
        return short(error)
    finally:
        model.eval()
    return False


@torch.no_grad()
def _move(parameters: list[tuple[nn.Parameter, Tensor]], step: Tensor) -> None:
    for parameter, slope in parameters:
        parameter.add_(step * slope)


def onnx(name: str) -> Row:
    """Parity of the exported slim network; where it cannot be exported, whether the dense one can."""
    import compress.export

    network = NETWORKS[name]
    model, example = network.build(), network.example()
    halve(model, couplings(model, example))
    small = slim(model, example)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {"pass": True, "difference": compress.export.onnx(small, Path(folder) / "m.onnx", example)}
        except Exception as error:
            found = {"pass": False, "error": short(error)}
        try:
            compress.export.onnx(network.build(), Path(folder) / "m.onnx", example)
        except Exception as error:
            return found | {"dense_error": short(error)}
    return found


def peer(name: str) -> Row:
    """Told of heads, or, where it fails with them, not."""
    try:
        return pruned(NETWORKS[name], told=True)
    except Exception:
        return pruned(NETWORKS[name], told=False)


def pruned(network: Network, told: bool) -> Row:
    import torch_pruning as tp  # type: ignore[import-not-found]

    model, example = network.build(), network.example()
    before, dense = run(model, example), count(model)
    tracing = {
        "forward_fn": lambda model, example: inputs_of(example).call(model),
        "output_transform": lambda out: [tensor for _, tensor in leaves(out) if tensor.grad_fn is not None],
    }

    def analyse(model: nn.Module, example: object) -> None:
        graph = tp.DependencyGraph().build_dependency(model, example, **tracing)
        list(graph.get_all_groups())

    _, cold = timed(analyse, model, example)
    _, warm = timed(analyse, model, example)
    pruner = tp.pruner.MagnitudePruner(
        model,
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=outputs(model, example),
        num_heads=heads(model) if told else {},
        **tracing,
    )
    pruner.step()
    mend(model, pruner.num_heads)
    gone, after = 1 - count(model) / dense, run(model, example)
    shapes = [[(path, tensor.shape) for path, tensor in leaves(out)] for out in (before, after)]
    found: Row = {"analysis_seconds": cold, "warm_seconds": warm, "params": dense, "gone": gone}
    return found | {"pass": shapes[0] == shapes[1] and gone >= LEAST_GONE}


def outputs(model: nn.Module, example: object) -> list[nn.Module]:
    """The layers whose width is that of an output; the peer needs this list."""
    try:
        kept = couplings(model, example).kept
    except CompressError:
        return []
    return [module for name, module in model.named_modules() if kept.get(name) == "it is the network's output"]


# What attentions call their parts.
_QUERIES = ("query", "q", "q_proj", "q_lin", "qkv", "query_key_value", "c_attn")
_KEYS = ("key", "value", "k", "v", "k_proj", "v_proj", "k_lin", "v_lin")
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_HEAD_SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim", "dim_head")
_WIDTHS = ("all_head_size", "inner_dim", "embed_dim", "attn_dim", "hidden_size", "dim", "split_size")


def heads(model: nn.Module) -> dict[nn.Module, int]:
    """How many heads each layer computes queries, keys or values for."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        number = next((getattr(module, name) for name in _HEADS if isinstance(getattr(module, name, None), int)), 0)
        number = number or getattr(getattr(module, "config", None), "num_attention_heads", 0)
        groups = getattr(module, "num_key_value_groups", 1)
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear) and name in _QUERIES + _KEYS and number:
                found[layer] = number if name in _QUERIES else number // groups
        if isinstance(module, nn.MultiheadAttention):
            found[module] = module.num_heads
    return found


def mend(model: nn.Module, heads: Mapping[nn.Module, int]) -> None:
    """Sizes in the attributes of attentions, after the widths of their heads were pruned."""
    for module in model.modules():
        for name, layer in module.named_children():
            if layer not in heads or name not in _QUERIES or not isinstance(layer, nn.Linear):
                continue
            width = layer.out_features // (1 if name in ("query", "q", "q_proj", "q_lin") else 3)
            sizes = dict.fromkeys(_HEAD_SIZES, width // heads[layer]) | dict.fromkeys(_WIDTHS, width)
            for attribute, size in (sizes | dict.fromkeys(_HEADS, heads[layer])).items():
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, size)


PARTS: Parts = {"ours": ours, "onnx": onnx, "peer": peer}


def main(
    peer: Annotated[bool, typer.Option("--peer", help="Also measure torch-pruning.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export the slim networks.")] = False,
    cache: Annotated[Path, typer.Option(help="Where measurements are kept, one file each.")] = Path(".zoo/beyond"),
    only: Annotated[str, typer.Option(help="Networks whose names, or libraries, contain this.")] = "",
) -> None:
    """Measure what is not in the cache yet, and write docs/benchmarks/beyond.json and docs/zoo.md."""
    torch.set_num_threads(1)  # which makes forks safe, too
    warnings.filterwarnings("ignore")
    skipped = {*(() if peer else ("peer",)), *(() if onnx else ("onnx",))}
    results: dict[str, dict[str, Row]] = {}
    for name, network in NETWORKS.items():
        if importlib.util.find_spec(network.library):
            importlib.import_module(network.library)  # once, and not in each process
        results[name] = {"kind": {"is": network.kind}}
        for part in PARTS:
            wanted = part not in skipped and (only in name or only in network.kind)
            if wanted or (cache / part / f"{name}.json").exists():
                results[name][part] = measure(PARTS, part, name, cache)
    DOCS.joinpath("benchmarks", "beyond.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write()


if __name__ == "__main__":
    typer.run(main)
