"""Pruning of a network whose weights are spread over processes; the test beside it compares this with one process.

    torchrun --nproc-per-node 4 sharded.py OUT fsdp:soft:magnitude tensor_parallel:gradual:lamp ...

A case is a way to spread the weights, a removal, and a criterion. The first process writes whole weights and masks.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compress import SFP, SRFP, Gradual, GradualSoft, GReg, Hard, Pruner, Soft
from compress.remove.masks import tensors
from compress.shards import gathered, like

STEPS, BATCH = 20, 16
EVEN = ("both", "columns")
"""Ways that need even sizes."""

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

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.narrow = nn.Linear(12, 30), nn.Linear(30, 10), nn.Linear(10, 3)
        self.last = nn.Linear(3, 12)
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
    """Of sizes that fit what FSDP and tensor parallelism can do beside each other's first dimension."""
    model = network()
    torch.manual_seed(1)
    model.middle, model.narrow, model.last = nn.Linear(30, 8), nn.Linear(8, 4), nn.Linear(4, 12)
    model.first = nn.Linear(12, 30)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_((weight * 40).round() / 40)
    return model.double()


def spread(model: nn.Module, way: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

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


def run(case: str) -> dict[str, Any]:
    """The masks at the beginning, in the middle and at the end, and the weights at the end."""
    way, removal, criterion = case.split(":")
    model = even() if way in (*EVEN, "alone_even") else network()
    if not way.startswith("alone"):
        spread(model, way)
    pruning = pruner(model, removal, criterion)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    split = way in ("fsdp", "fsdp_whole", "columns", "hybrid")  # with tensor parallelism all have the same batch
    found = [masks(pruning)]
    for part in (range(7), range(7, STEPS)):
        train(model, pruning, optimizer, part, split=split)
        found.append(masks(pruning))
        with torch.no_grad():  # leaves the root's weights whole
            model(batch(0))
    shares = [tuple(layer) for layer in pruning.layers()]
    histograms = pruning.selection.histograms
    pruning.finalize()
    weights = {name: gathered(weight.detach()).clone() for name, weight in model.named_parameters()}
    return {"masks": found, "weights": weights, "layers": shares, "histograms": histograms}


if __name__ == "__main__":
    import torch.distributed.nn.functional  # within a group it would keep the group, and gloo's threads, for ever

    dist.init_process_group("gloo")
    for one in sys.argv[2:]:
        done = run(one)
        if dist.get_rank() == 0:
            torch.save(done, Path(sys.argv[1]) / f"{one.replace(':', '_')}.pt")
    dist.barrier()
    dist.destroy_process_group()
