"""A recipe whose texts have any length: the slim network and the files of its run take them all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import compress

MODULE = """
import torch
from torch import nn


class Texts(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.hidden, self.head = nn.Embedding(30, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, ids, mask):
        words = self.words(ids).reshape(ids.shape[0], -1, 8)
        mean = (words * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return self.head(torch.relu(self.hidden(mean)))


def batches(number):
    chance = torch.Generator().manual_seed(number)
    for step in range(number):
        length = 5 + step
        ids = torch.randint(1, 30, (8, length), generator=chance)
        mask = torch.arange(length) < torch.randint(2, length + 1, (8, 1), generator=chance)
        yield {"ids": ids * mask, "mask": mask, "labels": ids[:, 0] % 3}


def loaders(): return [*batches(4)], [*batches(3)]
"""

RECIPE = """
name: texts
model: {factory: "padded_texts:Texts"}
data: {factory: "padded_texts:loaders"}
dynamic: {ids: {1: length}, mask: {1: length}}
task: classify
train: {epochs: 1, optimizer: adamw, lr: 1e-2}
stages:
  - {target: {nodes: "*"}, criterion: norms, sparsity: 0.5, removal: hard}
benchmark: {batch_sizes: [1]}
"""


@pytest.mark.extended
def test_the_files_take_another_length(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "padded_texts.py").write_text(MODULE, encoding="utf-8")
    (recipe := tmp_path / "texts.yaml").write_text(RECIPE, encoding="utf-8")
    import padded_texts  # type: ignore[import-not-found]

    run("train", recipe, "-o", tmp_path / "dense.pt")
    run("apply", recipe, tmp_path / "dense.pt", "-o", tmp_path / "out")
    masked = compress.load(tmp_path / "out" / "checkpoint" / "masked.safetensors", padded_texts.Texts).eval()
    small = compress.load(tmp_path / "out" / "slim.safetensors", padded_texts.Texts).eval()
    program = torch.export.load(tmp_path / "out" / "slim.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "slim.onnx")
    assert session.get_inputs()[0].shape == ["batch", "length"]
    for length in (3, 19):
        ids, mask = torch.randint(1, 30, (4, length)), torch.ones(4, length, dtype=torch.bool)
        (found,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        for output in (small(ids, mask), program(ids=ids, mask=mask), torch.from_numpy(found)):
            torch.testing.assert_close(output, masked(ids, mask), rtol=1e-4, atol=1e-5)
    noted = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert noted["recipe"]["dynamic"] == {"ids": {"1": "length"}, "mask": {"1": "length"}}
    sizes = {name: found["params"] for name, found in noted["models"].items()}
    assert sizes["slim"] < 0.6 * sizes["dense"]
