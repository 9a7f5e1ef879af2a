"""A training loop of a user, alone or as one of several processes; the test beside it compares what they end with.

torchrun --nproc-per-node 2 loop.py OUT ddp=gradual accelerate=soft
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compress import GradualSoft, Pruner, Soft

STEPS, BATCH = 24, 16


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 12)).double()


def batch(step: int) -> Tensor:
    """The same for all processes, each of which takes its share."""
    return torch.randn(BATCH, 12, generator=torch.Generator().manual_seed(step)).double()


def pruner(model: nn.Module, removal: str) -> Pruner:
    how = Soft(steps=16) if removal == "soft" else GradualSoft(steps=16, every=2, cohort=6)
    return Pruner(model, sparsity=0.6, removal=how)


def train(model: nn.Module, bare: nn.Module, pruning: Pruner, rank: int, world: int) -> None:
    """`bare` is the model without what a library has wrapped around it."""
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-2)
    for step in range(STEPS):
        inputs = batch(step)[rank::world]
        nn.functional.mse_loss(model(inputs), inputs).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        pruning.step()
    pruning.finalize()


def main(mode: str, removal: str, out: Path) -> None:
    model = network()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if mode == "alone":
        train(model, model, pruner(model, removal), 0, 1)
    elif mode == "ddp":
        pruning = pruner(model, removal)
        train(DistributedDataParallel(model), model, pruning, rank, world)
    elif mode == "accelerate":
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        wrapped = accelerator.prepare(model)
        bare = accelerator.unwrap_model(wrapped)
        train(wrapped, bare, pruner(bare, removal), accelerator.process_index, accelerator.num_processes)
    torch.save(model.state_dict(), out / f"{mode}{rank}.pt")


if __name__ == "__main__":
    import torch.distributed.nn.functional  # within a group it would keep the group, and gloo's threads, for ever

    dist.init_process_group("gloo")  # once: a second group on the same port can wait for the first one's end forever
    for loop in sys.argv[2:]:
        main(*loop.split("="), out=Path(sys.argv[1]))
    dist.destroy_process_group()
