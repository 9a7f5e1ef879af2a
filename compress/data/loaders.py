"""A user's own loaders as a data set."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from compress.batches import Batches, Subset
from compress.errors import DataError
from compress.models import call_factory
from compress.tasks import Task


@dataclass(frozen=True, eq=False)
class Loaders:
    """A user's own loaders as `compress.data.dataset.TrainingData`: they decide batch size, order and targets.

    A DataLoader with `shuffle=True` draws its order from torch's global generator, so a run repeats itself under
    the same `torch.manual_seed`.
    """

    name: str
    train: Iterable[Any]
    test: Iterable[Any]
    shape: tuple[int, ...]
    classes: int | None = None
    sha256: str | None = None
    note: str | None = "These are the user's own loaders: their content is not hashed, and they decide the order."

    def count(self, subset: Subset) -> int | None:
        dataset = getattr(self._loader(subset), "dataset", None)
        return len(dataset) if isinstance(dataset, Sized) else None

    def batches(self, subset: Subset, size: int, task: Task, device: torch.device | str = "cpu") -> Batches:
        """The loader's batches, moved to `device`; the loader decides `size` and `task`.

        A batch with NaN or infinities raises DataError when it is reached.
        """
        return _LoaderBatches(self._loader(subset), torch.device(device), f"{self.name}: the {subset} loader's")

    def _loader(self, subset: Subset) -> Iterable[Any]:
        return self.train if subset == "train" else self.test


@dataclass(frozen=True, eq=False)
class _LoaderBatches:
    loader: Any
    device: torch.device
    name: str

    def __len__(self) -> int:
        return len(self.loader)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        batches = enumerate(self.loader)
        for _ in islice(batches, skip):
            pass  # a loader can skip its first batches only by reading them
        return (self._checked(number, *batch) for number, batch in batches)

    def _checked(self, number: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        for what, tensor in (("inputs", inputs), ("targets", targets)):
            if not tensor.isfinite().all():
                # Raised here: later it would look as if the training had diverged.
                raise DataError(f"{self.name} batch {number} has NaN or infinite {what}; mend or leave them out.")
        return inputs.to(self.device), targets.to(self.device)


def from_loaders(loaders: object, name: str = "loaders") -> Loaders:
    """Wrap a pair (train_loader, test_loader), each with a length and giving batches (input, target) of tensors.

    The first batch of the training loader is read for its shape. Raises DataError for anything else.
    """
    if not isinstance(loaders, tuple | list) or len(loaders) != 2:
        raise DataError(f"{name} gave {type(loaders).__name__}; it must give the pair (train_loader, test_loader).")
    for loader in loaders:
        try:
            length = len(loader)
        except TypeError as error:
            raise DataError(f"{name}: {type(loader).__name__} has no length; give a DataLoader or a list.") from error
        if not length:
            raise DataError(f"{name}: a loader has no batch.")
    match next(iter(loaders[0])):
        case [Tensor() as inputs, Tensor()]:
            return Loaders(name, loaders[0], loaders[1], tuple(inputs.shape[1:]))
        case other:
            raise DataError(f"{name}: a batch is {type(other).__name__}; it must be a pair of tensors (input, target).")


def from_factory(spec: str, args: Mapping[str, Any] | None = None) -> Loaders:
    """`from_loaders` of what the user's function `spec` "my_module:loaders" returns; it raises InputError too."""
    return from_loaders(call_factory(spec, args), spec)
