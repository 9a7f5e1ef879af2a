"""The linear error that skeletonization may rank by, for each built-in loss."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from compress.tasks import losses, targets
from compress.tasks.kinds import IGNORED, Loss


def linear(function: Loss) -> Loss:
    """The error mean |target - output| in place of a loss: of probabilities for labels and tokens, else of values.

    For a loss of the user's own, targets of integers are labels.

    Mozer & Smolensky rank by this error while training on the squared one, because at an optimum of the training loss
    its own derivatives sum to nearly zero.
    """
    kind, ignored = function, None
    if isinstance(function, partial):
        kind, ignored = function.func, function.keywords.get("ignore_index")

    def error(output: object, target: object) -> Tensor:
        if kind is losses.cross_entropy or (kind not in losses.BUILT_IN and _are_labels(target)):
            logits = targets.class_logits(output)
            return _of_classes(logits, targets.class_labels(logits, target, ignored))
        if kind is losses.next_token:
            logits, tokens = targets.tokens(output, target, ignored)
            return _of_classes(logits.flatten(0, -2), tokens.flatten())
        if kind is losses.binary_cross_entropy:
            logits, present, counted = targets.several_labels(output, target, ignored)
            return (present - logits.sigmoid())[counted].abs().mean()
        wanted = targets.anomalies(target)[0] if kind is losses.error_of_input else target
        said, known = targets.values(output, wanted, "regress")
        return (known - said).abs().mean()

    return error


def _are_labels(target: object) -> bool:
    return isinstance(target, Tensor) and not target.is_floating_point()


def _of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    counted = labels != IGNORED
    said = logits.movedim(1, -1)[counted].softmax(dim=-1)
    return (F.one_hot(labels[counted], said.shape[-1]).to(said.dtype) - said).abs().mean()
