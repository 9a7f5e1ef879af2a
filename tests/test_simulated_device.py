"""The simulated device computes as the CPU, and waits where CUDA would; torch's fake CUDA tensors are the truth."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from tests.simulated_device import COPY, NAME, DeviceMismatchError, SimulatedDevice, WaitedError

WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "bool": lambda x: bool((x > 0).any()),
    "if": lambda x: 1 if (x > 0).all() else 2,
    "nonzero": lambda x: x.nonzero(),
    "count of nonzero": lambda x: int(x.count_nonzero()),
    "masked_select": lambda x: x.masked_select(x > 0),
    "index of bools": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "equal": lambda x: torch.equal(x, x + 1),
    "allclose": lambda x: torch.allclose(x, x + 1),
    "bincount": lambda x: x.abs().long().flatten().bincount(),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones_like(x[0]).long(), dim=1),
}
"""Each is an operator that needs a number or a shape in Python."""

LEAVING: dict[str, Callable[[Tensor], object]] = {
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to another type": lambda x: x.to("cpu", torch.float64),
    "copy_": lambda x: torch.zeros(3, 4).copy_(x),
    "copy_ to the device": lambda x: x.copy_(torch.zeros(3, 4)),
    "to the device": lambda x: torch.zeros(3).to(x.device),
    "index of the CPU": lambda x: x[torch.tensor([0, 1])],
}

GOING_ON: dict[str, Callable[[Tensor], object]] = {
    "sum": lambda x: x.sum(),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill_": lambda x: x.masked_fill_(x > 0, 0.5),
    "index of numbers": lambda x: x[torch.zeros_like(x[0]).long().clamp(max=2)],
    "sort": lambda x: x.sort(),
    "topk": lambda x: x.topk(2),
    "a factor of the CPU": lambda x: x * torch.tensor(2.0),
    "a new tensor": lambda x: x + x.new_zeros(3, 4),
    "to the CPU, without blocking": lambda x: x.to("cpu", non_blocking=True),
    "to the device, without blocking": lambda x: torch.zeros(3).to(x.device, non_blocking=True),
}


@pytest.fixture
def device():
    with SimulatedDevice() as device:
        yield device


@pytest.fixture
def x(device):
    found = torch.randn(3, 4).to(NAME)
    device.waits.clear()
    return found


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_is_what_fake_tensors_of_cuda_refuse(device, x, what):
    with FakeTensorMode():
        fake = torch.empty(3, 4, device="cuda")
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            WAITING[what](fake)
    with device.without_waiting(), pytest.raises(WaitedError):
        WAITING[what](x)


@pytest.mark.parametrize("what", LEAVING)
def test_copies_between_devices_wait(device, x, what):
    LEAVING[what](x)
    assert device.waits == {COPY: 1}
    with device.without_waiting(), pytest.raises(WaitedError, match=COPY):
        LEAVING[what](x)


@pytest.mark.parametrize("what", GOING_ON)
def test_the_rest_does_not_wait(device, x, what):
    with device.without_waiting():
        GOING_ON[what](x)
    assert not device.waits


def test_values_are_those_of_the_cpu(device, x):
    plain = x.cpu()
    for what in ("index of bools", "nonzero", "unique"):
        assert torch.equal(WAITING[what](x).cpu(), WAITING[what](plain))
    assert WAITING["tolist"](x) == plain.tolist()


def test_tensors_of_both_devices_are_refused(x):
    with pytest.raises(DeviceMismatchError):
        x + torch.zeros(3, 4)
    with pytest.raises(RuntimeError, match="outside of"), torch.utils._python_dispatch._disable_current_modes():
        x + x


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_training_there_gives_the_bits_of_training_here(device, optimizer):
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].to(NAME)
    inputs, labels = torch.randn(5, 1, 4, 4), torch.randint(4, (5,))
    for model in models:
        there = next(model.parameters()).device
        steps = optimizer(model.parameters(), lr=0.1)
        given, target = inputs.to(there), labels.to(there)
        for _ in range(3):
            with device.without_waiting():
                F.cross_entropy(model(given), target).backward()
                steps.step()
                steps.zero_grad()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert other.device.type == NAME
        assert torch.equal(one, other.cpu())
