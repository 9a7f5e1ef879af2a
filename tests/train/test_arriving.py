"""The loss of a step is read while the backward pass runs, and nothing else of a step is waited for."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import DivergedError
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft
from compress.train import arriving
from compress.train.arriving import Arriving
from compress.train.loop import train
from compress.train.optimization import Optimization
from tests.simulated_device import COPY, NAME, SimulatedDevice

INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])


class Batches:
    """Batches of 8 on a device, copied there without blocking, as those of `compress.data` are."""

    def __init__(self, device: str, inputs: Tensor = INPUTS) -> None:
        self.device, self.inputs = device, inputs

    def __len__(self) -> int:
        return 5

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(40, generator=generator).split(8)[skip:]:
            yield tuple(part[rows].to(self.device, non_blocking=True) for part in (self.inputs, TARGETS))


class Event:
    """In place of that of CUDA: it notes when it is waited for."""

    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def record(self, stream: object) -> None:
        self.noted.append("copied")

    def synchronize(self) -> None:
        self.noted.append("read")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a step does, in its order, with an event on the simulated device."""
    found: list[str] = []
    monkeypatch.setattr(arriving, "event_on", lambda device: Event(found) if device.type == NAME else None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    # Fused updates are for devices that have kernels for them, and give other last bits.
    monkeypatch.setattr("compress.train.loop.optimizers", lambda model, settings: [Noting(model, found)])
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # there is none for this device
    backward = Tensor.backward

    def noting(tensor: Tensor) -> None:
        backward(tensor)
        found.append("backward")

    monkeypatch.setattr(Tensor, "backward", noting)
    return found


class Noting(torch.optim.SGD):
    def __init__(self, model: nn.Module, noted: list[str]) -> None:
        super().__init__(model.parameters(), lr=0.05, momentum=0.9)
        self.noted = noted

    def step(self) -> None:  # type: ignore[override]
        super().step()
        self.noted.append("step")


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def test_a_step_of_the_loop_waits_for_its_loss_alone_and_after_the_backward_pass(noted: list[str]) -> None:
    """Pruning included, and with the bits of a run on the CPU."""
    found = {}
    with SimulatedDevice() as device:
        for where in ("cpu", NAME):
            model = network().to(where)
            pruner = Pruner(model, sparsity=0.5, removal=Soft(6))
            device.waits.clear()
            noted.clear()
            waits: list[dict[str, int]] = []

            def on_step(step: int, loss: float, lr: float, rows: int, waits: list[dict[str, int]] = waits) -> None:
                waits.append(dict(device.waits))
                device.waits.clear()

            record = train(
                model,
                Batches(where),
                F.mse_loss,
                12,
                Optimization("sgd", 0.05),
                generator=torch.Generator().manual_seed(0),
                after_step=lambda step, pruner=pruner: pruner.step(),
                on_step=on_step,
            )
            if where == NAME:
                assert noted == ["copied", "backward", "read", "step"] * 12
                # What is saved of the beginning, and at the start of each epoch, to return to if the training diverges.
                starts = [step for step, seen in enumerate(waits) if seen]
                assert set(starts) <= {0, 5, 10}
                assert all(seen.keys() <= {COPY} for seen in waits)
            pruner.finalize()
            found[where] = [record.losses, *(value.cpu() for value in model.state_dict().values())]
    assert found["cpu"][0] == found[NAME][0]
    assert all(torch.equal(one, other) for one, other in zip(found["cpu"][1:], found[NAME][1:], strict=True))


def test_a_loss_that_is_not_finite_leaves_weights_and_gradients_as_they_were() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DivergedError, match=r"at step 1 of 3, where the inputs of the batch are not finite"):
        train(
            model,
            Batches("cpu", INPUTS * torch.inf),
            F.mse_loss,
            3,
            Optimization("sgd", 0.05),
            generator=torch.Generator().manual_seed(0),
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_is_the_number_of_the_tensor() -> None:
    value = torch.tensor(0.1, requires_grad=True) * 3
    assert Arriving(value).read() == value.item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_is_the_number_of_a_tensor_of_cuda() -> None:
    values = torch.arange(5.0, device="cuda") / 7
    numbers = [Arriving(value) for value in values]
    assert [number.read() for number in numbers] == values.tolist()
