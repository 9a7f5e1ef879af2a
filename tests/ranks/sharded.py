"""Pruning of a network whose weights are spread over processes; the test beside it compares this with one process.

    torchrun --nproc-per-node 4 sharded.py OUT run=fsdp:soft:magnitude run=tensor_parallel:gradual:lamp ...

A case is a way to spread the weights, a removal, and a criterion. The first process writes whole weights and masks.
"""

import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import compress
from compress import SFP, SRFP, Gradual, GradualSoft, GReg, Hard, Pruner, Soft
from compress.remove.masks import tensors
from compress.select.choose import lowest
from compress.shards import gathered, like

STEPS, SAVED, BATCH = 20, 7, 16
EVEN = ("both", "columns", "tensor_parallel")
"""Ways that torch has for even sizes only."""

REMOVALS = {
    "hard": Hard(),
    "soft": Soft(steps=12),
    "soft_learning": Soft(steps=12, learns=True),
    "gradual": Gradual(steps=12, every=2),
    "gradual_soft": GradualSoft(steps=12, every=2, cohort=4),
    "sfp": SFP(steps=12, every=3),
    "srfp": SRFP(steps=12, every=3),
    "greg": GReg(steps=12),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "erk": {"scope": "erk"},
    "layer": {"scope": "layer"},
    "floor": {"min_keep": 0.3},
    "pattern": {"scope": {"n": 2, "m": 4}, "sparsity": None},
    "layers": {"layers": {"first*": 0.8, "*": 0.3}, "sparsity": None},
    "regrow": {"regrow": 0.3},
}


class Network(nn.Module):
    """Sizes that 2 and 4 processes cannot divide evenly; a tensor of which the last process of 4 has nothing; ties."""

    def __init__(self, one: int = 30, two: int = 10, three: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(12, one), nn.Linear(one, two)
        self.narrow, self.last = nn.Linear(two, three), nn.Linear(three, 12)
        with torch.no_grad():  # many ties, in all tensors and parts
            for weight in self.parameters():
                weight.copy_((weight * 40).round() / 40)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.last(self.narrow(self.middle(self.first(inputs).tanh()).tanh()))
        return found


def batch(step: int) -> Tensor:
    """The same for all processes, each of which takes its share in training."""
    return torch.randn(BATCH, 12, generator=torch.Generator().manual_seed(step)).double()


def network() -> Network:
    return Network().double()


def even() -> Network:
    return Network(32, 8, 4).double()


def spread(model: nn.Module, way: str) -> None:
    world = dist.get_world_size()
    plan = {"first": ColwiseParallel(), "middle": RowwiseParallel()}
    if way == "fsdp":
        for part in (model.first, model.middle, model.narrow):
            fully_shard(part)
        fully_shard(model)
    elif way == "fsdp_whole":
        fully_shard(model)
    elif way == "columns":
        fully_shard(
            model, shard_placement_fn=lambda one: Shard(1) if one.dim() == 2 and one.shape[1] % 2 == 0 else None
        )
    elif way == "hybrid":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("copies", "parts")))
    elif way == "tensor_parallel":
        parallelize_module(model, init_device_mesh("cpu", (world,)), plan)
    elif way == "both":
        mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "tensor"))
        parallelize_module(model, mesh["tensor"], plan)
        fully_shard(model, mesh=mesh["data"])
    else:
        raise ValueError(way)


def pruner(model: nn.Module, removal: str, criterion: str, **options: Any) -> Pruner:
    batches = [(batch(number), batch(number)) for number in (100, 101, 102)]
    more: dict[str, Any] = {"sparsity": 0.6, **OPTIONS.get(criterion, {}), **options}
    word = "magnitude" if criterion in OPTIONS else criterion
    return Pruner(
        model, criterion=word, removal=REMOVALS[removal], batches=batches, loss=nn.functional.mse_loss, seed=3, **more
    )


