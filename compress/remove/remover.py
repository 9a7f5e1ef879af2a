"""`Remover`: runs any removal in any training loop; a removal only defines what happens at its steps."""

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.errors import InputError
from compress.remove.learning import LearningMethod, caller_of
from compress.remove.masks import Masked, SoftPruningMethod, parameter_of, tensors
from compress.remove.removals import Removal
from compress.remove.sharded import ShardedLearningMethod, ShardedMethod
from compress.run_warnings import RunWarning
from compress.select.choose import warn_of_collapse
from compress.select.targets import Target, Weights, resolve
from compress.shards import fsdp_modules, is_sharded, like, local, reshard, spread
from compress.wording import count_of

Chooser = Callable[[float, Sequence[Tensor]], Sequence[Tensor]]
"""(share to prune by now, removed entries) -> kept entries: bool tensors of the targets' shapes, in their order.

Called for each selection; entries that are removed (True, exactly zero) are pruned again, or grow back from zero.
"""


class EarlyRemovalWarning(RunWarning):
    """`finalize()` had to zero weights that were still decaying."""

    kind = "early_removal"


class Remover:
    """Removes the entries that a chooser selects, in the way of `removal`, while the rest trains.

    The optimizer may be created before or after. Momentum or weight decay can move a pruned entry in the optimizer's
    step; `step` sets it to its value by eq. 1 again, so the forward pass never sees another value.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        chooser: Chooser,
        share: float,
        removal: Removal,
        *,
        mask_gradients: bool = True,
        emptied: Collection[str] = (),
        start: bool = True,
    ) -> None:
        """
        Args:
            paths: qualified names of parameters.
            share: the final share to request from the chooser.
            mask_gradients: whether pruned entries get a gradient of zero. Without it, a step is faster, and the weights
                are the same to the last bit if no entry leaves the set, the optimizer updates every entry
                independently (SGD, Adam, AdamW; not Muon) and gradients are not clipped together.
            emptied: paths that are meant to lose everything, which is no LayerCollapseWarning there.
            start: whether to select. False if `load_state_dict` follows: the model's state contains the selection.

        Raises:
            TargetError: a parameter does not exist, or is pruned already.
        """
        self._model, self.removal, self._sharding = model, removal, fsdp_modules(model)
        self.targets = resolve(model, Weights(tuple(paths))) if paths else []
        self._choose, self._final_share = chooser, share
        self.steps_done = 0
        self._complete = False  # whether the set has been complete once
        self._finalized = False
        self.share = 0.0
        """How much of the final set is in the set, in [0, 1]."""
        self._factor = 1.0  # of all pruned entries, if they share one
        self._places: list[Masked] = []
        self._by_kind: dict[type[SoftPruningMethod], list[Masked]] = {}
        self._mask_gradients, self._emptied = mask_gradients, emptied
        self._joined: list[Tensor] = []  # the steps at which entries joined the set, of a removal with cohorts
        self._apply(start)

    @property
    def removed(self) -> bool:
        """Whether all pruned entries are exactly zero."""
        return self.steps_done >= self.removal.length

    @property
    def removes_next(self) -> bool:
        """Whether the coming `step` zeroes the last of the pruned entries: the moment to measure before it."""
        return self.steps_done + 1 == self.removal.length

    @property
    def factor(self) -> float | None:
        """The present factor of pruned entries, from 1 to 0; None where each decays by itself."""
        return self._factor if self.removal.together else None

    @torch.no_grad()
    def step(self) -> None:
        """Bring the pruned entries one step closer to zero. Call it after `optimizer.step()`."""
        self._refuse_finalized("step")
        reshard(self._sharding)
        self.steps_done += 1
        if self.steps_done < self.removal.length:
            self.removal.advance(self, self.steps_done)
        elif self.steps_done == self.removal.length:
            self.removal.finish(self)
        self.hold()

    def hold(self) -> None:
        """Put the pruned entries back to their values before `optimizer.step()`; `step` also moves them on."""
        if self._finalized:
            return
        reshard(self._sharding)
        one = self.removal.together or self._factor == 0
        for kind, places in self._by_kind.items():
            kind.place(places, self._factor if one else None)

    def finalize(self) -> None:
        """Set pruned entries to exactly 0.0 and make parameters plain again. A second call does nothing.

        Warns with `EarlyRemovalWarning` where the loop was shorter than the removal.
        """
        if self._finalized:
            return
        reshard(self._sharding)
        if not self.removed:
            warnings.warn(
                EarlyRemovalWarning(
                    f"the removal takes {count_of(self.removal.length, 'step')} and the loop made {self.steps_done}: "
                    "weights that were still decaying are set to zero now",
                    "make the removal shorter or the loop longer",
                ),
                stacklevel=2,
            )
            self.steps_done = self.removal.length
            self.removal.finish(self)
        for target in self.targets:
            prune.remove(target.module, target.name)  # type: ignore[no-untyped-call]
        self._finalized = True

    # --- what a removal does to the entries ---

    @torch.no_grad()
    def take(self, share: float = 1.0) -> None:
        """Choose the set again: `share` of the final one.

        Entries that join it decay from their present value, and entries that leave it keep learning from theirs.
        """
        self.hold()  # the optimizer has moved the weights since
        before = [tensors(target.module, target.name) for target in self.targets]
        removed = [pruned & (mask == 0) for _, mask, pruned in before]
        wholes = [parameter_of(target.module, target.name) for target in self.targets]
        keep = self._choose(share * self._final_share, list(map(like, removed, wholes)))
        del removed  # they are as large as the masks
        for joined, (_, _, pruned), mask in zip(self._joined, before, keep, strict=False):
            local(joined).masked_fill_(~(local(mask).to(pruned.device) | pruned), self.steps_done)
        for (module, method), mask in zip(self._places, keep, strict=True):
            method.take(module, mask)
        if share == 1.0 and not self._complete:
            own = {target.path: mask for target, mask in zip(self.targets, keep, strict=True)}
            names = [path for path in own if path not in self._emptied]
            warn_of_collapse([own[path] for path in names], names)
            self._complete = True
        self._factor, self.share = 1.0, share

    @torch.no_grad()
    def fade_to(self, factor: float) -> None:
        """Set all pruned entries to `factor` times their start at the end of this step; 0 is final."""
        self._factor = factor
        if self.removal.together and factor != 0:
            return  # `hold` lowers the masks of all
        for module, method in self._places:
            if factor == 0:
                method.vanish(module)
            else:
                method.fade_to(module, factor)

    @torch.no_grad()
    def fade_by(self, factor: float) -> None:
        """Multiply the mask of every pruned entry by `factor`."""
        for module, method in self._places:
            method.fade_by(module, factor)

    @torch.no_grad()
    def cut(self, latest: int) -> None:
        """Zero pruned entries that joined the set at step `latest` or earlier; for removals with `cohorts`."""
        for (module, method), joined in zip(self._places, self._joined, strict=True):
            method.vanish(module, local(joined) <= latest)

    @torch.no_grad()
    def shrink(self, factor: float) -> None:
        """Multiply the pruned entries themselves by `factor`; they may grow again: for removals that learn."""
        for module, method in self._places:
            tensors(module, method._tensor_name)[0].mul_(method.lowered(module, factor))

    # --- resuming ---

    def state_dict(self) -> dict[str, Any]:
        """The state to resume with, beside the model's own state_dict (which has the sets and the decaying values)."""
        return {
            "steps_done": self.steps_done,
            "removal_steps": self.removal.length,
            "targets": [target.path for target in self.targets],
            "factor": self._factor,
            "share": self.share,
            "complete": self._complete,
            "joined": self._joined,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume: make the pruner as before (with `start=False`), load the *model's* state_dict, then this one.

        Raises:
            InputError: the state is of other targets, of another removal, or not a pruner's.
        """
        self._refuse_finalized("load_state_dict")
        mine = self.state_dict()
        if not isinstance(state, dict) or not mine.keys() <= state.keys():
            raise InputError("state: this is not what a pruner's state_dict() gave")
        for key in ("targets", "removal_steps"):
            if state.get(key) != mine[key]:
                raise InputError(f"this state is of another run: its {key} are {state.get(key)}, here {mine[key]}")
        self.steps_done, self._factor = int(state["steps_done"]), float(state["factor"])
        self.share, self._complete = float(state["share"]), bool(state["complete"])
        for joined, saved in zip(self._joined, state["joined"], strict=True):
            local(joined).copy_(local(spread(saved, joined)))
        self.hold()

    # --- inside ---

    def _apply(self, start: bool) -> None:
        try:
            for target in self.targets:
                method = self._mark(target)
                self._places.append((target.module, method))
                self._by_kind.setdefault(type(method), []).append(self._places[-1])
            if start:
                self.removal.start(self)
                if self.removed:
                    self.removal.finish(self)
        except BaseException:  # leave the network as it was
            for module, method in self._places:
                prune.remove(module, method._tensor_name)  # type: ignore[no-untyped-call]
            raise
        self.hold()

    def _mark(self, target: Target) -> SoftPruningMethod:
        nothing = torch.ones_like(target.parameter, dtype=torch.bool)
        sharded = is_sharded(target.parameter)
        if self.removal.cohorts:
            self._joined.append(torch.zeros_like(nothing, dtype=torch.int32))
        if self.removal.learns:
            caller = caller_of(self._model, target.module)
            learning = ShardedLearningMethod if sharded else LearningMethod
            return learning.apply(target.module, target.name, nothing, caller=caller)
        decays, masks = self.removal.length > 0, self._mask_gradients
        method = ShardedMethod if sharded else SoftPruningMethod
        return method.apply(target.module, target.name, nothing, fades=decays, mask_gradients=masks)

    def _refuse_finalized(self, what: str) -> None:
        if self._finalized:
            raise InputError(f"{what} after finalize(): the masks are removed; make a new pruner")
