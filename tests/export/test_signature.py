"""What is said of inputs and outputs is what onnxruntime says of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compress.export
from compress.errors import UnsupportedModelError
from compress.export.signature import signature


class Reader(nn.Module):
    """Token ids of any length, a mask, and several outputs, one of which has half of the length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        states = self.embed(ids) * mask[..., None]
        return {"logits": self.last(states.sum(1)), "more": [states, states[:, ::2]], "flag": 3}


class Named(nn.Module):
    """The name of its output is that of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x * self.logits}


def reader() -> tuple[nn.Module, object, Any]:
    example = {"ids": torch.zeros(2, 6, dtype=torch.long), "mask": torch.ones(2, 6)}
    return Reader(), example, {"ids": {1: "length"}, "mask": {1: "length"}}


def plain() -> tuple[nn.Module, object, Any]:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 4), None


def named() -> tuple[nn.Module, object, Any]:
    return Named(), torch.zeros(2, 3), None


@pytest.mark.parametrize("build", [reader, plain, named])
def test_it_is_what_onnxruntime_says(build: Callable[[], tuple[nn.Module, object, Any]], tmp_path: Path) -> None:
    model, example, dynamic = build()
    inputs, outputs = signature(model, example, dynamic)
    compress.export.onnx(model, tmp_path / "a.onnx", example, dynamic=dynamic)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    types = {"tensor(float)": "float32", "tensor(int64)": "int64"}
    for given, found in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        assert [(one["name"], one["dtype"]) for one in given] == [(one.name, types[one.type]) for one in found]
        for one, other in zip(given, found, strict=True):  # an unnamed size is one that has no name of ours
            expected = [size if isinstance(size, int) or size in ("batch", "length") else None for size in other.shape]
            assert one["shape"] == expected


def test_sizes_have_names_numbers_or_nothing() -> None:
    _, outputs = signature(*reader())
    assert [(one["name"], one["shape"]) for one in outputs] == [
        ("logits", ["batch", 2]),
        ("more_0", ["batch", "length", 4]),
        ("more_1", ["batch", None, 4]),
    ]


def test_a_network_of_one_size_has_numbers() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, 6)

    inputs, outputs = signature(Fixed(), torch.zeros(2, 2, 3))
    assert outputs[0]["shape"] == [2, 6]
    assert inputs[0]["shape"] == ["batch", 2, 3]


def test_the_network_is_as_before() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    signature(model, torch.randn(4, 3))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_without_an_output_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(UnsupportedModelError, match="returns no tensor"):
        signature(Silent(), torch.zeros(2, 3))
