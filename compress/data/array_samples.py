"""Arrays of numpy's .npz files as data sets: of any shape and dtype, one input or several, with lengths for series."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.array_dataset import ONLY, ArrayDataset, Samples, digest
from compress.data.array_files import array_names, read_arrays
from compress.data.attributes import attribute_of, require_known
from compress.data.dataset import times
from compress.data.preparation import Arrays, Scale
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.wording import count_of, did_you_mean

LARGEST = float(np.finfo(np.float32).max)

PIECE = 1 << 20
"""Numbers that are converted at once."""


@dataclass(frozen=True)
class ArrayNames:
    """Which arrays of a file are used.

    inputs: one that the network is called with, by position, or several, by these keywords.
    targets: what outputs are compared with; None where those are the inputs.
    lengths: of series [N, T, ...] that are padded at their end; the network is called with them by this keyword.
    attributes: further classes of the samples, which no network is called with.
    """

    inputs: str | tuple[str, ...] = "inputs"
    targets: str | None = None
    lengths: str | None = None
    attributes: tuple[str, ...] = ()

    @property
    def all_inputs(self) -> tuple[str, ...]:
        names = (self.inputs,) if isinstance(self.inputs, str) else self.inputs
        return names if self.lengths is None else (*names, self.lengths)

    @property
    def first(self) -> str:
        """The series that `lengths` is about."""
        return self.all_inputs[0]

    def keyword(self, name: str) -> str:
        return ONLY if name == self.inputs else name


def from_arrays(
    path: str | Path,
    test_path: str | Path | None = None,
    names: ArrayNames | None = None,
    *,
    normalise: Literal["dataset", "none"] = "none",
    validation: float | str | Path | None = None,
    train: int | None = None,
    test: int | None = None,
) -> ArrayDataset:
    """A data set from .npz files, whose arrays have one entry [...] for each sample.

    Floats become float32, whole numbers int64; booleans become float32 where they are targets. Targets of
    whole numbers [N] are classes; others are passed as they are. Samples remain in the order of the file: without
    `test_path` the last sixth is the test set, and `note` says so.

    Args:
        normalise: "dataset" scales floats to mean 0 and deviation 1 over the training part: each feature of [N, F] and
            [N, T, F] (without the padding after `lengths`), and other arrays as a whole.
        validation: a share of the training samples, the last ones, or a file.
        train, test: how many samples of each part are used, the first ones.

    Raises:
        DataError: a file is not such an archive, or too large for memory; an array is missing, of another length, of
            complex numbers, or has NaN or infinities; parts do not fit each other.
    """
    names, files, notes = names or ArrayNames(), [Path(path)], list[str]()
    trained = _read(files[0], names, notes)
    if test_path is None:
        if len(trained) < 2:
            raise DataError(f"{path} has one sample; one to train on and one to test on are needed.")
        held_out = max(1, len(trained) // 6)
        notes.append(f"No test file: the test set is the last {held_out:,} of {count_of(len(trained), 'sample')}.")
        trained, tested = trained.take(slice(-held_out)), trained.take(slice(-held_out, None))
    else:
        tested = _read_alike(Path(test_path), names, trained, files[0])
    trained, tested = _first(trained, train, f"{path}: train"), _first(tested, test, f"{test_path or path}: test")
    chosen_on = None
    if isinstance(validation, float):
        count = held_out_count(validation, len(trained), str(path))
        trained, chosen_on = trained.take(slice(-count)), trained.take(slice(-count, None))
    elif validation is not None:
        chosen_on = _read_alike(Path(validation), names, trained, files[0])
    classes = _count_classes(trained, [tested, *([] if chosen_on is None else [chosen_on])], path)
    scaling = _Scaling(names)
    scales = {name: scaling.scale(name, trained) if normalise == "dataset" else None for name in trained.inputs}
    trained, tested = scaling.scaled(trained, scales), scaling.scaled(tested, scales)
    chosen_on = None if chosen_on is None else scaling.scaled(chosen_on, scales)
    return ArrayDataset(
        files[0].name,
        trained,
        tested,
        Arrays(scales),
        digest(trained, chosen_on, tested),
        validation=chosen_on,
        classes=classes,
        note=" ".join(notes) or None,
    )


# --- reading ---


def _read(path: Path, names: ArrayNames, notes: list[str]) -> Samples:
    wanted = [*names.all_inputs, *([] if names.targets is None else [names.targets]), *names.attributes]
    for name in wanted:
        if wanted.count(name) > 1:
            raise DataError(f"the array {name} is named {wanted.count(name)} times in `data`; it has one use.")
        if name not in (there := array_names(path)):
            raise _absent(path, name, there)
    arrays = read_arrays(path, wanted)
    others = {name: arrays.pop(name) for name in names.attributes}
    tensors = {name: _tensor(array, f"{path}: the array {name}") for name, array in arrays.items()}
    if len({len(tensor) for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} {len(tensor):,}" for name, tensor in tensors.items())
        raise DataError(f"{path}: arrays differ in their number of samples ({found}).")
    if not len(tensors[names.first]):
        raise DataError(f"{path} has no sample.")
    if names.lengths is not None:
        _require_lengths(tensors[names.lengths], tensors[names.first], path)
    if long := [name for name, array in arrays.items() if array.dtype in (np.float64, np.longdouble)]:
        notes.append(f"Stored as float64 and used as float32: {', '.join(long)}.")
    targets = None if names.targets is None else tensors.pop(names.targets)
    if targets is not None and targets.dtype == torch.bool:
        targets = targets.float()
    count = len(tensors[names.first])
    attributes = {name: attribute_of(of, count, f"{path}: the array {name}") for name, of in others.items()}
    return Samples({names.keyword(name): tensor for name, tensor in tensors.items()}, targets, attributes=attributes)


def _absent(path: Path, name: str, there: Sequence[str]) -> DataError:
    shown = ", ".join(there[:10]) + (f" and {len(there) - 10:,} more" if len(there) > 10 else "")
    return DataError(f"{path} has no array {name}; it holds {shown or 'nothing'}{did_you_mean(name, there)}")


def _tensor(array: NDArray[Any], what: str) -> Tensor:
    """A copy as float32, int64 or bool. Raises DataError for values that none of these can represent."""
    if array.ndim == 0:
        raise DataError(f"{what} is a single number; it needs an entry for each sample.")
    if array.dtype.kind == "c":
        raise DataError(f"{what} holds {array.dtype}; store real and imaginary parts as two numbers.")
    if array.dtype.kind == "b":
        return torch.from_numpy(np.array(array))
    found = np.empty(array.shape, np.float32 if array.dtype.kind == "f" else np.int64)
    for rows in _pieces(array):
        piece = array[rows]
        wrong = _unfit(piece)
        if wrong.any():
            row = int(np.argmax(wrong.reshape(len(piece), -1).any(1)))
            value = piece[row][wrong[row]].flat[0] if array.ndim > 1 else piece[row]
            raise DataError(
                f"{what} has {value} in sample {rows.start + row:,} (from 0), which {found.dtype} does not hold; fix "
                f"the sample, or leave it out."
                if np.isfinite(value)
                else f"{what} has {value} in sample {rows.start + row:,} (from 0); fix the sample, or remove it."
            )
        found[rows] = piece
    return torch.from_numpy(found)


def _unfit(piece: NDArray[Any]) -> NDArray[np.bool_]:
    """Which numbers are NaN, infinite, or too large."""
    if piece.dtype.kind == "f":
        found: NDArray[np.bool_] = ~(np.abs(piece.astype(np.float64)) <= LARGEST)
        return found
    return np.greater(piece, np.iinfo(np.int64).max) if piece.dtype.kind == "u" else np.zeros(piece.shape, bool)


def _pieces(array: NDArray[Any] | Tensor) -> Iterator[slice]:
    size = max(1, PIECE // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), size):
        yield slice(start, start + size)


def _require_lengths(lengths: Tensor, series: Tensor, path: Path) -> None:
    if series.ndim < 2 or lengths.ndim != 1 or lengths.dtype != torch.int64:
        raise DataError(
            f"{path}: lengths are {lengths.dtype} {times(lengths.shape)} and inputs {times(series.shape)}; lengths "
            f"need a whole number for each sample, and inputs the shape [N, T, ...]."
        )
    (wrong,) = torch.where((lengths < 1) | (lengths > series.shape[1]))
    if len(wrong):
        raise DataError(
            f"{path}: the length of sample {int(wrong[0]):,} (from 0) is {int(lengths[wrong[0]])}; it must be 1 to "
            f"{series.shape[1]}, the steps of inputs."
        )


def _read_alike(path: Path, names: ArrayNames, model: Samples, model_path: Path) -> Samples:
    """Samples whose shapes and dtypes are those of `model`."""
    found = _read(path, names, [])
    require_known(model.attributes, found.attributes, str(path))
    for one, other in zip(found.tensors, model.tensors, strict=True):
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise DataError(
                f"{path} has {one.dtype} of {times(one.shape[1:])} a sample where {model_path} has {other.dtype} of "
                f"{times(other.shape[1:])}; they must match."
            )
    return found


# --- parts ---


def _first(samples: Samples, count: int | None, what: str) -> Samples:
    if count is not None and count > len(samples):
        raise DataError(f"{what} asks for {count:,} of {count_of(len(samples), 'sample')}.")
    return samples if count is None else samples.take(slice(count))


def _count_classes(train: Samples, others: Sequence[Samples], path: str | Path) -> int | None:
    """For targets of whole numbers [N], how many classes the training part has; else None."""
    labels = train.targets
    if labels is None or labels.dtype != torch.int64 or labels.ndim != 1:
        return None
    low, high = int(labels.min()), int(labels.max())
    quantities = "; quantities are stored as floats"
    if low < 0:
        raise DataError(f"{path}: the target {low} is negative, and classes are numbered from 0{quantities}.")
    if high == 0:
        raise DataError(f"{path}: all training samples have the class 0; there is nothing to predict{quantities}.")
    for part in others:
        assert part.targets is not None
        for wrong in part.targets[(part.targets < 0) | (part.targets > high)][:1].tolist():
            raise DataError(
                f"{path}: the training part has the classes 0 to {high}, and another part has {wrong}. Where samples "
                f"are sorted by class, shuffle them, or give a test file{quantities}."
            )
    return high + 1


# --- scaling ---


@dataclass(frozen=True)
class _Scaling:
    names: ArrayNames

    def scale(self, name: str, train: Samples) -> Scale | None:
        """Mean and (population) deviation over the training part; None for what is not floats."""
        tensor = train.inputs[name]
        if not tensor.is_floating_point():
            return None
        counted = self._counted(name, train)
        width = tensor.shape[-1] if tensor.ndim == 3 or (tensor.ndim == 2 and counted is None) else 1

        def values() -> Iterator[Tensor]:
            """[n, numbers of the last dimension], or [n, 1]."""
            for rows in _pieces(tensor):
                found = tensor[rows].double()
                found = found if counted is None else found[counted[rows]]
                yield found.reshape(-1, width)

        count = sum(len(found) for found in values())
        low, high = (torch.stack([end(found, 0) for found in values()]) for end in (torch.amin, torch.amax))
        constant = low.amin(0) == high.amax(0)
        mean = torch.stack([found.sum(0) for found in values()]).sum(0) / count
        # The mean of equal numbers may differ from them in the last bits.
        mean = torch.where(constant, low.amin(0), mean)
        deviation = (torch.stack([((found - mean) ** 2).sum(0) for found in values()]).sum(0) / count).sqrt()
        return Scale(tuple(mean.tolist()), tuple(torch.where(deviation == 0, 1.0, deviation).tolist()))

    def scaled(self, samples: Samples, scales: Mapping[str, Scale | None]) -> Samples:
        """The same samples, scaled; padding does not change."""
        inputs = dict(samples.inputs)
        for name, scale in scales.items():
            if scale is None:
                continue
            tensor, counted = inputs[name], self._counted(name, samples)
            mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (scale.mean, scale.std))
            inputs[name] = torch.cat([((tensor[rows] - mean) / std).float() for rows in _pieces(tensor)])
            if counted is not None:
                counted = counted.reshape(*counted.shape, *[1] * (tensor.ndim - 2))
                inputs[name] = torch.where(counted, inputs[name], tensor)
        return replace(samples, inputs=inputs)

    def _counted(self, name: str, samples: Samples) -> Tensor | None:
        """Which steps [N, T] of a series are not padding; None where it has none."""
        if self.names.lengths is None or name != self.names.keyword(self.names.first):
            return None
        return torch.arange(samples.inputs[name].shape[1]) < samples.inputs[self.names.lengths][:, None]
