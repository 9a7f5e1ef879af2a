"""Modes that see each operator: torch's compiler is imported by nobody else, and left out of them where it is there."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch

from compress.graph.eager_mode import EagerMode

SLIM = """
import sys
import torch
from torch import nn
import compress
from compress.graph.stats import measure

model, example = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), torch.ones(2, 8)
compress.Pruner(
    model, compress.nodes("*"), sparsity=0.5, example=example, removal=compress.Hard(), criterion="norms"
).finalize()
assert compress.slim(model, example)[0].out_features == 3
assert measure(model, example).macs == 8 * 6 + 6 * 3
print(sorted(name for name in ("torch._dynamo", "sympy") if name in sys.modules))
"""


class Count(EagerMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_choosing_cutting_proving_and_counting_do_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SLIM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("compiler", [False, True])
def test_every_operator_is_seen_with_and_without_the_compiler(compiler: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler:
        importlib.import_module("torch._dynamo")
    else:
        monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with Count() as mode:
        result = torch.ones(2) + torch.ones(2)
    assert mode.seen == ["aten::ones", "aten::ones", "aten::add"]
    assert result.tolist() == [2.0, 2.0]
