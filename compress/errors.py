"""Every error that this package raises on purpose.

    CompressError                   the base: `except CompressError` catches all of them
    ├── InputError                  the input is wrong; exit code 2
    │   ├── RecipeError             a recipe: all of its mistakes at once, each with file, line and key
    │   ├── CheckpointError         a file of weights
    │   ├── DataError               a data set
    │   ├── TargetError             a layer, node or parameter that does not exist or cannot be pruned
    │   ├── UnsupportedModelError   a network that slimming does not understand, with the operation's name
    │   ├── OutputError             an output folder or file that cannot be written
    │   └── MissingPackageError     an optional package is not installed; an ImportError too
    └── RunError                    the input was fine and the run failed; exit code 1
        ├── TrainingError           a loss is NaN or infinite
        │   └── DivergedError       ... during training: the model holds its last good weights again
        ├── ProofError              two models that must compute the same do not
        ├── ConstantOutputError     the slim network is no better than an output that does not depend on the input
        ├── NothingPrunedError      a run that would leave the network as large as it was
        ├── NothingFoundError       a search in which no trial meets the bounds
        ├── LostProcessError        another process of the same training has ended
        └── SweepError              some cells of a sweep failed; the others are kept
            └── LostWorkerError     ... since the process that computed one has died

    Interrupted                     a KeyboardInterrupt that knows its signal: Ctrl-C, or SIGTERM

A message is a sentence or two: what was found, where, and the way out.
"""


class CompressError(Exception):
    """Base of all deliberate errors; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(CompressError):
    exit_code = 2


class RecipeError(InputError):
    pass


class CheckpointError(InputError):
    pass


class DataError(InputError):
    pass


class TargetError(InputError):
    pass


class UnsupportedModelError(InputError):
    pass


class OutputError(InputError):
    pass


class MissingPackageError(InputError, ImportError):
    pass


class RunError(CompressError):
    pass


class TrainingError(RunError):
    pass


class DivergedError(TrainingError):
    pass


class ProofError(RunError):
    pass


class ConstantOutputError(RunError):
    pass


class NothingPrunedError(RunError):
    pass


class NothingFoundError(RunError):
    pass


class LostProcessError(RunError):
    pass


class SweepError(RunError):
    pass


class LostWorkerError(SweepError):
    pass


class Interrupted(KeyboardInterrupt):
    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.exit_code = 128 + signal  # as shells report it
