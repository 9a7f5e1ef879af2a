"""What the callbacks of all loops are given."""

from typing import Any

import pytest
from torch import nn

import compress
from compress.errors import InputError
from compress.loops.pruning import Pruning, TrainingLength

WRONG = [None, 3, "pruner", [], compress.Pruner, compress.Soft(steps=3), lambda: None, lambda model: None]


@pytest.mark.parametrize("make", WRONG)
def test_what_makes_no_pruner(make: Any) -> None:
    with pytest.raises(InputError, match="make: "):
        Pruning(make)


@pytest.mark.parametrize("made", [None, nn.Linear(2, 2), compress.Hard()])
def test_what_is_no_pruner(made: Any) -> None:
    pruning = Pruning(lambda model, loop: made)
    with pytest.raises(InputError, match=r"make: it gave .*; expected a compress\.Pruner"):
        pruning.begin(nn.Linear(2, 2), TrainingLength(3, 1))


@pytest.mark.parametrize("make", WRONG)
def test_callbacks_of_lightning(make: Any) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    with pytest.raises(InputError, match="make: "):
        compress.LightningPruning(make)


@pytest.mark.parametrize("make", WRONG)
def test_callbacks_of_the_trainer(make: Any) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(InputError, match="make: "):
        compress.TrainerPruning(make)


@pytest.mark.parametrize("folder", [3, "", [], nn.Linear(2, 2)])
def test_a_checkpoint_that_is_no_folder(folder: Any) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(InputError, match="resume_from: found"):
        compress.TrainerPruning(lambda model, loop: compress.Pruner(model, sparsity=0.5), resume_from=folder)
