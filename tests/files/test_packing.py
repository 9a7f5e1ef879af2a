import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights, write_weights
from compress.files.packing import KEY, packed, unpacked

TimesRefused = Callable[[Path, int], int]

DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool),
    *(torch.complex64, torch.float8_e4m3fn),
)


def with_zeros(shape: tuple[int, ...], share: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=chance) >= share
    values = 50 * torch.randn(shape, generator=chance)
    return torch.where(kept, values, 0.0).to(dtype)  # a product with 0.0 may be -0.0


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.6, 0.9, 0.999, 1.0])
def test_every_type_comes_back_to_the_last_bit(tmp_path: Path, dtype: torch.dtype, share: float) -> None:
    tensors = {"a": with_zeros((70, 9, 11), share, dtype), "b": with_zeros((), 0.0, dtype), "c": torch.empty(0, 4)}
    write_weights(tensors, tmp_path / "a.safetensors", {"note": "kept"}, sparse=True)
    found = read_weights(tmp_path / "a.safetensors")
    assert found.metadata == {"note": "kept"}
    for name, tensor in tensors.items():
        assert found.sets[""][name].dtype == tensor.dtype
        assert found.sets[""][name].shape == tensor.shape
        assert bytes_of(found.sets[""][name]) == bytes_of(tensor)


def test_minus_zero_and_nan_are_values(tmp_path: Path) -> None:
    tensor = with_zeros((500,), 0.95)
    tensor[3], tensor[77], tensor[499] = -0.0, math.nan, -math.inf
    found = round_trip({"a": tensor})["a"]
    assert bytes_of(found) == bytes_of(tensor)


def round_trip(tensors: dict[str, Tensor], size: int = 10**6) -> dict[str, Tensor]:
    return unpacked(*packed(tensors), size, "the file is damaged")


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(-9, 9)), max_size=40), st.integers(0, 700), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_gaps(gaps: list[tuple[int, int]], last: int, wide: bool) -> None:
    values = [value for zeros, nonzero in gaps for value in [0] * zeros + [nonzero]] + [0] * last
    tensor = torch.tensor(values, dtype=torch.float64 if wide else torch.float32)
    assert torch.equal(round_trip({"a": tensor})["a"], tensor)


@pytest.mark.parametrize(("share", "times"), [(0.5, 1.7), (0.9, 7.0), (0.95, 14.0), (0.99, 60.0)])
def test_how_small_it_is(tmp_path: Path, share: float, times: float) -> None:
    tensors = {"a": with_zeros((400, 500), share), "b": with_zeros((64, 16, 3, 3), share)}
    for name, sparse in (("dense", False), ("sparse", True)):
        write_weights(tensors, tmp_path / f"{name}.safetensors", sparse=sparse)
    dense, small = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("dense", "sparse"))
    assert dense > times * small


def test_the_smaller_code_is_taken() -> None:
    _, text = packed({"half": with_zeros((100, 100), 0.5), "few": with_zeros((100, 100), 0.97), "no": torch.ones(9)})
    codes = {name: entry[0] for name, entry in json.loads(text)["tensors"].items()}
    assert codes == {"half": "bitmask", "few": "gaps"}


def test_names_that_look_like_places() -> None:
    tensors = {"a": with_zeros((100, 100), 0.9), "a:places": torch.ones(3)}
    found = round_trip(tensors)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_nearly_nothing_but_zeros_stays_readable() -> None:
    """A terabyte of zeros in a megabyte is what an attack looks like; so a file never claims that much."""
    tensors = {"a": torch.zeros(2**20)}
    entries, text = packed(tensors)
    assert json.loads(text)["tensors"]["a"][0] == "gaps"
    assert sum(entry.nbytes for entry in entries.values()) < 5000
    huge = json.dumps({"version": 1, "tensors": {"a": ["gaps", [2**45]]}})
    with pytest.raises(CheckpointError, match="its tensors claim"):
        unpacked(entries, huge, 5000, "x is damaged")


def broken(text: str = "", **entries: object) -> tuple[dict[str, Tensor], str]:
    found, described = packed({"a": with_zeros((100, 100), 0.9)})
    return {**found, **{k.replace("_", ":"): v for k, v in entries.items()}}, text or described  # type: ignore[dict-item]


BITS = torch.zeros(1250, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        broken("{"),
        broken("[]"),
        broken("3"),
        broken('{"version": 1}'),
        broken('{"version": 1, "tensors": 3}'),
        broken('{"version": 1, "tensors": {"a": 3}}'),
        broken('{"version": 1, "tensors": {"a": ["rle", [10000]]}}'),
        broken('{"version": 1, "tensors": {"a": [["gaps"], [10000]]}}'),
        broken('{"version": 1, "tensors": {"a": ["gaps", [-5, -2000]]}}'),
        broken('{"version": 1, "tensors": {"a": ["gaps", [100, 99]]}}'),
        broken('{"version": 1, "tensors": {"a": ["gaps", [100, 101]]}}'),
        broken('{"version": 1, "tensors": {"a": ["gaps", [true, 10000]]}}'),
        broken('{"version": 1, "tensors": {"a": ["gaps", [1e4]]}}'),
        broken('{"version": 1, "tensors": {"a": ["gaps", [4294967296, 4294967296, 0]]}}'),
        broken('{"version": 1, "tensors": {"a": ["bitmask", [100, 100]]}}'),
        broken('{"version": 1, "tensors": {"b": ["gaps", [100, 100]]}}'),
        broken('{"version": 2, "tensors": {"a": ["gaps", [100, 100]]}}'),
        broken("[" * 100_000),
        broken(a=torch.ones(3)),
        broken(a=torch.ones(40, 25)),
        broken(a=torch.ones(1000, dtype=torch.complex128)),
        broken(a_places=torch.ones(3, dtype=torch.float32)),
        broken(a_places=torch.zeros(0, dtype=torch.uint8)),
        broken(a_places=torch.full((40,), 255, dtype=torch.uint8)),
        broken(a_places=torch.full((3, 3), 5, dtype=torch.uint8)),
        broken('{"version": 1, "tensors": {"a": ["bitmask", [100, 100]]}}', a_places=BITS),
        broken('{"version": 1, "tensors": {"a": ["bitmask", [100, 100]]}}', a_places=BITS[1:]),
        broken('{"version": 1, "tensors": {"a": ["bitmask", [9999]]}}', a_places=~BITS),
    ],
)
def test_what_contradicts_itself_is_refused(entries: dict[str, Tensor], text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^x is damaged: "):
        unpacked(entries, text, 10**6, "x is damaged")


def test_damaged_files_end_in_one_error(tmp_path: Path, times_refused: TimesRefused) -> None:
    write_weights(
        {"a": with_zeros((40, 50), 0.9), "b": with_zeros((60,), 0.3)}, tmp_path / "a.safetensors", sparse=True
    )
    assert times_refused(tmp_path / "a.safetensors", 300) > 100


def test_metadata_of_others_is_left_alone(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "a.safetensors", {"sparse": "{}", "format": "pt"})
    assert read_weights(tmp_path / "a.safetensors").metadata == {"sparse": "{}", "format": "pt"}
    assert "." in KEY
