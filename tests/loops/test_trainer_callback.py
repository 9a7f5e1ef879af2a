import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compress.errors import CheckpointError, InputError
from compress.loops.pruning import TrainingLength
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here needs the hub, and nothing may ask it
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'softprune[transformers]'"
)
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'softprune[accelerate]'")

from compress.loops.trainer_callback import STATE, TrainerPruning  # noqa: E402 (after the question whether it can be)

pytestmark = [
    # On a machine without a GPU the Trainer pins memory all the same.
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning"),
]


class Network(nn.Module):
    """Takes and gives what the Trainer wants of a model."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(pixels)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class InOrder(transformers.Trainer):  # type: ignore[name-defined, misc]
    """Digits in their order, so that a loop by hand can have the same."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=20)


def trainer(net: nn.Module, samples: Any, callback: TrainerPruning, folder: Path, **settings: Any) -> Any:
    chosen = {
        "output_dir": str(folder),
        "num_train_epochs": 3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    arguments = transformers.TrainingArguments(**{**chosen, **settings})
    data = [{"pixels": image, "labels": label} for image, label in samples]
    found = InOrder(Network(net), arguments, train_dataset=data, eval_dataset=data, callbacks=[callback])
    # Its own would decay biases and norms less than the loop by hand does.
    found.optimizer = torch.optim.AdamW(found.model.parameters(), lr=2e-3, weight_decay=0.01)
    return found


def batches(samples: Any) -> DataLoader[Any]:
    return DataLoader(samples, batch_size=20)


def test_the_weights_are_those_of_a_loop_by_hand(
    digits: nn.Module, samples: Any, make: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    trainer(digits, samples, TrainerPruning(make), tmp_path, gradient_accumulation_steps=2).train()
    loop = TrainingLength(12, 4)
    wanted = by_hand(type(digits)(), batches(samples), make, loop, epochs=3, accumulate=2)
    same(digits.state_dict(), wanted)


def test_every_batch_is_a_step_without_accumulation(
    digits: nn.Module, samples: Any, soft: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    trainer(digits, samples, TrainerPruning(soft), tmp_path).train()
    loop = TrainingLength(24, 8)
    wanted = by_hand(type(digits)(), batches(samples), soft, loop, epochs=3)
    same(digits.state_dict(), wanted)


@pytest.mark.parametrize(
    "step", [5, pytest.param(20, marks=pytest.mark.extended)]
)  # in the middle of the removal and of an epoch; after the removal
def test_a_resumed_run_ends_with_the_same_weights(
    digits: nn.Module, samples: Any, make: Any, by_hand: Any, same: Any, tmp_path: Path, step: int
) -> None:
    saves = {"save_strategy": "steps", "save_steps": step}
    trainer(digits, samples, TrainerPruning(make), tmp_path, **saves).train()
    again = type(digits)()
    trainer(again, samples, TrainerPruning(make), tmp_path).train(
        resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}")
    )
    same(again.state_dict(), by_hand(type(digits)(), batches(samples), make, TrainingLength(24, 8), epochs=3))


def test_the_last_checkpoint_is_the_pruned_network(digits: nn.Module, samples: Any, soft: Any, tmp_path: Path) -> None:
    found = trainer(digits, samples, TrainerPruning(soft), tmp_path, save_strategy="epoch")
    found.train()
    other = Network(type(digits)())
    found._load_from_checkpoint(str(tmp_path / "checkpoint-24"), other)
    assert all(torch.equal(tensor, digits.state_dict()[key]) for key, tensor in other.net.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-16", "checkpoint-24", "checkpoint-8"]


def test_a_network_of_transformers_is_pruned(samples: Any, tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=28,
        patch_size=7,
        num_channels=1,
        num_labels=10,
    )
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    data = [{"pixel_values": image, "labels": label} for image, label in samples]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        use_cpu=True,
        save_strategy="epoch",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    pruning = TrainerPruning(
        lambda model, loop: Pruner(model, ["*.mlp.*.weight"], sparsity=0.75, removal=Soft(steps=loop.steps("1 epoch")))
    )
    transformers.Trainer(model, arguments, train_dataset=data, callbacks=[pruning]).train()
    loaded = transformers.ViTForImageClassification.from_pretrained(tmp_path / f"checkpoint-{160 // 8}")
    weights = [tensor for name, tensor in loaded.named_parameters() if ".mlp." in name and tensor.dim() == 2]
    assert len(weights) == 2
    assert sum(int((weight == 0).sum()) for weight in weights) == 0.75 * sum(weight.numel() for weight in weights)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.extended
def test_a_checkpoint_that_lies_elsewhere_has_to_be_named(
    digits: nn.Module, samples: Any, soft: Any, by_hand: Any, same: Any, tmp_path: Path
) -> None:
    trainer(digits, samples, TrainerPruning(soft), tmp_path / "a", save_strategy="epoch").train()
    (tmp_path / "a" / "checkpoint-8").rename(tmp_path / "kept")
    again = type(digits)()
    with pytest.raises(CheckpointError, match=r"resume_from=FOLDER"):
        trainer(again, samples, TrainerPruning(soft), tmp_path / "b").train(
            resume_from_checkpoint=str(tmp_path / "kept")
        )
    named = TrainerPruning(soft, resume_from=tmp_path / "kept")
    trainer(again, samples, named, tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "kept"))
    same(again.state_dict(), by_hand(type(digits)(), batches(samples), soft, TrainingLength(24, 8), epochs=3))
    (tmp_path / "kept" / STATE).write_bytes(b"no archive")
    named = TrainerPruning(soft, resume_from=tmp_path / "kept")
    with pytest.raises(CheckpointError, match="is damaged"):
        trainer(again, samples, named, tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "kept"))


def test_the_best_checkpoint_instead_of_the_last_is_refused(digits: nn.Module, samples: Any, tmp_path: Path) -> None:
    pruning = TrainerPruning(
        lambda model, loop: Pruner(model, ["*"], sparsity=0.5, removal=Soft(steps=loop.steps("1 epoch")))
    )
    settings = {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}
    with pytest.raises(InputError, match="load_best_model_at_end"):
        trainer(digits, samples, pruning, tmp_path, **settings).train()


def test_a_removal_that_is_longer_than_the_loop_is_refused(digits: nn.Module, samples: Any, tmp_path: Path) -> None:
    names = list(digits.state_dict())
    pruning = TrainerPruning(lambda model, loop: Pruner(model, ["*"], sparsity=0.5, removal=Soft(steps=25)))
    with pytest.raises(InputError, match="takes 25 steps and the loop has only 24"):
        trainer(digits, samples, pruning, tmp_path).train()
    assert sorted(digits.state_dict()) == sorted(names)


def test_nodes_of_a_network_that_takes_dicts(
    bert: nn.Module, sentences: Any, halved: Any, bert_by_hand: Any, tmp_path: Path
) -> None:
    settings = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "max_grad_norm": 0.0, "use_cpu": True}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), **settings, **quiet)

    class Sequential(transformers.Trainer):  # type: ignore[name-defined, misc]
        def get_train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.train_dataset, batch_size=4)

    optimizer = torch.optim.AdamW(bert.parameters(), lr=2e-3, weight_decay=0.01)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    Sequential(
        bert,
        arguments,
        train_dataset=sentences,
        callbacks=[TrainerPruning(halved)],
        optimizers=(optimizer, constant),
    ).train()
    found = bert.state_dict()
    assert found.keys() == bert_by_hand.keys()
    assert all(torch.equal(tensor, bert_by_hand[name]) for name, tensor in found.items())
