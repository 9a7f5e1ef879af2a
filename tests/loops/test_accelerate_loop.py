from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compress.errors import InputError
from compress.loops.accelerate_loop import AcceleratePruning
from compress.loops.pruning import TrainingLength
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft

accelerate = pytest.importorskip(
    "accelerate", reason="accelerate is not installed: pip install 'softprune[accelerate]'"
)


class Wrapped(nn.Module):
    """In place of the wrapper that `prepare` puts around a model on several devices."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits


def run(
    net: nn.Module,
    samples: Any,
    make: Any,
    *,
    accumulate: int = 1,
    save: Path | None = None,
    resume: Path | None = None,
) -> AcceleratePruning:
    """Three epochs; after the first one the state is saved, or taken up."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    model, optimizer, loader = accelerator.prepare(net, optimizer, DataLoader(samples, batch_size=20))
    pruning = AcceleratePruning(accelerator, model, make, batches=len(loader), epochs=3)
    if resume is not None:
        accelerator.load_state(str(resume))
    for epoch in range(0 if resume is None else 1, 3):
        for images, labels in loader:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(images), labels))
                optimizer.step()
                optimizer.zero_grad()
                pruning.step()
        if save is not None and epoch == 0:
            accelerator.save_state(str(save))
    pruning.finalize()
    return pruning


def test_the_weights_are_those_of_a_loop_by_hand(
    digits: nn.Module, samples: Any, make: Any, by_hand: Any, same: Any
) -> None:
    run(digits, samples, make, accumulate=2)
    batches, loop = DataLoader(samples, batch_size=20), TrainingLength(12, 4)
    same(digits.state_dict(), by_hand(type(digits)(), batches, make, loop, epochs=3, accumulate=2))


def test_every_batch_is_a_step_without_accumulation(
    digits: nn.Module, samples: Any, soft: Any, by_hand: Any, same: Any
) -> None:
    run(digits, samples, soft)
    batches, loop = DataLoader(samples, batch_size=20), TrainingLength(24, 8)
    same(digits.state_dict(), by_hand(type(digits)(), batches, soft, loop, epochs=3))


def test_a_resumed_run_ends_with_the_same_weights(
    digits: nn.Module, samples: Any, make: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    run(digits, samples, make, save=tmp_path / "state")
    again = type(digits)()
    run(again, samples, make, resume=tmp_path / "state")
    same(
        again.state_dict(),
        by_hand(type(digits)(), DataLoader(samples, batch_size=20), make, TrainingLength(24, 8), epochs=3),
    )


def test_the_pruner_is_that_of_the_model_inside(digits: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "unwrap_model", lambda model: model.module)
    found: list[nn.Module] = []

    def make(model: nn.Module, loop: TrainingLength) -> Pruner:
        found.append(model)
        return Pruner(model, ["hidden.weight"], sparsity=0.5, removal=Soft(steps=3))

    pruning = AcceleratePruning(accelerator, Wrapped(digits), make)
    assert found == [digits]
    assert [target.path for target in pruning.pruner.targets] == ["hidden.weight"]


def test_epochs_need_a_length(digits: nn.Module) -> None:
    def make(model: nn.Module, loop: TrainingLength) -> Pruner:
        return Pruner(model, ["hidden.weight"], sparsity=0.5, removal=Soft(steps=loop.steps("2 epochs")))

    with pytest.raises(InputError, match="the training loader has no length"):
        AcceleratePruning(accelerate.Accelerator(cpu=True), digits, make)
    with pytest.raises(InputError, match="takes 16 steps and the loop has only 8"):
        AcceleratePruning(accelerate.Accelerator(cpu=True), digits, make, batches=8, epochs=1)
    with pytest.raises(InputError, match="'two epochs'; needs a number above 0 and its unit"):
        TrainingLength(8, 8).steps("two epochs")


def test_nodes_of_a_network_that_takes_dicts(bert: nn.Module, sentences: Any, halved: Any, bert_by_hand: Any) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(bert.parameters(), lr=2e-3, weight_decay=0.01)
    model, optimizer, loader = accelerator.prepare(bert.train(), optimizer, DataLoader(sentences, batch_size=4))
    pruning = AcceleratePruning(accelerator, model, halved, batches=len(loader))
    for batch in loader:
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
        pruning.step()
    pruning.finalize()
    found = bert.state_dict()
    assert found.keys() == bert_by_hand.keys()
    assert all(torch.equal(tensor, bert_by_hand[name]) for name, tensor in found.items())
