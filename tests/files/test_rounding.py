import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights, write_weights
from compress.files.rounding import restored, rounded

TimesRefused = Callable[[Path, int], int]


def drawn(*shape: int, dtype: torch.dtype = torch.float32, zeros: float = 0.9) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=chance) * torch.logspace(-3, 3, shape[0]).view(-1, *(1 for _ in shape[1:]))
    return torch.where(torch.rand(shape, generator=chance) < zeros, 0.0, values).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_row_has_the_scale_of_its_largest_entry(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": drawn(30, 20, 3, dtype=dtype), "b": drawn(64, dtype=dtype), "c": torch.arange(400).view(20, 20)}
    write_weights(tensors, tmp_path / "a.safetensors", {"note": "kept"}, sparse=True, int8=tensors)
    found = read_weights(tmp_path / "a.safetensors")
    assert found.metadata == {"note": "kept"}
    assert torch.equal(found.sets[""]["b"], tensors["b"])
    assert torch.equal(found.sets[""]["c"], tensors["c"])
    rows = tensors["a"].double().flatten(1).numpy()
    scales = np.float32(np.abs(rows).max(1, keepdims=True) / 127)
    wanted = (np.round(rows / scales).astype(np.int8) * scales).reshape(30, 20, 3)
    assert found.sets[""]["a"].dtype == dtype
    assert torch.equal(found.sets[""]["a"], torch.from_numpy(wanted).to(dtype))


def test_rounding_twice_changes_nothing_more() -> None:
    once = restored(*rounded({"a": drawn(20, 50)}, "a"), sys.maxsize, "")
    twice = restored(*rounded(once, "a"), sys.maxsize, "")
    torch.testing.assert_close(twice["a"], once["a"], rtol=1e-6, atol=0)


def test_what_is_not_rounded() -> None:
    """Entries that no scale fits, tensors that would not be smaller, and those whose scales would have a taken name."""
    tensors = {
        "nan": torch.full((40, 40), math.nan),
        "inf": torch.full((40, 40), math.inf),
        "huge": torch.full((40, 40), 1e300, dtype=torch.float64),
        "empty": torch.empty(0, 5),
        "small": torch.ones(3, 3),
        "column": torch.ones(900, 1),
        "taken": torch.ones(40, 40),
        "taken:scales": torch.ones(2),
    }
    found, text = rounded(tensors, tensors)
    assert json.loads(text)["tensors"] == {}
    assert all(found[name] is tensor for name, tensor in tensors.items())


def test_rows_of_zeros_remain_zeros() -> None:
    tensor = torch.cat([torch.zeros(20, 50), torch.full((20, 50), 1e-44)])
    assert torch.equal(restored(*rounded({"a": tensor}, "a"), sys.maxsize, "")["a"], torch.zeros(40, 50))


def test_sparse_and_rounded_takes_two_bytes_for_a_weight(tmp_path: Path) -> None:
    tensor = drawn(300, 800, zeros=0.96)
    write_weights({"a": tensor}, tmp_path / "a.safetensors", sparse=True, int8=["a"])
    size, nonzero = (tmp_path / "a.safetensors").stat().st_size, int(tensor.count_nonzero())
    assert size < 2 * nonzero + 4 * 300 + 600


def broken(text: str = "", **entries: Tensor) -> tuple[dict[str, Tensor], str]:
    found, described = rounded({"a": drawn(40, 50)}, "a")
    return {**found, **{name.replace("_", ":"): tensor for name, tensor in entries.items()}}, text or described


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        broken("{"),
        broken("3"),
        broken('{"version": 1}'),
        broken('{"version": 1, "tensors": {"a": "int8"}}'),
        broken('{"version": 1, "tensors": {"a": 3}}'),
        broken('{"version": 1, "tensors": {"b": "float32"}}'),
        broken('{"version": 2, "tensors": {"a": "float32"}}'),
        broken("[" * 100_000),
        broken(a=torch.ones(40, 50)),
        broken(a=torch.ones(40, dtype=torch.int8)),
        broken(a_scales=torch.ones(39)),
        broken(a_scales=torch.ones(40, dtype=torch.float64)),
    ],
)
def test_what_contradicts_itself_is_refused(entries: dict[str, Tensor], text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^x is damaged: "):
        restored(entries, text, sys.maxsize, "x is damaged")


def test_a_file_cannot_claim_any_amount_of_memory() -> None:
    with pytest.raises(CheckpointError, match="its rounded weights claim 8,000 bytes"):
        restored(*rounded({"a": drawn(40, 50)}, "a"), 7_999, "x is damaged")


def test_nearly_nothing_but_zeros_stays_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps of zeros take so little room that no reader would believe what they claim; then the file has bits."""
    monkeypatch.setattr("compress.files.packing._ROOM", 0)
    tensor = torch.zeros(1000, 500)
    tensor[3, 5] = 7.0
    write_weights({"a": tensor}, tmp_path / "a.safetensors", sparse=True, int8=["a"])
    assert torch.equal(read_weights(tmp_path / "a.safetensors").sets[""]["a"], tensor)


def test_damaged_files_end_in_one_error(tmp_path: Path, times_refused: TimesRefused) -> None:
    write_weights({"a": drawn(40, 50), "b": drawn(60)}, tmp_path / "a.safetensors", sparse=True, int8=["a"])
    assert times_refused(tmp_path / "a.safetensors", 200) > 60
