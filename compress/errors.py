"""Every error that softprune raises on purpose.

    CompressError                   the base: `except CompressError` catches all of them
    ├── InputError                  the input is wrong; exit code 2
    │   ├── RecipeError             a recipe is wrong: all mistakes, each with file, line and key
    │   ├── CheckpointError         a file of weights is unreadable or does not fit the network
    │   ├── DataError               a data set is missing or wrong
    │   ├── TargetError             a layer, node or parameter does not exist or cannot be pruned
    │   ├── UnsupportedModelError   slimming does not support the network; the message names the operation
    │   ├── OutputError             an output folder or file cannot be written
    │   └── MissingPackageError     an optional package is not installed; also an ImportError
    └── RunError                    the input was correct, but the run failed; exit code 1
        ├── TrainingError           a loss is NaN or infinite
        │   └── DivergedError       training diverged; the model has its last good weights again
        ├── ProofError              two models that must compute the same do not
        ├── ConstantOutputError     the slim network is no better than an output that does not depend on the input
        ├── NothingPrunedError      the run would not make the network smaller
        ├── NothingFoundError       no trial of a search meets the bounds
        ├── LostProcessError        another process of the same training has ended
        └── SweepError              some cells of a sweep failed; the others are kept
            └── LostWorkerError     a process that computed a cell has died

    Interrupted                     a KeyboardInterrupt for Ctrl-C and SIGTERM, with the signal's exit code

Each message says in a sentence or two what was found, where, and the way out.
"""


class CompressError(Exception):
    """Base of all errors that softprune raises on purpose; the command line exits with `exit_code`."""

    exit_code = 1


class InputError(CompressError):
    """The input is wrong."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe is wrong; the message lists all mistakes, each with file, line and key."""


class CheckpointError(InputError):
    """A file of weights is unreadable or does not fit the network."""


class DataError(InputError):
    """A data set is missing or wrong."""


class TargetError(InputError):
    """A layer, node or parameter does not exist or cannot be pruned."""


class UnsupportedModelError(InputError):
    """Slimming does not support the network; the message names the operation."""


class OutputError(InputError):
    """An output folder or file cannot be written."""


class MissingPackageError(InputError, ImportError):
    """An optional package is not installed."""


class RunError(CompressError):
    """The input was correct, but the run failed."""


class TrainingError(RunError):
    """A loss is NaN or infinite."""


class DivergedError(TrainingError):
    """Training diverged; the model has its last good weights again."""


class ProofError(RunError):
    """Two models that must compute the same do not."""


class ConstantOutputError(RunError):
    """The slim network is no better than an output that does not depend on the input."""


class NothingPrunedError(RunError):
    """The run would not make the network smaller."""


class NothingFoundError(RunError):
    """No trial of a search meets the bounds."""


class LostProcessError(RunError):
    """Another process of the same training has ended."""


class SweepError(RunError):
    """Some cells of a sweep failed; the others are kept."""


class LostWorkerError(SweepError):
    """A process that computed a cell has died."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the program; `exit_code` is 128 plus the number of the signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.exit_code = 128 + signal  # as shells report it
