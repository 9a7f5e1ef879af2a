"""Which part of a file is a network's: with what beside it, what is said of that, and what differs where none fits."""

import logging
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import compress
from compress.errors import CheckpointError, InputError
from compress.files.checkpoint import WeightsFile, load_weights


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


STATE, OTHER = build().state_dict(), build().state_dict()


def named(prefix: str, state: Mapping[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def load(content: Any, folder: Path, key: str = "") -> dict[str, Tensor]:
    torch.save(content, folder / "w.pt")
    return compress.load(f"{folder / 'w.pt'}{key}", model=build).state_dict()


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor] = STATE) -> bool:
    return all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"state_dict": named("model."), "optimizer": {}, "epoch": 3, "hyper_parameters": {"a": Namespace(lr=1)}},
            (
                'under "state_dict", without the prefix "model."; left out 3 others: optimizer, epoch, '
                "hyper_parameters (pickled objects that are not read)"
            ),
        ),
        (named("_orig_mod."), ', without the prefix "_orig_mod."'),
        (
            {"model": STATE, "ema": OTHER},
            'under "model"; left out 1 other: ema; "ema" fits too: name w.pt#ema to take it',
        ),
        (
            {"state_dict": {**named("net."), **named("ema.net.", OTHER), "loss.weight": torch.ones(2)}},
            (
                'under "state_dict", without the prefix "net."; left out 2 others: state_dict/ema.*, '
                'state_dict/loss.*; "state_dict/ema.net" fits too: name w.pt#state_dict/ema.net to take it'
            ),
        ),
        (
            {name.replace("0.", "0.module."): tensor for name, tensor in STATE.items()},
            ', without "module" in names',
        ),
        (
            {name: tensor for name, tensor in STATE.items() if "batches" not in name},
            "; kept 1.num_batches_tracked as the network builds it",
        ),
        ({"checkpoint": {"a": {"net": STATE}}}, 'under "checkpoint/a/net"'),
    ],
)
def test_the_note(content: Any, text: str, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "w.pt")
    with caplog.at_level(logging.INFO, "compress"):
        found = compress.load("w.pt", model=build).state_dict()
    (line,) = caplog.messages
    assert line.replace("w.pt: took the weights", "").lstrip() == text
    assert same({name: tensor for name, tensor in found.items() if "batches" not in name})


def test_no_note_where_nothing_is_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "compress"):
        load(STATE, tmp_path)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"ema": OTHER, "model": STATE}, "#ema"),
        ({"state_dict": {**named("model."), **named("ema_model.", OTHER)}}, "#state_dict/ema_model"),
        ({**named("ema.module.", OTHER), **named("module.")}, "#ema"),
        ({"student": named("module."), "teacher": OTHER}, "#teacher"),
    ],
)
def test_of_two_that_fit_the_weights_are_taken_or_the_named_one(content: Any, key: str, tmp_path: Path) -> None:
    assert same(load(content, tmp_path))
    assert same(load(content, tmp_path, key), OTHER)


def test_a_prefix_of_the_network_alone(tmp_path: Path) -> None:
    """As where a head's model was saved without it: the network's names begin with "bert."."""
    path = tmp_path / "w.pt"
    for prefix in ("", "model."):
        torch.save(named(prefix), path)
        found = compress.load(path, model=lambda: nn.ModuleDict({"bert": build()})).state_dict()
        assert same({name.removeprefix("bert."): tensor for name, tensor in found.items()})


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("position_ids", torch.arange(4))
        self.register_buffer("scale", torch.ones(1))


@pytest.mark.parametrize(
    "lost", [[], ["head.weight"], ["embed.weight"], ["position_ids"], ["head.weight", "position_ids"]]
)
def test_tied_weights_are_there_once_or_twice(lost: list[str], tmp_path: Path) -> None:
    state = Tied().state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name not in lost}, tmp_path / "w.pt")
    found = compress.load(tmp_path / "w.pt", model=Tied)
    assert torch.equal(found.embed.weight, state["embed.weight"])
    assert found.head.weight is found.embed.weight
    assert torch.equal(found.position_ids, torch.arange(4))


def test_a_base_s_weights_in_a_network_with_a_tied_head(tmp_path: Path) -> None:
    """As GPT-2's: all of the network's tensors have a name under "base.", and one has another name too."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = Tied()
            self.lm_head = nn.Linear(3, 4, bias=False)
            self.lm_head.weight = self.base.embed.weight

    state = Tied().state_dict()
    torch.save(state, tmp_path / "w.pt")
    found = compress.load(tmp_path / "w.pt", model=Head)
    assert torch.equal(found.lm_head.weight, state["embed.weight"])
    assert found.lm_head.weight is found.base.embed.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.weight": None, "embed.weight": None}, "missing: embed.weight, head.weight"),
        ({"scale": None}, "missing: scale"),
        ({"head.weight": torch.ones(4, 3)}, "different values in embed.weight and head.weight, which the network ties"),
    ],
)
def test_what_a_file_may_not_lack(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in {**Tied().state_dict(), **change}.items() if tensor is not None}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message):
        compress.load(tmp_path / "w.pt", model=Tied)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**STATE, "3.weight": torch.ones(2)}, r"network Sequential: unknown to the network: 3\.weight\."),
        (
            {"state_dict": {**named("model."), "model.3.weight": torch.ones(2)}},
            r'\(closest are the weights under "state_dict", without the prefix "model\."\): unknown .*: 3\.weight',
        ),
        (
            {"a": nn.Linear(2, 2).state_dict(), "b": {**named("net."), "net.0.weight": torch.ones(4, 6)}},
            r'\(closest .* under "b", .* "net\."\): of another shape: 0\.weight \[4, 6\] instead of \[5, 6\]',
        ),
        (
            {"b": {name: tensor for name, tensor in named("net.").items() if name != "net.2.bias"}, "c": {}},
            r'under "b", without the prefix "net\."\): missing: 2\.bias\.',
        ),
        ({"x.weight": torch.ones(2)}, r"missing: 0\.weight, .*; unknown to the network: x\.weight"),
    ],
)
def test_what_differs_in_the_closest(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(content, tmp_path)


def test_masks_in_a_checkpoint_of_a_wrapper(tmp_path: Path) -> None:
    model = build()
    prune.l1_unstructured(model[0], "weight", 0.5)
    found = load({"state_dict": named("module.", model.state_dict())}, tmp_path)
    assert torch.equal(found["0.weight"], model[0].weight)


def test_many_prefixes_take_no_time() -> None:
    """A network of one tensor, whose name is in the file under thirty thousand prefixes."""
    found = {f"{number}.weight": torch.ones(1) for number in range(30_000)}
    model = nn.ParameterDict({"weight": nn.Parameter(torch.ones(2))})
    started = time.process_time()
    with pytest.raises(CheckpointError, match="of another shape"):
        load_weights(model, WeightsFile({"": found}, {}), "w.pt")
    assert time.process_time() - started < 5


def test_a_missing_network_is_asked_for(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r'compress\.load\("w\.pt", model=Net\)'):
        compress.load(tmp_path / "w.pt")
    (tmp_path / "w.pt2").touch()
    with pytest.raises(InputError, match=r'w\.pt2 is a program.*torch\.export\.load\("w\.pt2"\)\.module\(\)'):
        compress.load(tmp_path / "w.pt2")
