"""What files take and give: named inputs and outputs, whatever the network is called with and returns."""

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compress.export
from compress import Inputs
from compress.errors import UnsupportedModelError

Pair = namedtuple("Pair", ["logits", "scale"])


class Dictionary(OrderedDict[str, Any]):
    pass


@dataclasses.dataclass
class Record:
    logits: Tensor
    states: list[Any]


class Wrapping(nn.Module):
    """A Linear, whose output is wrapped."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.linear(x), x)


class Words(nn.Module):
    """Token ids [N, T] and a mask, or none; two results."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6, dtype=dtype)
        self.places = nn.Parameter(torch.randn(12, 6, dtype=dtype))
        self.head = nn.Linear(6, 2, dtype=dtype)

    def forward(
        self, ids: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, states: bool = False
    ) -> dict[str, Any]:
        hidden = (self.words(ids) + self.places[: ids.shape[1]]) * scale
        if mask is not None:
            hidden = hidden * mask.unsqueeze(-1)
        return {"loss": None, "logits": self.head(hidden.mean(1)), "hidden": (hidden, hidden) if states else None}


def signature(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    session = onnxruntime.InferenceSession(path)
    return ({one.name: one.shape for one in found} for found in (session.get_inputs(), session.get_outputs()))  # type: ignore[return-value]


OUTPUTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], list[str]]] = {
    "tensor": (lambda y, x: y, ["output"]),
    "tuple of one": (lambda y, x: (y,), ["output"]),
    "list": (lambda y, x: [y, None, y * 2], ["output_0", "output_2"]),
    "dict": (lambda y, x: {"loss": None, "logits": y, "count": 3}, ["logits"]),
    "class of dict": (lambda y, x: Dictionary(logits=y, more=(y, {"a": y * 2})), ["logits", "more_0", "more_1_a"]),
    "named tuple": (lambda y, x: Pair(y, "a word"), ["logits"]),
    "dataclass": (lambda y, x: Record(y, [y * 2, None]), ["logits", "states_0"]),
    "numbers": (lambda y, x: {"loss": 0.5, "table": np.ones(3), "logits": y}, ["logits"]),
    "a number first": (lambda y, x: (np.float32(0.5), y, float("inf")), ["output"]),
    "inputs passed on": (lambda y, x: {"input": x, "linear.weight": y}, ["input_output", "linear.weight_output"]),
}  # fmt: skip


@pytest.mark.extended
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_any_class(kind: str, tmp_path: Path) -> None:
    wrap, names = OUTPUTS[kind]
    model, given = Wrapping(wrap).eval(), torch.randn(5, 4)
    program = compress.export.trace(model, torch.randn(2, 4))
    compress.export.onnx(model, tmp_path / "m.onnx", torch.randn(2, 4), program=program)
    compress.export.pt2(model, tmp_path / "m.pt2", torch.randn(2, 4), program=program)
    inputs, outputs = signature(tmp_path / "m.onnx")
    assert (list(inputs), list(outputs)) == (["input"], names)
    assert all(shape[0] == "batch" for shape in outputs.values())
    found = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": given.numpy()})
    plain = torch.utils._pytree.tree_leaves(torch.export.load(tmp_path / "m.pt2").module()(given))
    for one, other in zip(found, [leaf for leaf in plain if leaf is not None], strict=True):
        np.testing.assert_allclose(one, other.detach(), atol=1e-5)
    assert torch.allclose(torch.from_numpy(found[-1]), model.linear(given).detach(), atol=1e-5) or len(names) > 1


def test_inputs_are_named_as_the_arguments_and_lengths_vary(tmp_path: Path) -> None:
    model = Words().eval()
    example = {"ids": torch.randint(11, (2, 5)), "mask": torch.ones(2, 5), "states": True}
    dynamic = {"ids": {1: "length"}, "mask": {1: "length"}}
    program = compress.export.trace(model, example, dynamic=dynamic)
    compress.export.onnx(model, tmp_path / "m.onnx", example, dynamic=dynamic, program=program)
    compress.export.pt2(model, tmp_path / "m.pt2", example, dynamic=dynamic, program=program)
    assert program.graph_signature.user_inputs == ("ids", "mask")
    inputs, outputs = signature(tmp_path / "m.onnx")
    assert inputs == {"ids": ["batch", "length"], "mask": ["batch", "length"]}
    assert outputs == {"logits": ["batch", 2], "hidden_0": ["batch", "length", 6], "hidden_1": ["batch", "length", 6]}
    for rows, length in ((1, 12), (4, 2)):
        given = {"ids": torch.randint(11, (rows, length)), "mask": torch.rand(rows, length)}
        expected = model(**given)["logits"].detach()
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
        found = session.run(["logits"], {name: tensor.numpy() for name, tensor in given.items()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        read = torch.export.load(tmp_path / "m.pt2").module()(**given)
        np.testing.assert_allclose(read["logits"].detach(), expected, atol=1e-5)


def test_plain_values_become_part_of_the_file(tmp_path: Path) -> None:
    model, ids = Words().eval(), torch.randint(11, (3, 5))
    compress.export.onnx(model, tmp_path / "m.onnx", Inputs((ids,), {"mask": None, "scale": 3.0}))
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"ids": ids.numpy()})
    np.testing.assert_allclose(found, model(ids, scale=3.0)["logits"].detach(), atol=1e-5)


def test_the_batch_may_be_another_dimension(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5)

        def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
            return self.lstm(x, state)

    example = Inputs((torch.randn(6, 2, 4), (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))), batch_dim=1)
    compress.export.onnx(Recurrent(), tmp_path / "m.onnx", example)
    inputs, _ = signature(tmp_path / "m.onnx")
    assert inputs == {"x": [6, "batch", 4], "state_0": [1, "batch", 5], "state_1": [1, "batch", 5]}


@pytest.mark.extended
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype, tmp_path: Path) -> None:
    model, ids = Words(dtype).eval(), torch.randint(11, (3, 5))
    compress.export.pt2(model, tmp_path / "m.pt2", ids)
    assert torch.export.load(tmp_path / "m.pt2").module()(ids)["logits"].dtype == dtype
    if dtype == torch.bfloat16:
        with pytest.raises(UnsupportedModelError, match=r"onnxruntime has no \w+ for bfloat16.*model\.float\(\)"):
            compress.export.onnx(model, tmp_path / "m.onnx", ids)
    else:
        compress.export.onnx(model, tmp_path / "m.onnx", ids)


def test_a_length_that_the_network_fixes_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(UnsupportedModelError, match="for any batch size and length"):
        compress.export.trace(model, {"input": torch.randn(2, 3, 4)}, dynamic={"input": {1: "length"}})


def test_a_network_that_returns_no_tensor() -> None:
    with pytest.raises(UnsupportedModelError, match="returns no tensor"):
        compress.export.trace(Wrapping(lambda y, x: {"loss": 3}), torch.randn(2, 4))


def test_the_trace_leaves_caches_as_they_are() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.tables = nn.Linear(4, 4), {}

        def forward(self, x: Tensor) -> Tensor:
            size = x.shape[-1]
            if size not in self.tables:
                self.tables[size] = torch.linspace(0, 1, size)
            return self.linear(x + self.tables[size])

    model, given = Caching().eval(), torch.randn(3, 4)
    compress.export.trace(model, given)
    assert all(type(table) is Tensor and table.device.type == "cpu" for table in model.tables.values())
    assert torch.equal(model(given), model.linear(given + torch.linspace(0, 1, 4)))
