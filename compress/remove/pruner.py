"""The driver of every removal, in anybody's training loop; a removal only says what happens at its steps.

pruner = Pruner(model, ["decoder.*"], 0.9, removal=Gradual(ramp=600, every=20))
for x, y in loader:
    loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
    pruner.step()
pruner.finalize()
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.errors import InputError, TargetError
from compress.remove.learning import LearningMethod, caller_of
from compress.remove.masks import Place, SoftPruningMethod, tensors
from compress.select.choose import Scope, choose, warn_of_collapse
from compress.select.criteria import ENTRYWISE, Criterion, magnitude
from compress.select.scores import Scores, gone_first
from compress.select.targets import Target, TargetLike, resolve

Chooser = Callable[[float, Sequence[Tensor]], Sequence[Tensor]]
"""(sparsity, what is gone) -> what is kept: bool tensors of the targets' shapes, in their order.

Called whenever the set is taken anew; what is gone (True, exactly zero) is to go again, or comes back at zero.
"""


class EarlyRemovalWarning(UserWarning):
    """`finalize()` had to cut weights that were not gone yet."""


class Removal:
    """How chosen entries go. A member overrides what it does at its start, at a step, and at its end."""

    steps: int
    """Everything chosen is exactly zero after so many steps; 0 is at once."""

    learns = False
    """Whether what is chosen goes on learning; if not, it gets no gradient and no optimizer moves it (eq. 1)."""

    together = False
    """Whether all that is chosen stands at one and the same factor, on its way from 1 to 0."""

    cohorts = False
    """Whether entries join the set at several times, may leave it while they fade, and are `cut` by their age."""

    def start(self, pruner: "Pruner") -> None:
        """Before the first step."""
        pruner.take()

    def advance(self, pruner: "Pruner", step: int) -> None:
        """After the optimizer's step number `step`, in [1, steps)."""

    def finish(self, pruner: "Pruner") -> None:
        """At step `steps`: afterwards everything chosen is exactly zero."""
        pruner.fade_to(0.0)


