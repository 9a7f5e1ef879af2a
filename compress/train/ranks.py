"""Several processes that train one network together, as `torchrun` starts them: each takes its share of every batch.

All of them hold the same network, data, order and random state, so that all choose the same masks. They share gradients
at each step, through torch's DistributedDataParallel. The first of them writes the files.
"""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compress.batches import part_of_target
from compress.errors import LostProcessError, ProofError
from compress.inputs import Inputs
from compress.train.arriving import Arriving

Target = TypeVar("Target")


@dataclass(frozen=True)
class Ranks:
    """This process among `count`; alone it adds nothing to a training loop."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> Callable[..., Any]:
        """The forward pass, whose gradients are averaged over all processes."""
        return model if self.count == 1 else DistributedDataParallel(model)

    def share(self, given: Inputs, target: Target) -> tuple[Inputs, Target, float]:
        """This process's samples of a batch, and the weight of their mean loss in that of the batch."""
        if self.count == 1:
            return given, target, 1.0
        samples = given.rows
        left = self.rank < samples  # else this process takes any sample, with weight 0
        mine = slice(self.rank, None, self.count) if left else slice(1)
        weight = len(range(self.rank, samples, self.count)) * self.count / samples
        return given.part(mine), part_of_target(target, given, mine), weight

    def mean(self, value: Tensor) -> Arriving:
        """The mean of a number over all processes."""
        if self.count > 1:
            value = value.detach() / self.count
            dist.all_reduce(value)
        return Arriving(value)

    def require_same(self, model: nn.Module) -> None:
        """Raises ProofError unless all processes hold the same weights and masks, to the last bit."""
        if self.count == 1:
            return
        found: list[str | None] = [None] * self.count
        dist.all_gather_object(found, _digest(model))
        if differing := [rank for rank, digest in enumerate(found) if digest != found[0]]:
            raise ProofError(f"process {differing[0]} does not hold the weights and masks of process 0")

    def wait(self) -> None:
        """Wait until all processes arrive."""
        if self.count > 1:
            dist.barrier()

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process runs the block, such as a download, and then the others, which find it done."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The group of processes that `torchrun` has started this one in; `ALONE` where it has not.

    Raises:
        LostProcessError: another process of the group has ended.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    # It has the group as the default argument of ten functions, if it is imported within one, as torch does for an
    # optimizer: then gloo's threads outlive `destroy_process_group`, and can abort the process's end (cli/ending.py).
    import torch.distributed.nn.functional

    with _nothing_on_stdout():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        # It has no separate class: gloo says "Connection closed by peer", "Connection reset by peer", "Broken pipe".
        if not any(word in str(error) for word in ("by peer", "Broken pipe", "gloo", "NCCL")):
            raise
        # torchrun ends the others at any moment from now on; this process ends by itself, and has to say why.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise LostProcessError("another process of this run has ended, and none can continue without it") from error
    finally:
        dist.destroy_process_group()


@contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """Print to stderr, also from C++: in torch 2.9 gloo prints its connections on stdout."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
