"""Soft pruning in anybody's training loop."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.errors import InputError, TargetError
from compress.remove import decay as decays
from compress.remove.masks import SoftPruningMethod, set_factor, tensors
from compress.select.choose import Scope, choose, warn_of_collapse
from compress.select.criteria import Criterion, magnitude
from compress.select.targets import TargetLike, resolve


class EarlyRemovalWarning(UserWarning):
    """`finalize()` had to cut weights that had not decayed yet."""


class SoftPruner:
    """Chooses the entries that go, and lets them decay to zero while the rest trains.

        pruner = SoftPruner(model, ["decoder.*"], sparsity=0.9, steps=1000)
        for x, y in loader:
            loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
            pruner.step()
        pruner.finalize()

    The optimizer may have been made before or after. Between the optimizer's step and `pruner.step()` a pruned entry
    can have been moved by momentum or weight decay; `step` puts it back on its curve (eq. 1), so that the forward
    pass never sees it anywhere else.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[TargetLike] = ("*",),
        sparsity: float | None = None,
        *,
        steps: int | None = None,
        factor: float | None = None,
        decay: str | decays.Curve = "exponential",
        final: float = decays.GONE,
        criterion: Criterion = magnitude,
        scope: Scope = "global",
        min_keep: int | float | None = None,
        bias: bool = False,
        keep: Sequence[Tensor] | None = None,
    ) -> None:
        """
        Args:
            targets: patterns, parameters or (module, name) pairs, see `compress.select.targets.resolve`. `bias` lets
                patterns take biases too.
            sparsity: fraction of the targets' entries that goes, in [0, 1); see `choose` for `scope` and `min_keep`.
            steps: the entries are exactly zero after so many calls of `step`; 0 removes them at once.
            factor: instead of `steps`, the x of eq. 1, for the exponential decay.
            decay, final: see `compress.remove.decay.over`.
            keep: instead of `sparsity`, the masks themselves: a bool tensor per target, in their order, True = keep.

        Raises:
            InputError: contradicting or missing arguments.
            TargetError: targets that do not exist, are shared, or are pruned already.
        """
        self.decay = _decay(steps, factor, decay, final)
        self.targets = resolve(model, targets, bias=bias)
        names = [target.path for target in self.targets]
        if (sparsity is None) == (keep is None):
            raise InputError("give either sparsity=... or keep=..., the masks themselves")
        if keep is None:
            assert sparsity is not None
            scores = [criterion(target.parameter) for target in self.targets]
            keep = choose(scores, sparsity, scope=scope, min_keep=min_keep, names=names)
        if len(keep) != len(self.targets):
            raise InputError(f"{len(keep)} masks for {len(self.targets)} targets: {', '.join(names)}")
        warn_of_collapse(keep, names)
        self.steps_done = 0
        self._finalized = False
        self._start: list[Tensor] = []
        self._apply(keep)
        self._hold()

    @property
    def factor(self) -> float:
        """What pruned entries are multiplied by at this moment, from 1 down to 0."""
        return self.decay(self.steps_done)

    @property
    def removed(self) -> bool:
        """Whether all pruned entries are exactly zero."""
        return self.factor == 0.0

    @property
    def removes_next(self) -> bool:
        """Whether the coming `step` takes the last of the pruned entries away: the moment to measure before it."""
        return not self.removed and self.decay(self.steps_done + 1) == 0.0

    @property
    def achieved(self) -> float:
        """Fraction of the targets' entries that are chosen to go."""
        pruned = [tensors(target.module, target.name)[2] for target in self.targets]
        return sum(int(mask.sum()) for mask in pruned) / sum(mask.numel() for mask in pruned)

    @torch.no_grad()
    def step(self) -> None:
        """Take the pruned entries one step down their curve. Call it after `optimizer.step()`."""
        self._refuse_finalized("step")
        self.steps_done += 1
        if self._start:
            for target, start in zip(self.targets, self._start, strict=True):
                orig, _, pruned = tensors(target.module, target.name)
                orig.copy_(torch.where(pruned, start.to(orig), orig))
        self._set_factor()

    def finalize(self) -> None:
        """Pruned entries become exactly 0.0 and parameters plain again. A second call does nothing.

        Warns with `EarlyRemovalWarning` where the loop was shorter than the decay.
        """
        if self._finalized:
            return
        if not self.removed:
            warnings.warn(
                f"the decay takes {self.decay.steps} steps and the loop made {self.steps_done}: weights still at "
                f"{self.factor:.2g} of their start are cut now; make the decay shorter or the loop longer",
                EarlyRemovalWarning,
                stacklevel=2,
            )
            self.steps_done = self.decay.steps
            self._set_factor()
        for target in self.targets:
            prune.remove(target.module, target.name)  # type: ignore[no-untyped-call]
        self._finalized = True
        self._start.clear()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's own state_dict (which holds W0, masks and sets)."""
        return {
            "steps_done": self.steps_done,
            "decay_steps": self.decay.steps,
            "targets": [target.path for target in self.targets],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume: make the pruner as before, load the *model's* state_dict, then this one.

        Raises:
            InputError: the state is of other targets or of another decay.
        """
        self._refuse_finalized("load_state_dict")
        mine = self.state_dict()
        for key in ("targets", "decay_steps"):
            if state.get(key) != mine[key]:
                raise InputError(f"this state is of another run: its {key} are {state.get(key)}, here {mine[key]}")
        self.steps_done = int(state["steps_done"])
        self._hold()
        self._set_factor()

    def _apply(self, keep: Sequence[Tensor]) -> None:
        applied = []
        try:
            for target, mask in zip(self.targets, keep, strict=True):
                SoftPruningMethod.apply(target.module, target.name, mask)
                applied.append(target)
        except TargetError:
            for target in applied:
                prune.remove(target.module, target.name)  # type: ignore[no-untyped-call]
            raise
        self._set_factor()

    def _hold(self) -> None:
        # weight_orig must stay W0 where pruned, and the optimizer moves it: this copy undoes that.
        if not self.removed:
            self._start = [tensors(target.module, target.name)[0].detach().clone() for target in self.targets]

    def _set_factor(self) -> None:
        for target in self.targets:
            set_factor(target.module, target.name, self.factor)
        if self.removed:
            self._start.clear()  # where the mask is 0, it no longer matters what it is laid on

    def _refuse_finalized(self, what: str) -> None:
        if self._finalized:
            raise InputError(f"{what} after finalize(): the masks are gone; make a new pruner")


def _decay(steps: int | None, factor: float | None, curve: str | decays.Curve, final: float) -> decays.Decay:
    if (steps is None) == (factor is None):
        raise InputError("give either steps=... (gone after so many steps) or factor=... (the x of eq. 1)")
    if steps is not None:
        return decays.over(steps, curve, final=final)
    assert factor is not None
    if curve != "exponential":
        raise InputError(f"factor={factor} belongs to the exponential decay; for another curve give steps=...")
    return decays.by_factor(factor, final=final)
