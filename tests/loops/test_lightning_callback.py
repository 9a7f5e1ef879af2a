import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compress.errors import InputError
from compress.loops.pruning import TrainingLength
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft
from compress.remove.remover import EarlyRemovalWarning

lightning = pytest.importorskip(
    "lightning.pytorch", reason="lightning is not installed: pip install 'softprune[lightning]'"
)

from compress.loops.lightning_callback import LightningPruning  # noqa: E402 (after the question whether it can be)

pytestmark = [
    # Lightning's advice on what these tests do on purpose: no processes for 160 samples, a progress in few batches.
    pytest.mark.filterwarnings(r"ignore:The '\w+' does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
    # A resumed run saves beside the first one.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    # Lightning asks torch's pytree in a way that torch has deprecated.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings(r"ignore:The `srun` command is available:UserWarning"),
]


class Module(lightning.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.01)


class Validated(Module):
    """Notes the weights that its validation sees, where they have the plain name."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen: list[Tensor | None] = []

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        weight = dict(self.net.named_parameters()).get("hidden.weight")
        self.seen.append(None if weight is None else weight.detach().clone())


def fit(module: Module, samples: Any, callbacks: list[Any], folder: Path, **settings: Any) -> Any:
    resume = settings.pop("ckpt_path", None)
    trainer = lightning.Trainer(
        **{"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, **settings},
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, lightning.callbacks.ModelCheckpoint) for callback in callbacks),
    )
    validation = DataLoader(samples[:20], batch_size=20) if settings.get("num_sanity_val_steps") else None
    trainer.fit(module, DataLoader(samples, batch_size=20), validation, ckpt_path=resume)
    return trainer


def batches(samples: Any) -> DataLoader[Any]:
    return DataLoader(samples, batch_size=20)


def test_the_weights_are_those_of_a_loop_by_hand(
    digits: nn.Module, samples: Any, make: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    module = Module(digits)
    fit(module, samples, [LightningPruning(make)], tmp_path, accumulate_grad_batches=2)
    loop = TrainingLength(12, 4)
    wanted = by_hand(type(digits)(), batches(samples), make, loop, epochs=3, accumulate=2)
    same(digits.state_dict(), wanted)


def test_every_batch_is_a_step_without_accumulation(
    digits: nn.Module, samples: Any, soft: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    module = Module(digits)
    fit(module, samples, [LightningPruning(soft)], tmp_path)
    loop = TrainingLength(24, 8)
    wanted = by_hand(type(digits)(), batches(samples), soft, loop, epochs=3)
    same(digits.state_dict(), wanted)


def resumed(net: nn.Module, again: nn.Module, samples: Any, make: Any, folder: Path, epoch: int, last: int) -> None:
    """Fit `net` for `last` epochs, and `again` from the checkpoint of `epoch`, counted from 0, to the end of four."""

    def callbacks() -> list[Any]:
        keep_all = lightning.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        return [LightningPruning(make), keep_all]

    fit(Module(net), samples, callbacks(), folder, max_epochs=last)
    fit(Module(again), samples, callbacks(), folder, max_epochs=4, ckpt_path=folder / f"epoch={epoch}.ckpt")


def test_a_run_that_resumes_in_the_middle_of_the_removal_ends_with_the_same_weights(
    digits: nn.Module, samples: Any, make: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    resumed(digits, again := type(digits)(), samples, make, tmp_path, epoch=0, last=2)
    same(again.state_dict(), by_hand(type(digits)(), batches(samples), make, TrainingLength(32, 8), epochs=4))


def test_a_run_that_was_complete_goes_on(
    digits: nn.Module, samples: Any, soft: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    resumed(digits, again := type(digits)(), samples, soft, tmp_path, epoch=1, last=2)
    same(again.state_dict(), by_hand(type(digits)(), batches(samples), soft, TrainingLength(32, 8), epochs=4))


def test_a_checkpoint_loads_without_a_pruner_and_the_last_one_is_pruned(
    digits: nn.Module, samples: Any, soft: Any, tmp_path: Path
) -> None:
    keep_last = lightning.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_last=True)
    fit(Module(digits), samples, [LightningPruning(soft), keep_last], tmp_path)
    for name in ("epoch=0", "epoch=2", "last"):
        loaded = Module.load_from_checkpoint(tmp_path / f"{name}.ckpt", net=type(digits)())
        assert (name == "epoch=0") != all(
            torch.equal(tensor, digits.state_dict()[key]) for key, tensor in loaded.net.state_dict().items()
        )


def test_the_sanity_check_sees_the_network_as_it_was(digits: nn.Module, samples: Any, tmp_path: Path) -> None:
    module, before = Validated(digits), digits.get_parameter("hidden.weight").clone()
    callback = LightningPruning(
        lambda model, loop: Pruner(model, ["net.hidden.*"], sparsity=0.5, removal=Soft(steps=0))
    )
    fit(module, samples, [callback], tmp_path, num_sanity_val_steps=1, max_epochs=1)
    sanity, after_the_epoch = module.seen
    assert sanity is not None
    assert torch.equal(sanity, before)
    assert after_the_epoch is None  # it is being pruned by then


def test_a_trainer_of_pytorch_lightning_takes_it(
    digits: nn.Module, samples: Any, by_hand: Any, soft: Any, same: Any, tmp_path: Path
) -> None:
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")

    class Other(other.LightningModule):  # type: ignore[name-defined, misc]
        training_step, configure_optimizers = Module.training_step, Module.configure_optimizers

        def __init__(self) -> None:
            super().__init__()
            self.net = digits

    trainer = other.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[LightningPruning(soft)],
    )
    trainer.fit(Other(), batches(samples))
    same(digits.state_dict(), by_hand(type(digits)(), batches(samples), soft, TrainingLength(16, 8), epochs=2))


def test_a_removal_that_is_longer_than_the_loop_is_refused(digits: nn.Module, samples: Any, tmp_path: Path) -> None:
    names = list(digits.state_dict())
    too_long = LightningPruning(
        lambda model, loop: Pruner(model, ["*"], sparsity=0.5, removal=Soft(steps=loop.steps("4 epochs")))
    )
    with pytest.raises(InputError, match="takes 32 steps and the loop has only 24"):
        fit(Module(digits), samples, [too_long], tmp_path)
    assert sorted(digits.state_dict()) == sorted(names)


def test_a_loop_without_an_end_takes_steps(digits: nn.Module, samples: Any, tmp_path: Path) -> None:
    found: list[TrainingLength] = []

    def make(model: nn.Module, loop: TrainingLength) -> Pruner:
        found.append(loop)
        return Pruner(model, ["*"], sparsity=0.5, removal=Soft(steps=loop.steps(1000)))

    class Stop(lightning.Callback):  # type: ignore[name-defined, misc]
        def on_train_batch_end(self, trainer: Any, *others: object) -> None:
            trainer.should_stop = trainer.global_step >= 5

    with pytest.warns(EarlyRemovalWarning, match="the loop made 5"):
        fit(Module(digits), samples, [LightningPruning(make), Stop()], tmp_path, max_epochs=-1)
    assert found == [TrainingLength(None, 8)]
    assert math.isclose(int((digits.get_parameter("hidden.weight") == 0).sum()) / 12_544, 0.5, abs_tol=0.02)


def test_weights_of_another_checkpoint_are_refused(digits: nn.Module, samples: Any, tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        pruning = LightningPruning(
            lambda model, loop: Pruner(model, ["*"], sparsity=0.5, removal=Soft(steps=loop.steps("2 epochs")))
        )
        return [pruning, lightning.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)]

    fit(Module(digits), samples, callbacks(), tmp_path)
    mixed = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    mixed["state_dict"]["net.hidden.weight"] = torch.ones(16, 784)
    torch.save(mixed, tmp_path / "mixed.ckpt")
    with pytest.raises(InputError, match=r"does not belong to the weights that were loaded: net\.hidden\.weight"):
        fit(Module(type(digits)()), samples, callbacks(), tmp_path, ckpt_path=tmp_path / "mixed.ckpt")


class Sentences(lightning.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, **batch: Tensor) -> Any:
        return self.net(**batch)

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        loss: Tensor = self(**batch).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.01)


def test_nodes_of_a_network_that_takes_dicts(
    bert: nn.Module, sentences: Any, halved: Any, bert_by_hand: Any, tmp_path: Path
) -> None:
    callback = LightningPruning(lambda model, loop: halved(model.net, loop))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
    )
    trainer.fit(Sentences(bert.train()), DataLoader(sentences, batch_size=4))
    found = bert.state_dict()
    assert found.keys() == bert_by_hand.keys()
    assert all(torch.equal(tensor, bert_by_hand[name]) for name, tensor in found.items())
