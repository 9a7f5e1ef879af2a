"""The best output that does not depend on the input: the mean image, the share of each class, the mean target.

A network that is no better than it has learned nothing, or has lost all of it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from compress.task_words import Word
from compress.tasks import targets
from compress.tasks.kinds import IGNORED, NamedTask, OwnTask, Task, settings_of

OUTPUTS: Mapping[Word, str] = {
    "reconstruct": "the mean of all training inputs",
    "classify": "always answering the most frequent class",
    "multilabel": "the share of each label as its probability, or every label",
    "regress": "the mean training target",
    "forecast": "the mean training target",
    "language_model": "the share of each token as its probability",
    "anomaly": "the mean of all training inputs, with one score for all samples",
}
"""The constant output of each task, in words."""

OWN = "the mean of the dense network's outputs"
"""The constant output where the loss is a function of the user's own, which says nothing of targets."""


class ConstantOutput:
    """Gathers the constant output from training batches, and gives it in the form of any batch's output."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._total: Any = None  # of a task by word a tensor, else what the network returns
        self._count: Any = 0
        self.missing: str | None = None
        """Why there is no constant output."""

    @property
    def words(self) -> str:
        return OWN if isinstance(self._task, OwnTask) else OUTPUTS[settings_of(self._task).word]

    def see(self, output: Any, target: Any, rows: int) -> None:
        """Count a training batch.

        Args:
            output: the dense network's, as metrics are computed from: for a built-in task, its prediction.
            rows: the number of samples.
        """
        if self.missing is not None:
            return
        if isinstance(self._task, OwnTask):
            self._see_own(output, rows)
        else:
            self._see_named(settings_of(self._task), output, target)

    def like(self, output: Any) -> Any:
        """The constant output for the samples of `output`, in its shape; None where there is none."""
        if self.missing is None and self._total is None:
            self.missing = "no training sample counts"
        if self.missing is not None:
            return None
        if isinstance(self._task, OwnTask):
            return self._like_own(output)
        return self._like_named(settings_of(self._task), output)

    def positive(self, output: Any) -> Tensor | None:
        """Class 1 of two, or every label, for the samples of `output`: what has the most F1 of all constant outputs.

        None for other tasks.
        """
        word = None if isinstance(self._task, OwnTask) else settings_of(self._task).word
        if word == "multilabel":
            return torch.ones_like(output)
        logits = targets.class_logits(output) if word == "classify" else None
        if logits is None or logits.shape[1] != 2:
            return None
        return torch.stack([torch.zeros_like(logits[:, 0]), torch.ones_like(logits[:, 0])], dim=1)

    # --- tasks by word ---

    def _see_named(self, task: NamedTask, output: Tensor, target: Any) -> None:
        if task.word == "classify":
            logits = targets.class_logits(output)
            labels = targets.class_labels(logits, target, task.ignore_index)
            self._add(labels[labels != IGNORED].bincount(minlength=logits.shape[1]).double(), 0)
        elif task.word == "language_model":
            logits, wanted = targets.tokens(output, target, task.ignore_index)
            self._add(wanted[wanted != IGNORED].bincount(minlength=logits.shape[-1]).double(), 0)
        elif task.word == "multilabel":
            _, present, counted = targets.several_labels(output, target, task.ignore_index)
            self._add((present.double() * counted).sum(0), counted.sum(0).double())
        elif task.word == "anomaly":
            inputs, flags = targets.anomalies(target)
            wanted = targets.values(output, inputs, task.word)[1][~flags].double()
            self._add(wanted.sum(0), len(wanted))
        else:
            wanted = targets.values(output, target, task.word)[1].double()
            self._add(wanted.sum(0), len(wanted))

    def _add(self, total: Tensor, count: int | Tensor) -> None:
        if self._total is not None and total.shape != self._total.shape:
            self.missing = "the outputs of different batches have different shapes"
            return
        self._total = total if self._total is None else self._total + total
        self._count = self._count + count

    def _like_named(self, task: NamedTask, output: Tensor) -> Tensor | None:
        total: Tensor = self._total
        if task.word in ("classify", "language_model"):
            logits = targets.class_logits(output) if task.word == "classify" else output
            # One more of each: the logarithm of a class that no training sample has is finite.
            shares = (total + 1).log() - (total + 1).sum().log()
            if task.word == "classify":
                shares = shares.view(1, -1, *[1] * (logits.ndim - 2))
            found: Tensor = shares.to(logits).expand(logits.shape).contiguous()
            return found
        if task.word == "multilabel":
            mean = ((total + 0.5) / (self._count + 1)).logit()
        else:
            mean = total / self._count if self._count else total
        if output.shape[1:] != mean.shape:
            self.missing = "the outputs of different batches have different shapes"
            return None
        means: Tensor = mean.to(output).expand(output.shape).contiguous()
        return means

    # --- losses of the user's own ---

    def _see_own(self, output: Any, rows: int) -> None:
        leaves = tree_leaves(output)
        whole = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim]
        if not leaves or len(whole) < len(leaves) or any(len(leaf) != rows for leaf in whole):
            self.missing = "the outputs are not tensors with one entry per sample"
            return
        total = tree_map(lambda leaf: leaf.double().sum(0), output)
        if self._total is not None and _shapes(total) != _shapes(self._total):
            self.missing = "the outputs of different batches have different shapes"
            return
        both = (total,) if self._total is None else (self._total, total)
        self._total = tree_map(lambda *parts: sum(parts[1:], parts[0]), *both)
        self._count += rows

    def _like_own(self, output: Any) -> Any:
        if _shapes(tree_map(lambda leaf: leaf[0], output)) != _shapes(self._total):
            self.missing = "the outputs of different batches have different shapes"
            return None

        def repeated(mean: Tensor, leaf: Tensor) -> Tensor:
            found: Tensor = (mean / self._count).to(leaf).repeat(len(leaf), *[1] * mean.ndim)
            return found

        return tree_map(repeated, self._total, output)


def _shapes(outputs: Any) -> tuple[Any, list[torch.Size]]:
    return tree_structure(outputs), [leaf.shape for leaf in tree_leaves(outputs)]
