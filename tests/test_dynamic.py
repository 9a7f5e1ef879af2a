"""Names of dimensions that vary: one rule and the same errors, whoever takes them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compress
from compress import Inputs
from compress.dynamic import steps_of
from compress.export.reading_back import read_back
from compress.graph.trace import trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor, pair: list[Tensor] | None = None) -> Tensor:
        hidden = self.words(ids).relu().mean(1)
        result: Tensor = self.head(hidden if pair is None else hidden * pair[0] * pair[1])
        return result


CALLS: dict[str, Callable[[nn.Module, Any, Any, Path], object]] = {
    "trace": lambda model, x, dynamic, folder: trace(model, x, dynamic=dynamic),
    "couplings": lambda model, x, dynamic, folder: compress.couplings(model, x, dynamic=dynamic),
    "slim": lambda model, x, dynamic, folder: compress.slim(model, x, dynamic=dynamic),
    "export.trace": lambda model, x, dynamic, folder: compress.export.trace(model, x, dynamic=dynamic),
    "onnx": lambda model, x, dynamic, folder: compress.export.onnx(model, folder / "m.onnx", x, dynamic=dynamic),
    "pt2": lambda model, x, dynamic, folder: compress.export.pt2(model, folder / "m.pt2", x, dynamic=dynamic),
    "read_back": lambda model, x, dynamic, folder: read_back({folder / "m.pt2": model}, x, dynamic=dynamic),
}

WRONG: dict[str, tuple[Any, str]] = {
    "no names": ("length", "found 'length'; expected names by input and dimension"),
    "a list": ([1], "expected names by input and dimension"),
    "no dimensions": ({"ids": "length"}, "ids: found 'length'; expected names by input and dimension"),
    "no input": ({"input": {1: "length"}}, "no input 'input'; its inputs are ids, pair_0, pair_1"),
    "beyond the shape": ({"ids": {2: "length"}}, r"ids: its shape is \[2, 5\]; found the dimension 2"),
    "no number": ({"ids": {"1": "length"}}, r"ids: its shape is \[2, 5\]; found the dimension '1'"),
    "the batch": ({"pair_1": {0: "rows"}}, "pair_1: dimension 0 counts the samples, and varies anyway"),
    "the batch's name": ({"ids": {1: "batch"}}, "expected a name other than 'batch'"),
    "no name": ({"ids": {1: "a length"}}, "ids: found 'a length'; expected a name"),
    "two sizes": ({"ids": {1: "n"}, "pair_0": {1: "n"}}, "'n' is 5 and 8 in the example; give two names"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_names_have_the_same_errors_everywhere(wrong: str, call: Any, tmp_path: Path) -> None:
    dynamic, match = WRONG[wrong]
    given = Inputs((torch.zeros(2, 5, dtype=torch.long), [torch.ones(2, 8), torch.ones(2, 8)]))
    with pytest.raises(compress.InputError, match=f"^dynamic: .*{match}"):
        call(Net(), given, dynamic, tmp_path)


@pytest.mark.parametrize("call", ["couplings", "slim", "export.trace", "onnx", "pt2"])
def test_inputs_have_the_names_of_the_arguments_everywhere(call: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, ids = Net().eval(), torch.randint(9, (2, 5))
    CALLS[call](model, ids, {"ids": {1: "length"}}, tmp_path)


def test_the_step_of_a_size_is_the_least_that_it_can_grow_by() -> None:
    def runs(sizes: Mapping[str, int]) -> bool:
        return sizes["side"] % 32 == 0 and sizes["patches"] % 14 == 0 and sizes["fixed"] == 5

    sizes = {"length": 7, "side": 64, "patches": 28, "fixed": 5}
    assert steps_of(sizes, runs) == {"length": 1, "side": 32, "patches": 14, "fixed": 1}
