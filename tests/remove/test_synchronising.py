"""What a pruner makes Python wait for on an accelerator: nothing in a step; a selection, a bounded number of times."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from compress.remove.decay import CURVES
from compress.remove.pruner import Pruner
from compress.remove.removals import REMOVALS, SFP, SRFP, Gradual, GradualSoft, GReg, Hard, Removal, Soft
from compress.select.choose import choose
from compress.select.pattern import Pattern
from compress.select.scores import PIECE, Scores
from compress.select.targets import nodes, weights
from compress.shards import Reducer, gathered
from tests.simulated_device import NAME, SimulatedDevice

STEPS, EVERY = 7, 3

# The removal, and the steps at which it selects; its first selection is that of the start.
WAYS: dict[str, tuple[Callable[[], Removal], set[int]]] = {
    "hard": (Hard, set()),
    **{curve: (lambda curve=curve: Soft(STEPS, curve), set()) for curve in CURVES},
    "a factor": (lambda: Soft(factor=0.1), set()),
    "your own curve": (lambda: Soft(STEPS, lambda progress: (1 - progress) ** 2), set()),
    "soft, learning": (lambda: Soft(STEPS, learns=True), set()),
    "gradual": (lambda: Gradual(STEPS, EVERY), {3, 6, STEPS}),
    "gradual soft": (lambda: GradualSoft(STEPS, EVERY, 2), {3, 5, STEPS}),
    "sfp": (lambda: SFP(STEPS, EVERY), {3, 6, STEPS}),
    "srfp": (lambda: SRFP(STEPS, EVERY), {3, 6, STEPS}),
    "greg": (lambda: GReg(STEPS), set()),
}

TARGETS = {
    "weights": lambda: {"targets": weights("*"), "sparsity": 0.5},
    "weights of each layer": lambda: {"targets": weights("*"), "sparsity": 0.5, "scope": "layer"},
    "2:4": lambda: {"targets": weights("0.weight", "3.weight"), "scope": Pattern(2, 4)},
    "nodes": lambda: {"targets": nodes("0"), "sparsity": 0.5},
    "unmasked gradients": lambda: {"targets": weights("*"), "sparsity": 0.5, "mask_gradients": False},
}


def test_every_removal_is_here():
    assert {type(make()) for make, _ in WAYS.values()} == set(REMOVALS)


@pytest.fixture
def device() -> Iterator[SimulatedDevice]:
    with SimulatedDevice() as device:
        yield device


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).to(dtype)


def batch(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(6, 4, 4, 4).to(device, dtype), torch.randint(4, (6,)).to(device)


def steps(
    model: nn.Module, pruner: Pruner, given: Tensor, labels: Tensor, step: Callable[[int], None]
) -> dict[str, Tensor]:
    """Train beyond the removal, with `step` in the place of the pruner's; the final weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for number in range(1, STEPS + 3):
        F.cross_entropy(model(given), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        step(number)
    pruner.finalize()
    return model.state_dict()


@pytest.mark.parametrize(
    ("way", "target", "dtype"),
    [
        *((way, "weights", torch.float32) for way in WAYS),
        *(
            pytest.param(way, target, dtype, marks=pytest.mark.extended)
            for target in TARGETS
            for way in ("hard", "exponential", "soft, learning", "gradual soft", "srfp")
            for dtype in (torch.float32, torch.bfloat16)
            if (target, dtype) != ("weights", torch.float32)
        ),
    ],
    ids=str,
)
def test_a_step_waits_only_where_it_selects(device, way, target, dtype):
    """And it gives the bits of the CPU."""
    make, selecting = WAYS[way]
    given, labels = batch(dtype, "cpu")
    found = {}
    for where in ("cpu", NAME):
        model = network(dtype).to(where)
        pruner = Pruner(model, removal=make(), example=given.to(where), **TARGETS[target]())

        def step(number: int, where: str = where, pruner: Pruner = pruner) -> None:
            if where == NAME and number not in selecting:
                with device.without_waiting():
                    pruner.step()
                return
            device.waits.clear()
            pruner.step()
            assert (where == NAME) == bool(device.waits)

        found[where] = steps(model, pruner, given.to(where), labels.to(where), step)
    for name, value in found["cpu"].items():
        assert torch.equal(value, found[NAME][name].cpu()), name


# What a selection waits for, at most: for each tensor, if it fits into one piece, and once.
WAITS = {
    ("weights", torch.float32): (10, 3),
    ("weights", torch.bfloat16): (8, 2),
    ("2:4", torch.float32): (5, 0),
    ("nodes", torch.float32): (8, 1),
}


@pytest.mark.parametrize(("target", "dtype"), WAITS, ids=str)
def test_a_selection_waits_so_often_for_each_tensor(device, target, dtype):
    """As docs/gpu.md says; the first complete one counts most, since it also samples the histograms of the results."""
    each, once = WAITS[target, dtype]
    for layers in (3, 6):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(60, 60) for _ in range(layers + 1))).to(NAME, dtype)
        example = torch.randn(2, 60).to(NAME, dtype)
        others = {"exclude": f"{layers}.weight"}
        targets = {
            "weights": {"targets": weights("*.weight", **others), "sparsity": 0.5},
            "2:4": {"targets": weights("*.weight", **others), "scope": Pattern(2, 4)},
            "nodes": {"targets": nodes("*", exclude=str(layers)), "sparsity": 0.5},
        }
        device.waits.clear()
        Pruner(model, removal=Soft(3), example=example, **targets[target]).hold()
        assert layers <= device.waits.total() <= each * layers + once


def test_large_tensors_are_read_in_large_pieces_on_a_device(device):
    """The same masks, in fewer pieces than the cache of a processor takes."""
    scores = torch.rand(3 * PIECE + 5)
    there = scores.to(NAME)
    assert len(list(Scores.of(scores).pieces())) == 4
    assert len(list(Scores.of(there).pieces())) == 1
    (one,), (other,) = choose([scores], 0.3), choose([there], 0.3)
    assert torch.equal(one, other.cpu())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[dist.device_mesh.DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_processes_do_not_ask_each_other_in_each_step_whether_masks_decay(alone, monkeypatch):
    """Weights that learn under one decaying mask know its value; they are those of a network that is not sharded."""
    asked = []
    largest = Reducer.largest
    monkeypatch.setattr(Reducer, "largest", lambda self, values: asked.append(values) or largest(self, values))
    found, given = {}, torch.randn(6, 8)
    for sharded in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
        if sharded:
            fully_shard(model, mesh=alone)
        pruner = Pruner(model, "*.weight", sparsity=0.5, removal=Soft(STEPS, "linear", learns=True))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
        asked.clear()
        for _ in range(STEPS - 1):
            model(given).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
        # Before the first step, where the masks have no common value yet: once for each of both weights.
        assert len(asked) == (2 if sharded else 0)
        pruner.step()
        pruner.finalize()
        found[sharded] = [gathered(parameter.detach()) for parameter in model.parameters()]
    for one, other in zip(found[False], found[True], strict=True):
        assert torch.equal(one, other)
