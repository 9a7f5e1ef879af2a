"""Trials at levels that Optuna proposes, kept in a journal beside the cells, so that a study goes on where it was."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from compress.errors import InputError
from compress.files import marked
from compress.files.atomic import require_replaceable
from compress.sweep.explore.trials import Left, Trials
from compress.sweep_results import TrialResult

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal import JournalFileOpenLock

LEAST = 0.01
"""The smallest share that is left of what a stage's level is of."""

MOST = 0.99


def sample(trials: Trials, count: int, cache: Path) -> None:
    """Let Optuna's study of these trials, with a journal in the folder `cache`, have `count` of them in all.

    One value is minimised, which puts all that keep to the bounds before all that do not: see `value_of`. The levels
    of the recipe come first.

    Raises:
        InputError: Optuna is not installed.
    """
    study = _study(trials, cache)
    width = len(trials.recipe.stages)
    if not study.trials:
        study.enqueue_trial(_params(tuple(1 - stage.goes for stage in trials.recipe.stages)))
    trials.run([_left(trial.params) for trial in _finished(study)], count)  # from the cells
    while len(_finished(study)) < count:
        # First those that an interruption left.
        batch = [(trial.number, trial.params) for trial in _running(study) if len(trial.params) == width]
        batch = batch[: min(trials.at_once, count - len(_finished(study)))]
        while len(batch) < min(trials.at_once, count - len(_finished(study))):
            asked = study.ask()
            for stage in range(width):
                asked.suggest_float(f"left{stage}", LEAST, MOST, log=True)
            batch.append((asked.number, asked.params))
        for (number, _), result in zip(batch, trials.run([_left(p) for _, p in batch], count), strict=True):
            study.tell(number, value_of(trials, result))


def value_of(trials: Trials, result: TrialResult) -> float:
    """In [0, 1) what is minimised where the bounds hold; from 1 on by how much they do not, and 3 if there is nothing.

    Of the size s, where quality is bounded, s / (s + dense), and else q / (1 + q) of the quality q.
    """
    if "failed" in result:
        return 3.0
    excess = sum(max(0.0, trials.excess(bound, result)) for bound in trials.wanted.bounds)
    if excess:
        return 1 + excess / (1 + excess)
    if trials.wanted.goal == "smallest":
        size = trials.size(result)
        return size / (size + trials.size(trials.dense))
    quality = trials.quality(result)
    return quality / (1 + quality)


def _study(trials: Trials, cache: Path) -> "optuna.Study":
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise InputError(
            "several stages, or --trials, are searched with Optuna, which is not installed: pip install "
            "'softprune[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    marked.cells(cache)
    name, width = trials.study, len(trials.recipe.stages)
    journal, lock = cache / f"{name}.journal", cache / f"{name}.lock"
    for path in (journal, lock):
        require_replaceable(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is experimental in it
            storage = JournalStorage(JournalFileBackend(str(journal), _lock(lock)))
            study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
            for trial in _finished(study):
                if len(_left(trial.params)) != width:
                    raise ValueError(f"trial {trial.number} has other levels")
    except Exception as error:  # Optuna lets whatever a damaged journal leads to pass through
        raise InputError(
            f"{journal} is damaged ({type(error).__name__}: {error}); remove it: finished trials are kept as cells"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A sampler that begins anew must not propose again what it has proposed.
        seed = trials.recipe.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=trials.at_once > 1)
    return study


def _lock(path: Path) -> "JournalFileOpenLock":
    """The operating system's lock, which ends with its process.

    Optuna's own are links or files, and it removes whatever has had their name for half a minute.
    """
    from optuna.storages.journal import JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        def __init__(self) -> None:
            self._lock = FileLock(path)

        def acquire(self) -> bool:
            self._lock.acquire()
            return True

        def release(self) -> None:
            self._lock.release()

    return Lock()


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _running(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]


def _params(left: Left) -> dict[str, float]:
    return {f"left{stage}": min(MOST, max(LEAST, share)) for stage, share in enumerate(left)}


def _left(params: Mapping[str, float]) -> Left:
    """Four decimals are more than a network can tell apart."""
    return tuple(round(params[f"left{stage}"], 4) for stage in range(len(params)))
