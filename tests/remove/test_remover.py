"""The driver under the user's removals, choosers and parameters."""

from dataclasses import dataclass

import torch
from torch import nn

from compress.remove.pruner import Pruner
from compress.remove.removals import Removal
from compress.remove.remover import Remover


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_a_removal_of_ones_own_is_a_class_with_a_few_lines():
    @dataclass(frozen=True)
    class HalfAndHalf(Removal):
        """Half of the set at once, all of it at step 2."""

        words = ("half_and_half",)
        steps: int = 2

        def start(self, remover: Remover) -> None:
            remover.take(0.5)
            remover.fade_to(0.0)

        def finish(self, remover: Remover) -> None:
            remover.take()
            remover.fade_to(0.0)

    model = network()
    pruner = Pruner(model, sparsity=0.5, removal=HalfAndHalf())
    zeros = []
    for _ in range(3):
        zeros.append(sum(int((model[index].weight == 0).sum()) for index in (0, 2)))
        pruner.step()
    assert zeros == [18, 18, 36]


def test_a_chooser_of_ones_own_is_asked_with_what_is_gone():
    asked = []

    def chooser(sparsity, gone):
        asked.append((sparsity, [int(dead.sum()) for dead in gone]))
        return [torch.arange(dead.numel()).view(dead.shape) >= sparsity * dead.numel() for dead in gone]

    @dataclass(frozen=True)
    class Twice(Removal):
        words = ("twice",)
        steps: int = 1

        def start(self, remover: Remover) -> None:
            remover.take(0.25)
            remover.fade_to(0.0)

        def finish(self, remover: Remover) -> None:
            remover.take()
            remover.fade_to(0.0)

    model = network()
    remover = Remover(model, ["0.weight", "2.weight"], chooser, 0.5, Twice())
    remover.step()
    assert asked == [(0.125, [0, 0]), (0.5, [6, 3])]
    assert [int((model[index].weight == 0).sum()) for index in (0, 2)] == [24, 12]
