"""A pruner that another library's loop creates, steps, saves and finishes."""

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.duration import Duration
from compress.errors import InputError
from compress.loops.plain_names import PlainNames
from compress.options import check, shown
from compress.remove.masks import fold
from compress.remove.pruner import Pruner
from compress.select.choose import LayerCollapseWarning
from compress.shards import Reducer, fsdp_modules, gathered, is_sharded, local, reshard
from compress.wording import count_of


@dataclass(frozen=True)
class TrainingLength:
    """The length of the whole training in optimizer steps, from its very start; None if the loop does not know it."""

    total: int | None
    per_epoch: int | None

    def __post_init__(self) -> None:
        check("total", self.total, int | None, ge=0)
        check("per_epoch", self.per_epoch, int | None, ge=0)

    def steps(self, span: int | str) -> int:
        """The optimizer steps of a span: 1000, "1000 steps", or "3 epochs".

        Raises:
            InputError: it is neither, or in epochs although the loop's loader has no length.
        """
        check("span", span, int | str, ge=0)
        if isinstance(span, int):
            return span
        try:
            duration = Duration.parse(span)
        except ValueError as error:
            raise InputError(f"span, the removal's length: {error}") from error
        if duration.unit == "epochs" and self.per_epoch is None:
            raise InputError(
                f"{span!r}: the training loader has no length, so the steps of an epoch are unknown; give steps, "
                'such as "1000 steps"'
            )
        return duration.steps(self.per_epoch or 1)


Maker = Callable[[nn.Module, TrainingLength], Pruner]
"""Makes the pruner once the length is known, e.g. lambda model, loop: Pruner(model, "*", sparsity=0.9, removal=...)."""


class Pruning:
    """The common part of the callbacks of all loops.

    During pruning, the loop saves the model under its original names, so that the loop can load it before a pruner
    exists, and other code without one. The rest of the pruner's state is in `state_dict`.
    """

    def __init__(self, make: Maker) -> None:
        _require_maker(make)
        self._make = make
        self._saved: dict[str, Any] | None = None  # the state of an earlier run to resume
        self._final: dict[str, Any] = {}
        self._names: PlainNames | None = None
        self.pruner: Pruner | None = None

    def begin(self, model: nn.Module, loop: TrainingLength, done: int = 0) -> None:
        """Create the pruner, or restore it from the loop's checkpoint.

        Args:
            done: steps that the loop has already done.

        Raises:
            InputError: the loop is too short for the removal, or the saved state belongs to another run.
        """
        saved, self._saved = self._saved, None
        # Creating a pruner can change weights: hard removal does, possibly at random.
        reshard(fsdp_modules(model))
        loaded = {name: weight.detach().clone() for name, weight in model.named_parameters()} if saved else {}
        with warnings.catch_warnings():
            if saved:  # the selection made now is replaced by the saved one
                warnings.simplefilter("ignore", LayerCollapseWarning)
            pruner = self._make(model, loop)
        if not isinstance(pruner, Pruner):
            raise InputError(f"make: it gave {shown(pruner)}; expected a compress.Pruner")
        self._names = _names(pruner, model)
        try:
            if saved:
                self._restore(pruner, saved, loaded)
            left = None if loop.total is None else loop.total - done + pruner.steps_done
            if left is not None and pruner.removal.length > left:
                raise InputError(
                    f"the removal takes {count_of(pruner.removal.length, 'step')} and the loop has only {left}: make "
                    "the removal shorter or the loop longer"
                )
        except InputError:
            self._names.remove()
            fold(model)
            raise
        self.pruner = pruner

    def step(self) -> None:
        """Call after an optimizer step, even if a loss scaler skipped it, as the loop's own length counts those."""
        if self.pruner is not None:
            self.pruner.step()

    def end(self) -> None:
        """Make zeros final and names plain. A loop that was stopped early ends in an EarlyRemovalWarning."""
        if self.pruner is None or self._names is None:
            return
        self._final = self.state_dict()  # for checkpoints written after this
        self._names.remove()
        self.pruner.finalize()
        self._names = None

    def state_dict(self) -> dict[str, Any]:
        """The state as numbers, names and tensors; empty before the beginning.

        Loops write it in one process. So tensors that are sharded are whole in it, in the memory of the processor of
        the first process of each machine; all processes have to call this, which sends them.
        """
        if self.pruner is None or self._names is None:
            return self._final
        state = {"pruner": self.pruner.state_dict(), "tensors": self._names.hidden()}
        return {key: _whole(value) for key, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`: now, or as soon as the loop begins.

        Raises:
            InputError: the state belongs to another run.
        """
        if self.pruner is None or self._names is None:
            self._saved = state
        elif state:
            self._restore(self.pruner, state, self._names.values())

    def _restore(self, pruner: Pruner, state: Mapping[str, Any], loaded: Mapping[str, Tensor]) -> None:
        """loaded: the effective parameters of the model when it was saved."""
        assert self._names is not None
        self._names.reveal(state["tensors"], loaded)
        pruner.load_state_dict(state["pruner"])
        values = self._names.values()
        differs = [not torch.equal(local(weight), local(loaded[name])) for name, weight in values.items()]
        somewhere = Reducer.of(values.values()).largest(torch.tensor(differs, dtype=torch.int64)).tolist()
        for name, different in zip(values, somewhere, strict=True):
            if different:
                raise InputError(
                    f"the state of the pruner does not belong to the weights that were loaded: {name} differs where "
                    "it is pruned; resume weights and state from the same checkpoint"
                )


def _whole(state: Any) -> Any:
    if isinstance(state, Tensor) and is_sharded(state):
        whole = gathered(state)
        return whole.cpu() if int(os.environ.get("LOCAL_RANK", 0)) == 0 else whole.new_empty(0)
    if isinstance(state, dict):
        return {key: _whole(value) for key, value in state.items()}
    return [_whole(value) for value in state] if isinstance(state, list) else state


def _names(pruner: Pruner, model: nn.Module) -> PlainNames:
    try:
        return PlainNames(pruner, model)
    except InputError:
        fold(model)
        raise


def _require_maker(make: object) -> None:
    """Raise InputError unless it is a function of a model and a TrainingLength."""
    if not callable(make) or isinstance(make, type):
        raise InputError(f"make: found {shown(make)}; expected a function of the model and its training's length")
    try:
        inspect.signature(make).bind(None, None)
    except TypeError as error:
        raise InputError(f"make: it is called with the model and its training's length: {error}") from error
    except ValueError:  # a function whose signature nobody knows
        pass