def train(model: nn.Module, pruning: Pruner, optimizer: torch.optim.Optimizer, steps: range, *, split: bool) -> None:
    rank, world = (dist.get_rank(), dist.get_world_size()) if split else (0, 1)
    for step in steps:
        inputs = batch(step)[rank::world]
        nn.functional.mse_loss(model(inputs), inputs).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        pruning.step()


def masks(pruning: Pruner) -> dict[str, Tensor]:
    found = {}
    for target in pruning.targets:
        pruned = tensors(target.module, target.name)[2]
        found[target.path] = gathered(like(pruned, target.parameter)).clone()
    return found


def run(case: str, folder: Path) -> dict[str, Any]:
    """The masks at the beginning, in the middle and at the end, and the weights at the end."""
    way, removal, criterion = case.split(":")
    model = even() if way in (*EVEN, "alone_even") else network()
    if not way.startswith("alone"):
        spread(model, way)
    pruning = pruner(model, removal, criterion)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    split = way in ("fsdp", "fsdp_whole", "columns", "hybrid")  # with tensor parallelism all have the same batch
    found = [masks(pruning)]
    for part in (range(SAVED), range(SAVED, STEPS)):
        train(model, pruning, optimizer, part, split=split)
        found.append(masks(pruning))
        with torch.no_grad():  # leaves the root's weights whole
            model(batch(0))
    return {**ended(model, pruning), "masks": found}


def ended(model: nn.Module, pruning: Pruner) -> dict[str, Any]:
    layers, histograms = [tuple(layer) for layer in pruning.layers()], pruning.selection.histograms
    pruning.finalize()
    weights = {name: gathered(weight.detach()).clone() for name, weight in model.named_parameters()}
    return {"weights": weights, "layers": layers, "histograms": histograms}


# --- checkpoints ---


def saved(case: str, folder: Path) -> dict[str, Any]:
    """Train to the end, with a checkpoint on the way. The file `mortal` ends the last process after that."""
    model, pruning, optimizer = begun(case, start=True)
    train(model, pruning, optimizer, range(SAVED), split=True)
    dcp.save(state_of(model, pruning, optimizer), checkpoint_id=folder / case.replace(":", "_"))
    if (folder / "mortal").exists():
        train(model, pruning, optimizer, range(SAVED, SAVED + 3), split=True)
        if dist.get_rank() == dist.get_world_size() - 1:
            os._exit(9)
    train(model, pruning, optimizer, range(SAVED, STEPS), split=True)
    return ended(model, pruning)


def resumed(case: str, folder: Path) -> dict[str, Any]:
    """Train from that checkpoint to the end, in any number of processes."""
    model, pruning, optimizer = begun(case, start=False)
    state = state_of(model, pruning, optimizer)
    dcp.load(state, checkpoint_id=folder / case.replace(":", "_"))
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    pruning.load_state_dict(state["pruner"])
    train(model, pruning, optimizer, range(SAVED, STEPS), split=True)
    return ended(model, pruning)


def begun(case: str, *, start: bool) -> tuple[nn.Module, Pruner, torch.optim.Optimizer]:
    model = network()
    spread(model, "fsdp")
    pruning = pruner(model, *case.split(":"), start=start)
    return model, pruning, torch.optim.AdamW(model.parameters(), lr=1e-2)


def state_of(model: nn.Module, pruning: Pruner, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, "pruner": pruning.state_dict()}


# --- the choice alone ---


