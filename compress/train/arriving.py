"""A number that Python reads while its device computes something else."""

import torch
from torch import Tensor


class Arriving:
    """A number on its way from its device to Python.

    `tensor.item()` waits for everything that the device has been asked for. This waits only for what it was asked for
    before the number, so that the device has work while Python reads it.
    """

    def __init__(self, value: Tensor) -> None:
        """value: one entry."""
        self._event = event_on(value.device)
        # torch copies into pinned memory, so that the copy waits for nothing.
        self._value = value.detach().to("cpu", non_blocking=self._event is not None)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(value.device))

    def read(self) -> float:
        if self._event is not None:
            self._event.synchronize()
        return self._value.item()


def event_on(device: torch.device) -> torch.cuda.Event | None:
    """What tells when a copy has arrived; None where copies have arrived when they are asked for."""
    return torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