class Pruner:
    """Chooses the entries that go, and takes them away as `removal` says while the rest trains.

    The optimizer may have been made before or after. Between the optimizer's step and `pruner.step()` a pruned entry
    can have been moved by momentum or weight decay; `step` puts it back on its way (eq. 1), so that the forward
    pass never sees it anywhere else.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[TargetLike] = ("*",),
        sparsity: float | None = None,
        *,
        removal: Removal,
        criterion: Criterion = magnitude,
        scope: Scope = "global",
        min_keep: int | float | None = None,
        bias: bool = False,
        keep: Sequence[Tensor] | None = None,
        chooser: Chooser | None = None,
        mask_gradients: bool = True,
        start: bool = True,
    ) -> None:
        """
        Args:
            targets: patterns, parameters or (module, name) pairs, see `compress.select.targets.resolve`. `bias` lets
                patterns take biases too.
            sparsity: fraction of the targets' entries that goes, in [0, 1); see `choose` for `scope` and `min_keep`.
            keep: instead of `sparsity`, the masks themselves: a bool tensor per target, in their order, True = keep.
            chooser: with `sparsity`, what chooses instead of `criterion`, `scope` and `min_keep`.
            mask_gradients: whether pruned entries get a gradient of zero. Without, a step is faster, and the weights
                are the same to the last bit as long as no entry leaves the set, the optimizer treats every entry by
                itself (SGD, Adam, AdamW; not Muon) and gradients are not clipped together.
            start: whether to choose. Not where `load_state_dict` comes next: what was chosen is in the model's state.

        Raises:
            InputError: contradicting or missing arguments.
            TargetError: targets that do not exist, are shared, or are pruned already.
        """
        self._model, self.removal = model, removal
        self.targets = resolve(model, targets, bias=bias)
        if (sparsity is None) == (keep is None):
            raise InputError("give either sparsity=... or keep=..., the masks themselves")
        self._sparsity = 1.0 if sparsity is None else sparsity
        if keep is not None:
            self._choose = _given(keep, self.targets)
        else:
            self._choose = chooser or _by_scores(self.targets, criterion, scope, min_keep)
        self.steps_done = 0
        self._complete = False  # whether the set has once been all that goes
        self._finalized = False
        self.share = 0.0
        """How much of what goes in the end is in the set, in [0, 1]."""
        self._factor = 1.0  # of all pruned entries, if they have one in common
        self._places: list[Place] = []
        self._mask_gradients = mask_gradients
        self._joined: list[Tensor] = []  # the steps at which entries joined the set, of a removal with cohorts
        self._apply(start)

    @property
    def removed(self) -> bool:
        """Whether all pruned entries are exactly zero."""
        return self.steps_done >= self.removal.steps

    @property
    def removes_next(self) -> bool:
        """Whether the coming `step` takes the last of the pruned entries away: the moment to measure before it."""
        return self.steps_done + 1 == self.removal.steps

    @property
    def factor(self) -> float | None:
        """What pruned entries are multiplied by at this moment, from 1 to 0; None where each is on a way of its own."""
        return self._factor if self.removal.together else None

    @property
    def achieved(self) -> float:
        """Fraction of the targets' entries that are chosen to go."""
        pruned = [pruned for _, _, pruned in self._tensors()]
        return sum(int(mask.count_nonzero()) for mask in pruned) / sum(mask.numel() for mask in pruned)

    @torch.no_grad()
    def step(self) -> None:
        """Take the pruned entries one step further. Call it after `optimizer.step()`."""
        self._refuse_finalized("step")
        self.steps_done += 1
        if self.steps_done < self.removal.steps:
            self.removal.advance(self, self.steps_done)
        elif self.steps_done == self.removal.steps:
            self.removal.finish(self)
        self.hold()

    def hold(self) -> None:
        """Put the pruned entries where they stood before `optimizer.step()`; `step` does it too, one step further."""
        if self._places:
            one = self.removal.together or self._factor == 0
            type(self._places[0][1]).place(self._places, self._factor if one else None)

    def finalize(self) -> None:
        """Pruned entries become exactly 0.0 and parameters plain again. A second call does nothing.

        Warns with `EarlyRemovalWarning` where the loop was shorter than the removal.
        """
        if self._finalized:
            return
        if not self.removed:
            warnings.warn(
                f"the removal takes {self.removal.steps} steps and the loop made {self.steps_done}: what was on its "
                "way is cut now; make the removal shorter or the loop longer",
                EarlyRemovalWarning,
                stacklevel=2,
            )
            self.steps_done = self.removal.steps
            self.removal.finish(self)
        for target in self.targets:
            prune.remove(target.module, target.name)  # type: ignore[no-untyped-call]
        self._finalized = True

    # --- what a removal does to the entries ---

    @torch.no_grad()
    def take(self, share: float = 1.0) -> None:
        """Choose anew what goes: `share` of all that goes in the end.

        Who joins the set decays from its present value, and who leaves it trains on from its present value.
        """
        self.hold()  # the optimizer has moved the weights since
        before = self._tensors()
        keep = self._choose(share * self._sparsity, [pruned & (mask == 0) for _, mask, pruned in before])
        for joined, (_, _, pruned), mask in zip(self._joined, before, keep, strict=False):
            joined.masked_fill_(~(mask.to(pruned.device) | pruned), self.steps_done)
        for (module, method), mask in zip(self._places, keep, strict=True):
            method.take(module, mask)
        if share == 1.0 and not self._complete:
            warn_of_collapse(keep, [target.path for target in self.targets])
            self._complete = True
        self._factor, self.share = 1.0, share

    def fade_to(self, factor: float) -> None:
        """All pruned entries act as `factor` times their start at the end of this step; 0 is for good."""
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
        """The mask of every pruned entry is multiplied by `factor`."""
        for module, method in self._places:
            method.fade_by(module, factor)

    @torch.no_grad()
    def cut(self, latest: int) -> None:
        """Pruned entries that joined the set at step `latest` or earlier are gone; for removals with `cohorts`."""
        for (module, method), joined in zip(self._places, self._joined, strict=True):
            method.vanish(module, joined <= latest)

    @torch.no_grad()
    def shrink(self, factor: float) -> None:
        """The pruned entries themselves are multiplied by `factor`, and may grow again: for removals that learn."""
        for module, method in self._places:
            tensors(module, method._tensor_name)[0].mul_(method.lowered(module, factor))

    # --- resuming ---

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's own state_dict (which holds the sets and what fades)."""
        return {
            "steps_done": self.steps_done,
            "removal_steps": self.removal.steps,
            "targets": [target.path for target in self.targets],
            "factor": self._factor,
            "share": self.share,
            "complete": self._complete,
            "joined": self._joined,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume: make the pruner as before (with `start=False`), load the *model's* state_dict, then this one.

        Raises:
            InputError: the state is of other targets or of another removal.
        """
        self._refuse_finalized("load_state_dict")
        mine = self.state_dict()
        for key in ("targets", "removal_steps"):
            if state.get(key) != mine[key]:
                raise InputError(f"this state is of another run: its {key} are {state.get(key)}, here {mine[key]}")
        self.steps_done, self._factor = int(state["steps_done"]), float(state["factor"])
        self.share, self._complete = float(state["share"]), bool(state["complete"])
        for joined, saved in zip(self._joined, state["joined"], strict=True):
            joined.copy_(saved)
        self.hold()

    # --- inside ---

    def _tensors(self) -> list[tuple[nn.Parameter, Tensor, Tensor]]:
        """(weight_orig, weight_mask, weight_pruned) of every target."""
        return [tensors(target.module, target.name) for target in self.targets]

    def _apply(self, start: bool) -> None:
        try:
            for target in self.targets:
                self._places.append((target.module, self._mark(target)))
            if start:
                self.removal.start(self)
                if self.removed:
                    self.removal.finish(self)
        except (InputError, RuntimeError):
            for module, method in self._places:
                prune.remove(module, method._tensor_name)  # type: ignore[no-untyped-call]
            raise
        self.hold()

    def _mark(self, target: Target) -> SoftPruningMethod:
        nothing = torch.ones_like(target.parameter, dtype=torch.bool)
        if self.removal.cohorts:
            self._joined.append(torch.zeros_like(nothing, dtype=torch.int32))
        if self.removal.learns:
            caller = caller_of(self._model, target.module)
            return LearningMethod.apply(target.module, target.name, nothing, caller=caller)
        fades, masks = self.removal.steps > 0, self._mask_gradients
        return SoftPruningMethod.apply(target.module, target.name, nothing, fades=fades, mask_gradients=masks)

    def _refuse_finalized(self, what: str) -> None:
        if self._finalized:
            raise InputError(f"{what} after finalize(): the masks are gone; make a new pruner")


def _by_scores(targets: Sequence[Target], criterion: Criterion, scope: Scope, min_keep: int | float | None) -> Chooser:
    names = [target.path for target in targets]

    def chooser(sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        weights = [target.parameter for target in targets]
        if criterion in ENTRYWISE:
            scores = [Scores(criterion, weight) for weight in weights]
        else:
            scores = [Scores.of(criterion(weight)) for weight in weights]
        scores = [score.then(gone_first, dead) for score, dead in zip(scores, gone, strict=True)]
        return choose(scores, sparsity, scope=scope, min_keep=min_keep, names=names)

    return chooser


def _given(keep: Sequence[Tensor], targets: Sequence[Target]) -> Chooser:
    if len(keep) != len(targets):
        raise InputError(
            f"{len(keep)} masks for {len(targets)} targets: {', '.join(target.path for target in targets)}"
        )
    for mask, target in zip(keep, targets, strict=True):
        if mask.shape != target.parameter.shape or mask.dtype != torch.bool:
            raise TargetError(
                f"the mask for {target.path} is {mask.dtype} {tuple(mask.shape)}; "
                f"it must be bool {tuple(target.parameter.shape)}"
            )
    return lambda sparsity, gone: keep
