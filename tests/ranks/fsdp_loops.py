"""Loops of other libraries under FSDP2; the test beside it compares what they end with.

    torchrun --nproc-per-node 2 fsdp_loops.py OUT accelerate | trainer | lightning

Each runs to the end with a checkpoint on the way, and then again from the checkpoint.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", ACCELERATE_USE_CPU="true")

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compress import GradualSoft, Pruner
from compress.shards import gathered

STEPS, SAVED = 12, 6


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(12, 30), nn.Linear(30, 12)

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Any:
        found = self.last(self.first(inputs).tanh())
        return found if labels is None else {"loss": F.mse_loss(found, labels), "logits": found}


def data() -> list[Tensor]:
    """Two epochs of the same samples, in batches of 8."""
    chance = torch.Generator().manual_seed(1)
    return [torch.randn(12, generator=chance) for _ in range(SAVED * 8)] * 2


def make(model: nn.Module, loop: object) -> Pruner:
    assert all(hasattr(weight, "device_mesh") for weight in model.parameters()) or loop is None, "it is not sharded"
    return Pruner(model, sparsity=0.6, removal=GradualSoft(steps=10, every=2, cohort=3))


def whole(model: nn.Module) -> dict[str, Tensor]:
    """The weights, under the names of the network alone."""
    return {
        name.removeprefix("net.").removeprefix("module."): gathered(weight.detach()).clone()
        for name, weight in model.named_parameters()
    }


def alone() -> dict[str, Tensor]:
    """A loop by hand, in one process, with the batches of all processes."""
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    pruner = make(model, None)
    for inputs in DataLoader(data(), batch_size=8):  # type: ignore[arg-type]
        F.mse_loss(model(inputs), inputs).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    return whole(model)


def shard_on_processors() -> None:
    """Accelerate enables FSDP only on GPUs; on a CPU, its state is set after it has been created."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    found = AcceleratorState.__init__

    def told(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        found(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        plugin = fsdp_plugin or self.__dict__.get("fsdp_plugin")
        if plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin

    AcceleratorState.__init__ = told


def accelerate(out: Path, resume: bool) -> dict[str, Tensor]:
    from accelerate import Accelerator, FullyShardedDataParallelPlugin

    from compress.loops.accelerate_loop import AcceleratePruning

    shard_on_processors()
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, reshard_after_forward=True)
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data(), batch_size=4))
    pruning = AcceleratePruning(accelerator, model, make, batches=len(loader))
    if resume:
        accelerator.load_state(str(out / "accelerate"))
    for step, inputs in enumerate(loader):
        if resume and step < SAVED:
            continue
        accelerator.backward(F.mse_loss(model(inputs), inputs))
        optimizer.step()
        optimizer.zero_grad()
        pruning.step()
        if step == SAVED - 1 and not resume:
            accelerator.save_state(str(out / "accelerate"))
    pruning.finalize()
    return whole(model)


def trainer(out: Path, resume: bool) -> dict[str, Tensor]:
    import transformers

    from compress.loops.trainer_callback import TrainerPruning

    shard_on_processors()

    class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            return self.accelerator.prepare(DataLoader(self.train_dataset, batch_size=4))

    settings = {"output_dir": str(out / "trainer"), "max_steps": STEPS, "save_steps": SAVED, "max_grad_norm": 0.0}
    settings |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    settings |= {"lr_scheduler_type": "constant", "learning_rate": 1e-2, "weight_decay": 0.0, "optim": "adamw_torch"}
    fsdp = {"fsdp": True, "fsdp_config": {"fsdp_version": 2, "reshard_after_forward": True}}
    arguments = transformers.TrainingArguments(**settings, **fsdp)
    samples = [{"inputs": one, "labels": one} for one in data()]
    found = InOrder(Network(), arguments, train_dataset=samples, callbacks=[TrainerPruning(make)])
    found.train(resume_from_checkpoint=str(out / "trainer" / f"checkpoint-{SAVED}") if resume else None)
    return whole(found.model)


def lightning(out: Path, resume: bool) -> dict[str, Tensor]:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    from compress.loops.lightning_callback import LightningPruning

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Network()

        def configure_model(self) -> None:
            if not hasattr(self.net.first.weight, "device_mesh"):
                fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

        def training_step(self, inputs: Tensor) -> Tensor:
            return F.mse_loss(self.net(inputs), inputs)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.0)

    keep = ModelCheckpoint(
        dirpath=out / "lightning", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=-1, filename="{step}"
    )
    fitted = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
        max_epochs=2,
        callbacks=[LightningPruning(make), keep],
        use_distributed_sampler=False,  # it shuffles
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    loader = DataLoader(data()[int(os.environ["RANK"]) : SAVED * 8 : 2], batch_size=4)  # type: ignore[arg-type]
    fitted.fit(module, loader, ckpt_path=str(out / "lightning" / f"step={SAVED}.ckpt") if resume else None)
    return whole(module)


LOOPS = {"accelerate": accelerate, "trainer": trainer, "lightning": lightning}

if __name__ == "__main__":
    import torch.distributed.nn.functional  # within a group it would keep the group, and gloo's threads, for ever

    out, loop = Path(sys.argv[1]), sys.argv[2]
    for resume in (False, True):
        weights = LOOPS[loop](out, resume)
        if int(os.environ["RANK"]) == 0:
            torch.save(weights, out / f"{loop}_{'resumed' if resume else 'whole'}.pt")
    dist.barrier()
    dist.destroy_process_group()
