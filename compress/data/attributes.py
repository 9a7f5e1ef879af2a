"""Attributes: further classes of the samples, beside their labels, which shape the latent space of a network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.dataset import LABEL, TrainingData
from compress.errors import DataError
from compress.wording import count_of, did_you_mean


def attribute_of(values: NDArray[Any], count: int, what: str) -> Tensor:
    """An array of classes as int64 [N].

    Raises:
        DataError: it is not a whole number from 0 for each of `count` samples; `what` is the array, for the message.
    """
    if values.dtype.kind not in "iub" or values.shape != (count,):
        raise DataError(
            f"{what} is {values.dtype} of shape {list(values.shape)}; an attribute is one whole number for each of "
            f"{count_of(count, 'sample')}."
        )
    if count and (int(values.min()) < 0 or int(values.max()) > np.iinfo(np.int32).max):
        wrong = int(values.min()) if int(values.min()) < 0 else int(values.max())
        raise DataError(f"{what} has {wrong}; the classes of an attribute are whole numbers from 0.")
    return torch.from_numpy(values.astype(np.int64))


def require_known(train: Mapping[str, Tensor], other: Mapping[str, Tensor], source: str) -> None:
    """Raise DataError where an attribute of `other` has a class that no training sample has."""
    for name, values in other.items():
        if len(values) and (high := int(values.max())) > (most := int(train[name].max())):
            raise DataError(
                f"{source}: the attribute {name} has the class {high}, and the training samples have 0 to {most}."
            )


def classes_of(data: TrainingData, names: Sequence[str]) -> dict[str, int]:
    """The number of classes of each attribute.

    Raises:
        DataError: the data lack one, or it has fewer than two classes.
    """
    there = data.attributes
    for name in names:
        if name not in there:
            if name == LABEL:
                why = f"{data.name} has no labels that are classes"
            else:
                why = f"{data.name} has no attribute {name}"
            others = f"it has {', '.join(there)}" if there else "it has no attribute at all"
            raise DataError(f"{why}; {others}{did_you_mean(name, list(there))}")
        if there[name] < 2:
            raise DataError(
                f"the attribute {name} of {data.name} has {count_of(there[name], 'class', 'classes')} in the training "
                "samples; at least 2 are needed to tell samples apart."
            )
    return {name: there[name] for name in names}
