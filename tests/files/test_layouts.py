"""Checkpoints as people's training code writes them: loaded where one set of weights fits, else refused by name."""

import logging
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


def test_says_what_it_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "compress"):
        compress.load(saved(LAYOUTS["Lightning"], tmp_path / "w.pt"), model=build)
    (line,) = caplog.messages
    assert line.endswith(
        "the weights under 'state_dict' are loaded with the network's names ('model.0.weight' as '0.weight')"
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, "compress"):
        compress.load(saved(STATE, tmp_path / "w.pt"), model=build)
    assert not caplog.messages


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": STATE, "model_ema": OTHER}, r"2 sets .* 'model' and 'model_ema': .*\['model_ema'\], \"model.pt\"\)"),
        ({"state_dict": named("module."), "state_dict_ema": OTHER}, "'state_dict' and 'state_dict_ema'"),
        ({"student": named("module."), "teacher": OTHER, "epoch": 1}, "'student' and 'teacher'"),
        (
            {"state_dict": {**named("model."), "loss.weight": torch.ones(3)}},
            r"under 'model\.' .*, and others",
        ),
        ({**named("model."), **named("ema.module.", OTHER)}, r"under 'model\.' and 'ema\.module\.' are the network's"),
        ({"a": nn.Linear(2, 2).state_dict(), "b": nn.Linear(3, 3).state_dict()}, "does not fit the network Sequential"),
        ({"state_dict": {**STATE, "epoch": 3}}, r"not tensors \(epoch\)"),
    ],
)
def test_never_guesses(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        compress.load(saved(content, tmp_path / "w.pt"), model=build)


@pytest.mark.parametrize(
    "content",
    [
        {"model": OTHER, "model_ema": STATE},
        {"state_dict": {**named("model."), "loss.weight": torch.ones(3)}},
        {**named("model."), "head.weight": torch.ones(3)},
    ],
)
def test_the_line_of_the_error_saves_weights_that_load(content: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "w.pt")
    with pytest.raises(CheckpointError) as error:
        compress.load("w.pt", model=build)
    exec(str(error.value).split("`")[1], {"torch": torch})
    assert same(compress.load("model.pt", model=build))


def test_a_prefix_in_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(named("_orig_mod."), tmp_path / "w.safetensors")
    assert same(compress.load(tmp_path / "w.safetensors", model=build))
