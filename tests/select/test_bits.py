import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.select.bits import Bits
from compress.select.pruned import Pruned

SHAPES = [(), (0,), (1,), (8,), (3, 5), (2, 3, 4, 5), (0, 4)]


def mask(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(np.asarray(np.random.default_rng(seed).random(shape) > 0.5))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_what_is_read_is_what_was_kept(shape: tuple[int, ...], seed: int) -> None:
    wanted = mask(shape, seed)
    kept = Bits({"a": wanted})
    found = kept["a"]
    assert found.dtype == torch.bool
    assert found.shape == wanted.shape
    assert found.tolist() == wanted.tolist()
    found.logical_not_()  # a tensor of its own
    assert kept["a"].tolist() == wanted.tolist()


def test_in_any_layout() -> None:
    wanted = {"transposed": mask((3, 5)).T, "channels last": mask((2, 3, 4, 5)).to(memory_format=torch.channels_last)}
    found = Bits(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_it_is_a_mapping_and_takes_an_eighth() -> None:
    kept = Bits({"a": mask((800,)), "b": mask((3,))})
    copy = kept.copy()
    del kept["a"]
    kept["c"] = mask((2,))
    assert (list(kept), list(copy), len(copy)) == (["b", "c"], ["a", "b"], 2)
    assert "a" in copy
    assert "a" not in kept
    held = copy._held["a"]
    assert not isinstance(held, Tensor)
    assert held[0].nbytes == 100


def test_copies_of_what_is_pruned_do_not_change_each_other() -> None:
    given = {"w": mask((9,))}
    pruned = Pruned(given)
    copy = pruned.copy()
    copy.keep["w"] = ~given["w"]
    assert torch.equal(pruned.keep["w"], given["w"])
    resumed = Pruned()
    resumed.load_state_dict(copy.state_dict())
    assert torch.equal(resumed.keep["w"], ~given["w"])
    assert type(copy.state_dict()["keep"]) is dict  # torch.load reads it with weights_only=True
