"""The batches that networks learn from, which alone are augmented."""

from collections.abc import Sequence

import torch

from compress.batches import Batches
from compress.data.dataset import Dataset, TrainingData
from compress.data.streaming import StreamedDataset
from compress.tasks import Task


def training_batches(
    data: TrainingData,
    size: int,
    task: Task,
    device: torch.device | str = "cpu",
    *,
    attributes: Sequence[str] = (),
) -> Batches:
    """The batches of the training part, with the random changes that the data set's options name.

    attributes: see `TrainingData.batches`.

    Criteria, calibration, the statistics of norms and all evaluations take `data.batches`, without them.
    """
    if isinstance(data, Dataset | StreamedDataset):
        return data.batches("train", size, task, device, augmented=True, attributes=attributes)
    return data.batches("train", size, task, device, attributes=attributes)
