"""Trials at levels proposed by Optuna, kept in a journal beside the cells, so that a study can be resumed."""

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
"""The smallest share left, of a stage's measure."""

MOST = 0.99


def sample(trials: Trials, count: int, cache: Path) -> None:
    """Run Optuna's study of these trials, with a journal in the folder `cache`, until it has `count` in total.

    The minimized value puts all trials within the bounds before all others: see `value_of`. The recipe's own levels
    come first.

    Raises:
        InputError: Optuna is not installed.
    """
    study = _study(trials, cache)
    width = len(trials.recipe.stages)
    if not study.trials:
        study.enqueue_trial(_params(tuple(1 - stage.goes for stage in trials.recipe.stages)))
    trials.run([_left(trial.params) for trial in _finished(study)], count)  # read from the cells
    while len(_finished(study)) < count:
        # Trials left by an interruption come first.
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
    """The value to minimize: in [0, 1) within the bounds, from 1 on by the excess over them, 3 for a failed trial.

    Within the bounds it is s / (s + dense) for the size s if quality is bounded, else q / (1 + q) for the quality q.
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
            warnings.simplefilter("ignore")  # about experimental features
            storage = JournalStorage(JournalFileBackend(str(journal), _lock(lock)))
            study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
            for trial in _finished(study):
                if len(_left(trial.params)) != width:
                    raise ValueError(f"trial {trial.number} has other levels")
    except Exception as error:  # on a damaged journal, Optuna may raise anything
        raise InputError(
            f"{journal} is damaged ({type(error).__name__}: {error}); remove it: finished trials are kept as cells"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A new sampler must not repeat its earlier proposals.
        seed = trials.recipe.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=trials.at_once > 1)
    return study


def _lock(path: Path) -> "JournalFileOpenLock":
    """The operating system's lock, which ends with its process.

    Optuna's own locks are links or files, and it removes anything that has had their name for half a minute.
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
    """The shares left, with four decimals, finer than any network needs."""
    return tuple(round(params[f"left{stage}"], 4) for stage in range(len(params)))
