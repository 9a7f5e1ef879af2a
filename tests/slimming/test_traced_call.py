"""The call of a traced graph survives its file; damaged entries are refused."""

import pytest
import torch

from compress.errors import CheckpointError
from compress.inputs import Inputs
from compress.slimming.traced_call import call_of, entries_of

IDS, MASK = torch.zeros(3, 6, dtype=torch.int64), torch.zeros(3, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("given", "varying"),
    [
        (Inputs((torch.zeros(3, 1, 8, 8),)), [{}]),
        (Inputs((IDS,)), [{1: "length"}]),
        (
            Inputs((IDS,), {"mask": MASK, "use_cache": False, "scale": 0.5, "none": None, "word": "a=b:c"}),
            [{1: "l"}, {1: "l"}],
        ),
        (Inputs(([IDS, MASK], {"a": IDS, "b": [MASK]})), [{}, {}, {}, {}]),
        (Inputs((torch.zeros(6, 3), torch.zeros(())), {}, 1), [{0: "length"}, {}]),
    ],
)
def test_there_and_back(given, varying):
    entries = list(entries_of(given, varying))
    call, found = call_of(entries)
    assert found == varying
    assert call.batch_dim == given.batch_dim
    assert call.rows == 2
    for one, other in zip(call.tensors, given.tensors, strict=True):
        place = given.batch_dim_of(other)
        assert one.dtype == other.dtype
        assert [size for dim, size in enumerate(one.shape) if dim != place] == [
            size for dim, size in enumerate(other.shape) if dim != place
        ]
    plain = {key: value for key, value in given.kwargs.items() if not isinstance(value, torch.Tensor)}
    assert {key: call.kwargs[key] for key in plain} == plain
    assert list(entries_of(call, found)) == entries


def test_a_single_tensor_is_written_as_ever():
    assert list(entries_of(Inputs((torch.zeros(7, 4),)), [{}])) == [("float32", 0, 2), ("float32", 1, 4)]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [("use_cache=false", 0, 1)],
        [("device", 0, 2)],
        [("float32", 1, 2)],
        [("float32", 0, 2), ("float32", 0, 2)],
        [("float32", 0, 0)],
        [("float32", 0, 2**40)],
        [("float32", dim, 1) for dim in range(17)],
        [("ids:int64", 0, 2), ("ids:int32", 1, 2)],
        [("ids:int64:a:b", 0, 2)],
        [("ids=[1]", 0, 1), ("float32", 0, 2)],
        [("ids={", 0, 1), ("float32", 0, 2)],
        [("a:int64", 0, 2), ("a.b:int64", 0, 2)],
        [(f"{'a.' * 50}b:int64", 0, 2)],
        [(f"a{number}:int64", 0, 2) for number in range(200)],
    ],
)
def test_damaged_entries_are_refused(entries):
    with pytest.raises(CheckpointError):
        call_of(entries)