def chosen(case: str, folder: Path) -> dict[str, Any]:
    """`lowest` of tensors that are spread in every way, against a stable sort of all scores laid end to end."""
    world = dist.get_world_size()
    line = init_device_mesh("cpu", (world,))
    square = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("one", "two"))
    ways = [(line, [Shard(0)]), (line, [Shard(1)]), (line, [Replicate()]), (square, [Shard(0), Shard(1)])]
    ways += [(square, [Shard(1), Shard(1)]), (square, [Replicate(), Shard(0)]), (square, [Shard(0), Replicate()])]
    ways += [(square["two"], [Shard(0)]), (square["two"], [Replicate()]), (None, [])]
    chance = torch.Generator().manual_seed(int(case))
    wrong = 0
    for distinct in (2, 5, 1000):
        picked = [ways[i] for i in torch.randint(len(ways), (4,), generator=chance)] + [ways[0]]
        sizes = torch.randint(1, 9, (5, 2), generator=chance).tolist()
        wholes = [torch.randint(-distinct, distinct, size, generator=chance) / 7 for size in sizes]
        scores = [
            whole if mesh is None else distribute_tensor(whole, mesh, placed)
            for whole, (mesh, placed) in zip(wholes, picked, strict=True)
        ]
        flat = torch.cat([whole.flatten() for whole in wholes])
        for count in range(0, len(flat) + 1, 3):
            marks = torch.cat([gathered(mark).flatten() for mark in lowest(scores, count)])
            expected = torch.zeros_like(marks).index_fill(0, flat.argsort(stable=True)[:count], True)
            wrong += not torch.equal(marks, expected)
    return {"wrong": wrong}


# --- nodes, and what is refused ---


def nodes(case: str, folder: Path) -> dict[str, Any]:
    """Chosen on the whole network, removed while it is sharded, and cut out of the whole network again."""
    chosen = Pruner(network(), compress.nodes("first", "middle"), sparsity=0.5, example=batch(0)).pruned.keep
    model = network()
    spread(model, "fsdp")
    pruning = Pruner(model, list(chosen), keep=chosen, removal=REMOVALS[case])
    train(model, pruning, torch.optim.AdamW(model.parameters(), lr=1e-2), range(STEPS), split=True)
    pruning.finalize()
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank():
        return {}
    full = network()
    full.load_state_dict(whole)
    small = compress.slim(full, batch(0))
    return {"widths": [len(small.first.weight), len(small.middle.weight)], "same": same(small, full)}


def same(small: nn.Module, full: nn.Module) -> bool:
    with torch.no_grad():
        return torch.allclose(small(batch(1)), full(batch(1)), rtol=0, atol=1e-10)


def refused(case: str, folder: Path) -> dict[str, Any]:
    """What each process says."""
    rank, model = dist.get_rank(), network()
    target, options, data = model, {"criterion": "magnitude"}, [(batch(0), batch(0))]
    if case == "pipeline":
        mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("stages", "data"))
        target = nn.Sequential(OrderedDict({f"stage{mesh.get_coordinate()[0]}": nn.Linear(8, 8)}))
        fully_shard(target, mesh=mesh["data"])
    else:
        spread(model, "fsdp")
    if case == "batches":
        options, data = {"criterion": "taylor"}, [(batch(rank), batch(rank))]
    if case == "lengths":
        options, data = {"criterion": "snip"}, data * (1 + rank)
    if case == "nan" and rank == 1:
        model.middle.weight.detach().to_local()[0, 0] = torch.nan
    if case == "nodes":
        options, target = {"example": batch(0)}, model
    try:
        wanted = compress.nodes("first") if case == "nodes" else "*"
        Pruner(target, wanted, sparsity=0.5, batches=data, loss=nn.functional.mse_loss, **options)
        said = "nothing"
    except compress.CompressError as error:
        said = f"{type(error).__name__}: {error}"
    everyone: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(everyone, said)
    return {"said": everyone}


DOES = {"run": run, "saved": saved, "resumed": resumed, "chosen": chosen, "nodes": nodes, "refused": refused}

if __name__ == "__main__":
    import torch.distributed.nn.functional  # within a group it would keep the group, and gloo's threads, for ever

    dist.init_process_group("gloo")
    for one in sys.argv[2:]:
        what, _, case = one.partition("=")
        done = DOES[what](case, Path(sys.argv[1]))
        if dist.get_rank() == 0:
            torch.save(done, Path(sys.argv[1]) / f"{one.replace(':', '_')}.pt")
    dist.barrier()
    dist.destroy_process_group()
