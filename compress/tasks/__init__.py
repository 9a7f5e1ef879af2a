"""The tasks that networks are trained for: their losses, what they compare, and the metrics they are judged by."""

from compress.task_words import Word
from compress.tasks.kinds import Loss, NamedTask, OwnTask, Task, metrics_of, ranking, wants_inputs, word_of
from compress.tasks.losses import counted, cross_entropy, loss, measured_loss, squared_error
from compress.tasks.outputs import entry, in_float64, own_loss, prediction

__all__ = [
    "Loss",
    "NamedTask",
    "OwnTask",
    "Task",
    "Word",
    "counted",
    "cross_entropy",
    "entry",
    "in_float64",
    "loss",
    "measured_loss",
    "metrics_of",
    "own_loss",
    "prediction",
    "ranking",
    "squared_error",
    "wants_inputs",
    "word_of",
]
