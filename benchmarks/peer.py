"""What torch-pruning 1.6.1 makes of a network: channels pruned by magnitude at once, or after its sparse training.

    pip install --no-deps --target /some/folder torch-pruning==1.6.1    # the peer is not a dependency of this project

The same share of every width is pruned, as with our `scope: layer`; the last layer keeps its width.
"""

import copy
import importlib
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from compress.graph.stats import measure

HALVINGS = 12


class PeerError(Exception):
    """The library fails on a network, or leaves one that does not run."""


class Peer:
    """torch-pruning, from the folder that it was installed into."""

    def __init__(self, folder: Path) -> None:
        sys.path.append(str(folder.resolve()))
        self._library: Any = importlib.import_module("torch_pruning")

    def cut(self, dense: nn.Module, example: Any, ratio: float) -> nn.Module:
        """A copy without this share of every width, the nodes with the least norms of their weights."""
        model = copy.deepcopy(dense)
        with refusing():
            self._pruner("MagnitudePruner", model, example, ratio).step()
            model(example)  # a cut network may not run
        return model

    def ratio(self, dense: nn.Module, example: Any, macs: float) -> float:
        """The lowest pruning ratio that leaves no more than this share of the multiply-adds."""
        allowed = macs * measure(dense, example).macs
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if measure(self.cut(dense, example, middle), example).macs <= allowed:
                high = middle
            else:
                low = middle
        return high

    def sparsely_trained(
        self, model: nn.Module, example: Any, ratio: float, strength: float, train: Callable[[], object]
    ) -> None:
        """Train with the group-norm regulariser of this strength, then cut, in place."""
        with refusing():
            pruner = self._pruner("GroupNormPruner", model, example, ratio, reg=strength)
            pruner.update_regularizer()

        def regularize() -> None:
            with refusing():
                pruner.regularize(model)

        with before_each_step(regularize):
            train()
        with refusing():
            pruner.step()
            model(example)

    def _pruner(self, kind: str, model: nn.Module, example: Any, ratio: float, **options: float) -> Any:
        return getattr(self._library.pruner, kind)(
            model,
            example,
            importance=self._library.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            max_pruning_ratio=0.98,
            ignored_layers=[last_layer(model, example)],
            round_to=heads_of(model),
            **options,
        )


def heads_of(model: nn.Module) -> int | None:
    """What widths have to be a multiple of for attention to run; None without any."""
    heads = [module.num_heads for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    return math.lcm(*heads) if heads else None


@contextmanager
def refusing() -> Iterator[None]:
    """Around the library's own code, whose errors can be of any class."""
    try:
        yield
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1].line
        raise PeerError(f"{type(error).__name__}: {error}; {where}") from error


@contextmanager
def before_each_step(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` between the gradients and the update of every optimizer."""
    handle = register_optimizer_step_pre_hook(lambda *_: action())
    try:
        yield
    finally:
        handle.remove()


def last_layer(model: nn.Module, example: Any) -> nn.Module:
    """The layer with weights that is called last, whose width is that of the network's output."""
    called: list[nn.Module] = []
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    handles = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in model.modules()
        if isinstance(module, layers)
    ]
    with torch.no_grad():
        model(example)
    for handle in handles:
        handle.remove()
    return called[-1]
