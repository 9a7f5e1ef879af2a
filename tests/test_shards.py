"""Parts of tensors, against what DTensor itself gives each of eight processes that exist in name alone."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from compress.shards import ALONE, Part, Reducer, gathered, like, local, mapped, spread, true_in

PLACEMENTS = [
    ((8,), [Shard(0)]),
    ((8,), [Shard(1)]),
    ((8,), [Replicate()]),
    ((2, 4), [Shard(0), Shard(1)]),
    ((2, 4), [Shard(1), Shard(1)]),
    ((4, 2), [Replicate(), Shard(2)]),
    ((4, 2), [Shard(0), Replicate()]),
]


@pytest.fixture(params=[0, 3, 7])
def rank(request: pytest.FixtureRequest) -> Iterator[int]:
    dist.init_process_group("fake", store=FakeStore(), rank=request.param, world_size=8)
    yield request.param
    dist.destroy_process_group()


@pytest.mark.parametrize(("mesh", "placements"), PLACEMENTS)
@pytest.mark.parametrize("shape", [(9, 5, 2), (1, 3, 4), (16, 8, 8)])
def test_a_part_is_what_the_process_holds(rank: int, mesh: tuple, placements: list, shape: tuple) -> None:
    whole = torch.arange(torch.Size(shape).numel()).view(shape).double()
    tensor = distribute_tensor(whole, init_device_mesh("cpu", mesh), placements, src_data_rank=None)
    part, here = Part.of(tensor), local(tensor)
    assert part.local_shape == tuple(here.shape)
    assert part.is_sorted
    assert torch.equal(part.taken_from(whole), here)
    flat = torch.arange(here.numel())
    assert torch.equal(part.positions(flat).double(), here.flatten())  # each entry is its own position
    doubled = mapped(torch.mul, tensor, spread(torch.full(shape, 2.0).double(), tensor))
    assert doubled.shape == whole.shape
    assert torch.equal(local(doubled), 2 * here)
    replicas = [axis for axis, placement in enumerate(placements) if placement.is_replicate()]
    first = all(tensor.device_mesh.get_coordinate()[axis] == 0 for axis in replicas)
    assert Reducer.of([tensor]).counts(tensor) == first


def test_alone_nothing_changes() -> None:
    tensor, mask = torch.randn(3, 4), torch.tensor([True, False, True])
    assert local(tensor) is gathered(tensor) is spread(tensor, tensor) is like(tensor, tensor) is tensor
    assert Reducer.of([tensor]) is ALONE
    assert ALONE.add(tensor) is ALONE.largest(tensor) is tensor
    assert ALONE.differing("anything") is None
    assert ALONE.counts(tensor)
    assert true_in([mask, mask[:2]]) == [2, 1]
    assert Part.of(tensor).local_shape == (3, 4)
