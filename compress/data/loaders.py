"""A user's own loaders as a data set."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from compress import worker_signals
from compress.batches import LABELS, Attributed, Batches, Subset, pair_of, tensors_of_target, without_labels
from compress.data.attributes import attribute_of
from compress.errors import DataError, InputError
from compress.inputs import Inputs
from compress.models import call_factory
from compress.tasks import Task, word_of
from compress.tasks.kinds import IGNORED


@dataclass(frozen=True, eq=False)
class Loaders:
    """A user's own loaders as `compress.data.dataset.TrainingData`: they decide batch size, order and targets.

    A DataLoader with `shuffle=True` draws its order from torch's global generator, so a run repeats itself under
    the same `torch.manual_seed`.
    """

    name: str
    train: Iterable[Any]
    test: Iterable[Any]
    example: Inputs  # see `TrainingData`
    validation: Iterable[Any] | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    preparation: None = None  # only their owner knows it
    sha256: str | None = None
    note: str | None = "These are the user's own loaders: their content is not hashed, and they decide the order."

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, of the first tensor that the network is called with."""
        first = self.example.tensors[0]
        along = self.example.batch_dim_of(first)
        return tuple(size for dim, size in enumerate(first.shape) if dim != along)

    def count(self, subset: Subset) -> int | None:
        dataset = getattr(self._part(subset), "dataset", None)
        return len(dataset) if isinstance(dataset, Sized) else None

    @cached_property
    def attributes(self) -> Mapping[str, int]:
        """Of the targets that are `compress.Attributed`: the training loader is read once, for their classes.

        Raises DataError where an attribute is not a whole number from 0 for each sample.
        """
        found: dict[str, int] = {}
        with torch.random.fork_rng([]):
            for number, batch in enumerate(begun(self.train)):
                given, target = pair_of(batch, f"{self.name}: the training loader's batch {number}")
                if not isinstance(target, Attributed):
                    return {}
                for name, classes in target.attributes.items():
                    what = f"{self.name}: the training loader's batch {number}: {name}"
                    values = attribute_of(torch.as_tensor(classes).cpu().numpy(), given.rows, what)
                    found[name] = max(found.get(name, 0), int(values.max()) + 1)
        return found

    def batches(
        self,
        subset: Subset,
        size: int,
        task: Task,
        device: torch.device | str = "cpu",
        *,
        attributes: Sequence[str] = (),
    ) -> Batches:
        """The loader's batches, moved to `device`; the loader decides `size` and the targets of `task`.

        For `language_model`, labels that are the input ids themselves, as networks of transformers take them, are
        shifted: see `next_tokens`. A batch with NaN or infinities raises DataError when it is reached. Raises DataError
        where there is no such loader.
        """
        if (loader := self._part(subset)) is None:
            raise DataError(f"{self.name} has no {subset} loader; let it give (train, validation, test).")
        name, shifts = f"{self.name}: the {subset} loader's", word_of(task) == "language_model"
        return LoaderBatches(loader, torch.device(device), name, shifts, tuple(attributes))

    def held_out(self, share: float) -> "Loaders":
        """The training loader, with the validation loader as the test loader.

        Raises:
            DataError: there is none; `share` of a loader cannot be held out.
        """
        if self.validation is None:
            raise DataError(
                f"{self.name}: a part of a loader cannot be held out to choose settings on; let the function give "
                "three loaders, (train, validation, test), or give the data as files."
            )
        return replace(self, test=self.validation, validation=None)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the first training batch and of all validation and test batches, as far as torch decides them.

        Changes of other training samples are not noticed: most loaders shuffle them, and many augment them.
        """
        found = hashlib.sha256()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            for loader, most in ((self.train, 1), (self.validation, None), (self.test, None)):
                for batch in islice(begun(loader or ()), most):
                    given, target = pair_of(batch)
                    for tensor in (*given.tensors, *tensors_of_target(target)):
                        found.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
                        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def _part(self, subset: Subset) -> Iterable[Any] | None:
        return {"train": self.train, "validation": self.validation, "test": self.test}[subset]


@dataclass(frozen=True, eq=False)
class LoaderBatches:
    """Batches of any accepted form, on a device.

    name: whose they are, for error texts. shifts: whether targets are what `next_tokens` makes of them.
    attributes: those that targets keep beside them.
    """

    loader: Any
    device: torch.device
    name: str
    shifts: bool = False
    attributes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.loader)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Any]:
        batches = enumerate(begun(self.loader))
        for _ in islice(batches, skip):
            pass  # a loader can skip its first batches only by reading them
        return (self._checked(number, batch) for number, batch in batches)

    def _checked(self, number: int, batch: object) -> tuple[Inputs, Any]:
        try:
            given, target = pair_of(batch)
            beside: Mapping[str, Any] = {}
            if isinstance(target, Attributed):
                target, beside = target
            if self.shifts:
                given, target = next_tokens(given, target)
        except InputError as error:
            raise DataError(f"{self.name} batch {number}, {error}") from error
        for what, tensors in (("inputs", given.tensors), ("targets", tensors_of_target(target))):
            # Additive masks, beside other inputs, are made of -inf.
            masks = what == "inputs" and len(tensors) > 1
            if not all(_finite(tensor, masks) for tensor in tensors):
                # Raised here: later it would look as if the training had diverged.
                raise DataError(f"{self.name} batch {number} has NaN or infinite {what}; fix or remove them.")
        target = self._with_attributes(number, target, beside) if self.attributes else target
        return given.mapped(self._moved), tree_map_only(Tensor, self._moved, target)

    def _with_attributes(self, number: int, target: Any, beside: Mapping[str, Any]) -> Attributed:
        if lacking := [name for name in self.attributes if name not in beside]:
            raise DataError(f"{self.name} batch {number} has no attribute {lacking[0]}, which other batches have.")
        return Attributed(target, {name: torch.as_tensor(beside[name]).long() for name in self.attributes})

    def _moved(self, tensor: Tensor) -> Tensor:
        # A loader may give tensors of an accelerator: a copy of these that nobody waits for is not there yet.
        return tensor.to(self.device, non_blocking=self.device.type != "cpu")


def next_tokens(given: Inputs, target: Any) -> tuple[Inputs, Any]:
    """The tokens that follow, for a dict whose `labels` are its `input_ids`, except where they are not counted (-100).

    Networks of transformers shift such labels themselves when they compute their loss; here the task's loss is computed
    from their logits. Labels that are anything else are taken for the tokens that follow already.
    """
    tokens = given.kwargs.get("input_ids")
    if LABELS not in given.kwargs or not isinstance(tokens, Tensor) or not isinstance(target, Tensor):
        return given, target
    if tokens.shape != target.shape or not bool(((target == tokens) | (target == IGNORED)).all()):
        return given, target
    return without_labels(given), torch.cat([target[:, 1:], torch.full_like(target[:, :1], IGNORED)], dim=1)


def begun(loader: Any) -> Iterator[Any]:
    """An iterator over the loader, whose workers leave signals to all processes to this one."""
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return iter(loader)
    own = loader.worker_init_fn
    loader.worker_init_fn = partial(_obey, os.getpid(), own)
    try:
        with worker_signals.starting():
            return iter(loader)
    finally:
        loader.worker_init_fn = own


def _obey(parent: int, own: Callable[[int], None] | None, worker: int) -> None:
    worker_signals.obey(parent)
    if own is not None:
        own(worker)


def _finite(tensor: Tensor, masks: bool) -> bool:
    return bool((tensor.isfinite() | tensor.isneginf()).all() if masks else tensor.isfinite().all())


def from_loaders(loaders: object, name: str = "loaders") -> Loaders:
    """Wrap (train_loader, test_loader) or (train_loader, validation_loader, test_loader).

    Each has a length and gives batches that `pair_of` takes. The first batch of the training loader is read, outside of
    the order of random numbers: its first samples are the example that the network is traced with. Raises DataError for
    anything else.
    """
    if not isinstance(loaders, tuple | list) or len(loaders) not in (2, 3):
        found = type(loaders).__name__ + (f" of {len(loaders)}" if isinstance(loaders, tuple | list) else "")
        raise DataError(
            f"{name} gave {found}; it must give two loaders, (train, test), or three, (train, validation, test)."
        )
    for loader in loaders:
        try:
            length = len(loader)
        except TypeError as error:
            raise DataError(f"{name}: {type(loader).__name__} has no length; give a DataLoader or a list.") from error
        if not length:
            raise DataError(f"{name}: a loader has no batch.")
    with torch.random.fork_rng([]):
        first = next(begun(loaders[0]))
    try:
        given, _ = pair_of(first, name)
        example = without_labels(given)
    except InputError as error:
        raise DataError(str(error)) from error
    example = example.part(slice(2)).mapped(_kept)
    return Loaders(name, loaders[0], loaders[-1], example, loaders[1] if len(loaders) == 3 else None)


def _kept(tensor: Tensor) -> Tensor:
    """On the CPU, and without the rest of its batch."""
    return tensor.detach().cpu().clone()


def from_factory(spec: str, args: Mapping[str, Any] | None = None) -> Loaders:
    """`from_loaders` of what the user's function `spec` "my_module:loaders" returns; it raises InputError too."""
    return from_loaders(call_factory(spec, args), spec)
