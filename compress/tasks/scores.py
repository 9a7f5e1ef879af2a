"""How good the output is for each sample: pairs of them tell whether one of two networks is better beyond chance."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from compress.tasks import targets
from compress.tasks.kinds import IGNORED, OwnTask, Task, settings_of
from compress.tasks.losses import loss


def sample_scores(task: Task, output: Any, target: Any) -> Tensor:
    """[N] in float64, larger = better: the share of a sample's labels that are right, or its loss below 0.

    With a task of the user's own, [1]: the loss of the batch below 0.
    """
    if isinstance(task, OwnTask):
        return -loss(task)(output, target).detach().double().reshape(1)
    named = settings_of(task)
    if named.word == "classify":
        logits = targets.class_logits(output)
        labels = targets.class_labels(logits, target, named.ignore_index)
        return _mean((logits.argmax(1) == labels).double(), labels != IGNORED)
    if named.word == "multilabel":
        logits, present, counted = targets.several_labels(output, target, named.ignore_index)
        return _mean(((logits > 0) == (present > 0.5)).double(), counted)
    if named.word == "language_model":
        logits, tokens = targets.tokens(output, target, named.ignore_index)
        losses = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)
        return -_mean(losses.double(), tokens != IGNORED)
    wanted = targets.anomalies(target)[0] if named.word == "anomaly" else target
    return -targets.errors_by_sample(*targets.values(output, wanted, named.word)).double()


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of each row over what counts; 0 where nothing does."""
    values, counted = values.reshape(len(values), -1), counted.reshape(len(counted), -1)
    return (values * counted).sum(1) / counted.sum(1).clamp(min=1)
