"""`Pruner`: selects weights or nodes, and removes them in any training loop.

pruner = Pruner(model, nodes("*", exclude="stem.*"), macs=0.5, example=x, criterion="taylor_square",
                batches=loader, loss=loss, removal=Soft(steps=1000))
for x, y in loader:
    loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
    pruner.step()
pruner.finalize()
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.network import require_parameters
from compress.graph.traced_once import TracedOnce
from compress.options import check, shown
from compress.remove.removals import Hard, Removal, removal_of
from compress.remove.remover import Remover
from compress.select.criteria import Criterion
from compress.select.pattern import Pattern
from compress.select.pruned import Pruned
from compress.select.regrow import Regrowth
from compress.select.scoring import BatchSource, ScoreFunction
from compress.select.selections import selection_of
from compress.select.targets import AnyTarget, Branches, Nodes, Wanted, Weights, describe, target_of
from compress.shards import fsdp_modules, reshard
from compress.tasks import Loss


class Layer(NamedTuple):
    """One layer of a pruner's target: its name, its number of weights or nodes, and how many are pruned so far."""

    name: str
    size: int
    pruned: int

    @property
    def share(self) -> float:
        return self.pruned / self.size if self.size else 0.0


class Pruner(Remover):
    """Selects weights or nodes by a criterion, and removes them while the rest of the network trains.

    Call `step()` after each step of the optimizer, and `finalize()` at the end. The optimizer may be created before or
    after the pruner. A stage of a recipe has the same arguments.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: AnyTarget | Wanted = "*",
        *,
        sparsity: float | None = None,
        params: float | None = None,
        macs: float | None = None,
        layers: Mapping[str, float] | None = None,
        keep: Sequence[Tensor] | Mapping[str, Tensor] | None = None,
        example: object = None,
        criterion: str | Criterion | ScoreFunction | None = None,
        batches: BatchSource | None = None,
        loss: Loss | None = None,
        removal: str | Removal = Hard(),
        scope: str | Pattern | Mapping[str, int] | None = None,
        multiple_of: int = 1,
        min_keep: int | float | None = None,
        compensate: bool = False,
        regrow: Regrowth | float | None = None,
        earlier: "Pruner | Pruned | None" = None,
        seed: int = 0,
        mask_gradients: bool = True,
        start: bool = True,
        traced: TracedOnce | None = None,
    ) -> None:
        """
        Args:
            targets: `weights(...)` or `nodes(...)`; a pattern, a module, a parameter, or a list of these means weights.
            sparsity: fraction of the original entries or nodes to prune, in [0, 1). Instead, you can give exactly one
                of `params`, `macs`, `layers` and `keep`.
            params, macs: for nodes, the fraction of the network's parameters or multiply-adds to keep, in (0, 1).
            layers: the sparsity of each layer, by patterns of names; the first pattern that matches counts.
            keep: the masks themselves, bool, True = keep: for weights one of each target's shape, in their order or by
                name; for nodes [nodes] by layer.
            example: for nodes, the inputs to trace the network with: a tensor, a tuple or list of arguments, a
                dict of keyword arguments, or `Inputs(args, kwargs)`.
            criterion: what is pruned first: a word, an object such as `Taylor(samples=1000)`, or a function from a
                tensor of weights to a score for each entry, larger = keep. By default "magnitude" for weights and
                "norms" for nodes.
            batches: scoring data that can be iterated over repeatedly: a loader, a list, or a function from a batch
                size to one of these. A batch is a pair (input, target), with the input in any form that `example`
                takes; a dict of keyword arguments, whose "labels" are the target; or only an input, for criteria
                without a target.
            loss: (output, target) -> mean over the batch. Without it, a network whose forward takes labels or targets
                is scored by the loss in its own output.
            removal: how they are removed; by default at once.
            scope: what is ranked together: weights of all targets ("global", the default), of each ("layer"), of
                each with a share by its shape ("erk"), or of m consecutive inputs, n of which are kept ({"n": 2,
                "m": 4}, which sets the sparsity); nodes of each width ("layer", the default), of widths with the same
                structure ("isomorphic"), or of all ("global").
            multiple_of: for nodes, round widths up to a multiple of it.
            min_keep: the least that every layer keeps: a number of entries or nodes, or a share in (0, 1). If None, a
                quarter of each width where nodes of several layers compete (`scope`) or share a budget, or half of what
                an equal cut would leave, if that is less; 0 is no floor.
            compensate: for what is removed at once, adjust the kept weights by least squares on `batches`, layer by
                layer, so that they make up for what is pruned (`compress.prune` does, and slims).
            regrow: for weights that are removed gradually, the share of removed ones that grow back at each selection.
            earlier: a finished pruner of the same model, or the `pruned` of several: what they pruned remains pruned,
                and counts.
            seed: seeds the random numbers.
            mask_gradients, start: see `Remover`.
            traced: shares traces between pruners of copies of a network.

        Raises:
            InputError: an option does not exist, contradicts another, or is missing.
            TargetError: a target does not exist, is computed from other parameters (weight_norm), or is pruned
                already.
            UnsupportedModelError: the network cannot be traced, or a layer must keep its width.
        """
        self._target = target_of(targets)
        require_parameters(model, sharded=isinstance(self._target, Weights))
        reshard(fsdp_modules(model))
        how, self._before = removal_of(removal), _earlier(model, earlier)
        check("mask_gradients", mask_gradients, bool)
        check("compensate", compensate, bool)
        check("start", start, bool)
        _refuse(
            keep is not None and how.grows,
            f"keep gives the whole set at once, and {how.word} removal lets it grow; use sparsity",
        )
        _refuse(
            regrow is not None and not how.grows,
            f"regrow: {how.word} removal chooses once, or its weights grow back anyway; use Gradual or GradualSoft",
        )
        self.selection = selection_of(
            model,
            self._target,
            sparsity=sparsity,
            params=params,
            macs=macs,
            layers=layers,
            keep=keep,
            example=example,
            criterion=criterion,
            batches=batches,
            loss=loss,
            scope=scope,
            multiple_of=multiple_of,
            min_keep=min_keep,
            regrow=regrow,
            earlier=self._before,
            seed=seed,
            restore=not start,
            traced=traced,
        )
        if compensate:
            _refuse(
                how.length > 0,
                f"compensate makes up for what is removed at once, and {how.word} removal takes its time; use Hard()",
            )
            if start:  # before any mask is set
                self.selection.choose_now()
                self.selection.compensate()
        super().__init__(
            model,
            self.selection.paths,
            self.selection,
            self.selection.target_share,
            how,
            mask_gradients=mask_gradients,
            emptied=self._whole_tensors(),
            start=start,
        )

    @property
    def pruned(self) -> Pruned:
        """What this pruner and earlier ones have pruned; pass it as `earlier` to the next one."""
        found = self._before.copy()
        self.selection.add_to(found)
        return found

    @property
    def achieved(self) -> float:
        """The sparsity so far, or the share of the parameters or multiply-adds left."""
        return self.selection.achieved

    def layers(self) -> list[Layer]:
        """Each layer of the target: its name, its number of weights or nodes, and how many are pruned so far."""
        pruned = self.selection.pruned_in
        return [Layer(name, size, pruned.get(name, 0)) for name, size in self.selection.layers.items()]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "selection": self.selection.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.selection.load_state_dict(state["selection"])

    def __repr__(self) -> str:
        """The target and the progress of the removal, in a line."""
        count, total = self.selection.count
        kinds = {Nodes: "nodes", Branches: "branches"}
        things = next((word for kind, word in kinds.items() if isinstance(self._target, kind)), "weights")
        share = f"{count / total:.1%}" if total else "0%"
        return f"Pruner({describe(self._target)}: {count:,} of {total:,} {things} ({share}), {self._progress()})"

    def _whole_tensors(self) -> Collection[str]:
        """Tensors at the ends of branches, which lose everything."""
        if isinstance(self._target, Branches):
            return self.selection.paths
        return [path for path, mask in self._before.keep.items() if not bool(mask.any())]

    def _progress(self) -> str:
        word, length = self.removal.word, self.removal.length
        if self._finalized:
            return f"{word}, finished"
        if not length:
            return f"{word}, removed at once"
        factor = "" if self.factor is None else f", at {self.factor:.3g} of their start"
        return f"{word}, step {min(self.steps_done, length):,} of {length:,}{factor}"


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise InputError(why)


def _earlier(model: nn.Module, earlier: object) -> Pruned:
    if earlier is None:
        return Pruned()
    if isinstance(earlier, Pruner):
        _refuse(not earlier._finalized, "earlier: this pruner has not finished; call its finalize() first")
        earlier = earlier.pruned
    if isinstance(earlier, Pruned):
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        wrong = [name for name, mask in earlier.keep.items() if shapes.get(name) != mask.shape]
        _refuse(bool(wrong), f"earlier: it pruned another network, or this one has changed since: {', '.join(wrong)}")
        return earlier
    raise InputError(f"earlier: found {shown(earlier)}; expected a Pruner of the same model, or its `pruned`")
