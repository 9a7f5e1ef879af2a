"""Tensors and networks that are put aside come back as they were."""

import copy
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.files import spill
from compress.files.spill import Aside, Shelved


@pytest.fixture(params=["in memory", "in a file", "no room for a file"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All of it goes where the parameter says, however small it is."""
    if request.param != "in memory":
        monkeypatch.setattr(spill, "LARGE", 0)
    if request.param == "no room for a file":

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tempfile, "TemporaryFile", full)
    found: str = request.param
    return found


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)).double()
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    model.register_buffer("narrow", torch.tensor([1.5, -0.0], dtype=torch.bfloat16), persistent=False)
    return model.eval()


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)


def test_tensors_are_as_they_were_when_they_were_put_aside(place: str) -> None:
    given = {"w": torch.randn(3, 5).t(), "mask": torch.rand(4) > 0.5, "step": torch.tensor(3), "none": torch.empty(0)}
    before = copy.deepcopy(given)
    put = Aside(given)
    assert (put._file is not None) == (place == "in a file")
    given["w"].zero_()
    for read in (put.tensors, put.mapped) * 2:
        found = read()
        assert list(found) == list(before)
        assert all(same(found[name], tensor) for name, tensor in before.items())
        found["w"].zero_()  # a copy


def anonymous() -> int:
    """Bytes of this process's memory that no file holds."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_what_is_mapped_is_written_out_of_the_file() -> None:
    size = spill.LARGE
    put = Aside({"w": torch.ones(size // 4), "other": torch.ones(size // 4)})
    before = anonymous()
    found = put.mapped()
    with open(os.devnull, "wb") as nowhere:
        torch.save(found, nowhere)
    assert anonymous() - before < size / 4
    assert all(bool((tensor == 1).all()) for tensor in found.values())


def test_what_is_no_plain_tensor_stays_in_memory(place: str) -> None:
    put = Aside({"w": torch.ones(2), "extra": {"seen": 3}})
    assert put._file is None
    assert put.tensors()["extra"] == {"seen": 3}


def test_a_state_dict_keeps_the_versions_of_its_layers(place: str) -> None:
    state: Any = tied().state_dict()
    found: Any = Aside(state).tensors()
    assert found._metadata == state._metadata


def test_a_network_comes_back_with_ties_buffers_and_modes(place: str) -> None:
    model = tied()
    before = copy.deepcopy(model)
    shelved = Shelved(model)
    with torch.no_grad():
        model[0].weight.zero_()
    one, other = shelved.copy(), shelved.copy()
    assert one[2].weight is one[0].weight
    assert one[0].weight is not other[0].weight
    assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in before.parameters()]
    assert not any(module.training for module in one.modules())
    assert "narrow" not in one.state_dict()
    held = dict(one.named_parameters()) | dict(one.named_buffers())
    for name, tensor in (*before.named_parameters(), *before.named_buffers()):
        assert same(held[name], tensor)
        assert type(held[name]) is type(tensor)
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(one(x), before(x))


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3), nn.MultiheadAttention(4, 2)])
def test_layers_that_keep_lists_of_their_parameters(place: str, layer: nn.Module) -> None:
    found = Shelved(layer).copy()
    x = torch.randn(2, 1, 4)
    arguments = (x,) if isinstance(layer, nn.LSTM) else (x, x, x)
    assert torch.equal(found(*arguments)[0], layer(*arguments)[0])
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
    assert not found(*arguments)[0].any()
