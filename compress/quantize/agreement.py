"""How much two networks agree, such as an int8 file and the float file that it was made of."""

from torch import Tensor, nn

from compress.batches import LABELS, Pairs, pair_of, takes, without_labels
from compress.errors import DataError
from compress.evaluation_mode import evaluation_mode
from compress.inputs import Inputs
from compress.results import Agreement
from compress.tasks import Task, prediction, word_of
from compress.tasks.targets import class_logits


def agreement(one: nn.Module, other: nn.Module, batches: Pairs, task: Task) -> Agreement:
    """Compare the predictions of two networks (see `compress.tasks.prediction`) on all batches.

    Either may be an `OnnxNetwork`. The share of equal classes is for `classify`. Raises DataError without a sample.
    """
    largest = total = 0.0
    values = equal = places = samples = 0
    classes = word_of(task) == "classify"
    with evaluation_mode(one), evaluation_mode(other):
        for batch in batches:
            given, _ = pair_of(batch)
            first, second = _predicted(one, given), _predicted(other, given)
            difference = (first - second).abs()
            largest, total = max(largest, float(difference.max())), total + float(difference.sum())
            values, samples = values + difference.numel(), samples + given.rows
            if classes:
                same = class_logits(first).argmax(1) == class_logits(second).argmax(1)
                equal, places = equal + int(same.sum()), places + same.numel()
    if not samples:
        raise DataError("No sample to compare on: this part of the data set is empty.")
    found: Agreement = {"largest": largest, "mean": total / values}
    return {"equal": equal / places, **found} if classes else found


def _predicted(model: nn.Module, given: Inputs) -> Tensor:
    called = given if takes(model, LABELS) else without_labels(given)
    return prediction(called.call(model)).double()
