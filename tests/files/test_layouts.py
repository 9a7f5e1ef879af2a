"""Checkpoints as people's training code writes them: where in the file the weights are, and what they are called."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import compress
from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights
from compress.files.layouts import only


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 3)))


STATE = build().state_dict()
OTHER = build().state_dict()


def named(prefix: str, state: Mapping[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def optimizer() -> dict[str, Any]:
    model = build()
    chosen = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    chosen.step()
    return chosen.state_dict()


def averaged() -> dict[str, Tensor]:
    model = build()
    model.load_state_dict(STATE)
    return AveragedModel(model).state_dict()


def inside(part: str) -> dict[str, Tensor]:
    """As where only a part of the network is wrapped."""
    return {name.replace("1.1.", f"1.1.{part}."): tensor for name, tensor in STATE.items()}


LAYOUTS: dict[str, Any] = {
    "DataParallel": named("module."),
    "compile": named("_orig_mod."),
    "DDP of compile": named("module._orig_mod."),
    "compile of DDP": named("_orig_mod.module."),
    "a compiled part": inside("_orig_mod"),
    "a part in DataParallel": inside("module"),
    "activation checkpointing": inside("_checkpoint_wrapped_module"),
    "FSDP": named("_fsdp_wrapped_module.", inside("_fsdp_wrapped_module")),
    "AveragedModel": averaged(),
    "AveragedModel in a checkpoint": {"model": averaged(), "epoch": 3},
    "state_dict": {"state_dict": STATE},
    "Lightning": {"state_dict": named("model."), "epoch": 3, "loops": {"fit_loop": {"state_dict": {}}}},
    "Lightning with compile": {"state_dict": named("model._orig_mod."), "epoch": 3},
    "compiled LightningModule": {"state_dict": named("_orig_mod.model.net."), "epoch": 3},
    "ImageNet example": {"arch": "x", "state_dict": named("module."), "best_acc1": torch.tensor(1.0)},
    "tutorial": {"model_state_dict": STATE, "optimizer_state_dict": optimizer(), "epoch": 5, "loss": torch.tensor(0.1)},
    "model and optimizer": {"model": STATE, "optimizer": optimizer()},
    "DeepSpeed": {"module": STATE, "buffer_names": [], "ds_version": "0.1"},
    "two networks": {"generator": named("module."), "discriminator": nn.Linear(3, 1).state_dict()},
    "another width": {"student": named("module."), "teacher": nn.Sequential(nn.Linear(6, 9)).state_dict()},
    "one set under two keys": {"model": STATE, "state_dict": STATE},
    "two levels": {"checkpoint": {"model": STATE, "optimizer": optimizer()}, "epoch": 3},
    "two levels of the same name": {"model": {"state_dict": named("module.")}},
    "net": {"net": STATE, "acc": 93.5, "epoch": 3},
    "wrapped twice": named("model.module."),
    "numbers among the weights": {**STATE, "epoch": 3},
    "a list beside it": {"network": STATE, "history": [{"loss": torch.ones(())}]},
    "other modules' weights": {
        "state_dict": {**named("model."), "loss.weight": torch.ones(3), "auc.tp": torch.ones(1)}
    },
    "a defaultdict": {"model": defaultdict(list, STATE)},
}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def same(model: nn.Module) -> bool:
    return all(torch.equal(tensor, STATE[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loads_where_one_set_of_weights_fits(layout: str, tmp_path: Path) -> None:
    assert same(compress.load(saved(LAYOUTS[layout], tmp_path / "w.ckpt"), model=build))


def test_a_network_may_have_such_names_itself(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": build(), "other": build()})
    path = saved(named("module.", model.state_dict()), tmp_path / "w.pt")
    found = compress.load(path, model=lambda: nn.ModuleDict({"module": build(), "other": build()}))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.state_dict().items())


def test_names_that_would_become_one_are_kept_apart(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.module = nn.Parameter(torch.randn(2)), nn.PReLU(2)

    model = Both()
    found = compress.load(saved(named("net.", model.state_dict()), tmp_path / "w.pt"), model=Both)
    assert torch.equal(found.weight, model.weight)
    assert torch.equal(found.module.weight, model.module.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_network_keeps_its_type_of_number(dtype: torch.dtype, tmp_path: Path, caplog: Any) -> None:
    path = saved({name: tensor.to(dtype) for name, tensor in STATE.items()}, tmp_path / "w.pt")
    with caplog.at_level(logging.INFO, "compress"):
        found = compress.load(path, model=build)
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, STATE[name].to(dtype).float())
    word = str(dtype).removeprefix("torch.")
    assert [line.rpartition(": ")[2] for line in caplog.messages] == [
        f"weights in {word} are loaded into a network in float32"
    ]


def test_a_prefix_in_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(named("_orig_mod."), tmp_path / "w.safetensors")
    assert same(compress.load(tmp_path / "w.safetensors", model=build))


def test_an_optimizer_s_state_is_no_set(tmp_path: Path) -> None:
    found = read_weights(saved({"model": STATE, "optimizer": optimizer(), "loss": torch.ones(())}, tmp_path / "w.pt"))
    assert found.sets.keys() == {"", "model"}
    assert found.others == {"optimizer": []}


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["ema", "model"], "model"),
        (["state_dict_ema", "state_dict"], "state_dict"),
        (["averagedModel", "weights"], "weights"),
        (["teacher", "student"], "student"),
        (["discriminator", "generator"], "generator"),
        (["b", "a"], "b"),
        (["ema", "swa"], "ema"),
    ],
)
def test_the_order_of_sets(sets: list[str], key: str) -> None:
    assert only({each: dict(STATE) for each in sets}) == key


def test_measurements_are_no_network() -> None:
    assert only({"": {"best": torch.ones(())}, "weights": dict(STATE)}) == "weights"
    assert only({"": {"w": torch.ones(2)}}) == ""


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="two sets of weights with the key 'a/b'"):
        read_weights(saved({"a/b": STATE, "a": {"b": OTHER}}, tmp_path / "w.pt"))


@pytest.mark.parametrize("key", ["ema", "checkpoint/ema", "checkpoint/ema/module"])
def test_a_key_takes_a_set(key: str, tmp_path: Path) -> None:
    ema = named("module.", OTHER)
    content = {"model": STATE, "ema": ema} if key == "ema" else {"checkpoint": {"model": STATE, "ema": ema}}
    saved(content, tmp_path / "w.pt")
    found = compress.load(f"{tmp_path}/w.pt#{key}", model=build).state_dict()
    assert all(torch.equal(tensor, OTHER[name]) for name, tensor in found.items())


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    saved({"model": STATE, "ema": OTHER}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r'w\.pt has no weights under "emma"; it has "model" and "ema"'):
        read_weights(f"{tmp_path}/w.pt#emma")
    with pytest.raises(CheckpointError, match="it has no keys"):
        read_weights(f"{saved(STATE, tmp_path / 'plain.pt')}#ema")
