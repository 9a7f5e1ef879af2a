"""Makes the selection of weights, nodes or branches that a pruner's arguments describe."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.network import require_parameters
from compress.graph.traced_once import TracedOnce
from compress.inputs import inputs_of
from compress.options import check, shown
from compress.select.amount import Amount
from compress.select.branch_selection import BranchSelection
from compress.select.criteria import Criterion, criterion_of
from compress.select.node_selection import NodeSelection
from compress.select.pattern import Pattern
from compress.select.pruned import Pruned
from compress.select.regrow import Regrowth
from compress.select.scoring import BatchSource, ScoreFunction, Scoring, require_source
from compress.select.selection import Selection, generator_of
from compress.select.targets import AnyTarget, Branches, Nodes, Wanted, Weights, resolve, target_of
from compress.select.weight_selection import WeightSelection
from compress.tasks import Loss


def selection_of(
    model: nn.Module,
    targets: AnyTarget | Wanted,
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
    scope: str | Pattern | Mapping[str, int] | None = None,
    multiple_of: int = 1,
    min_keep: int | float | None = None,
    regrow: Regrowth | float | None = None,
    earlier: Pruned | None = None,
    seed: int = 0,
    restore: bool = False,
    traced: TracedOnce | None = None,
) -> Selection:
    """The selection for a pruner's arguments; see `compress.remove.pruner.Pruner`.

    Args:
        restore: whether the network's weights and the choice will be loaded.
        traced: the owner of the traces, where several selections share it.

    Raises:
        InputError, TargetError, UnsupportedModelError: as `Pruner`.
    """
    target, before = target_of(targets), earlier or Pruned()
    require_parameters(model, sharded=isinstance(target, Weights))
    require_source(batches, loss)
    check("seed", seed, int, ge=-(2**63), lt=2**64)  # the range of torch's seeds
    check("multiple_of", multiple_of, int, ge=1)
    if traced is not None and not isinstance(traced, TracedOnce):
        raise InputError(f"traced: found {shown(traced)}; expected an object of TracedOnce")
    if keep is not None:
        chosen = {"scope": scope is not None, "multiple_of": multiple_of > 1, "min_keep": min_keep is not None}
        if given := [name for name, is_given in chosen.items() if is_given]:
            raise InputError(f"found keep and {' and '.join(given)}; keep is the choice itself, so leave them out")
    if isinstance(target, Branches):
        _refuse_for_branches(
            keep=keep is not None,
            scope=scope is not None,
            multiple_of=multiple_of > 1,
            min_keep=min_keep is not None,
            regrow=regrow is not None,
        )
    scoring = Scoring(model, generator_of(seed), batches, loss)
    pattern = Pattern.of(scope)
    if pattern is not None and isinstance(target, Nodes):
        raise InputError(
            f"the pattern {pattern} is for weights, and the target is nodes; use layer, isomorphic or global"
        )
    if pattern is not None and all(amount is None for amount in (sparsity, params, macs, layers)):
        sparsity = pattern.share
    amount = _amount(keep, sparsity=sparsity, params=params, macs=macs, layers=layers)
    if example is not None or isinstance(target, Nodes | Branches):
        inputs_of(example)
    if isinstance(target, Branches):
        assert amount is not None
        return BranchSelection(
            target,
            criterion_of("ablation" if criterion is None else criterion),
            amount,
            scoring,
            before,
            example,
            traced or TracedOnce(),
            restore=restore,
        )
    if isinstance(target, Nodes):
        if _regrowth(regrow) is not None:
            raise InputError("regrow is for weights, and the target is nodes, which remain chosen")
        return NodeSelection(
            target,
            criterion_of("norms" if criterion is None else criterion),
            amount,
            scoring,
            before,
            example,
            traced or TracedOnce(),
            keep=keep,
            scope=scope,  # type: ignore[arg-type]  # no pattern
            multiple_of=multiple_of,
            min_keep=min_keep,
            restore=restore,
        )
    if multiple_of > 1:
        raise InputError("multiple_of is for nodes, and the target is weights")
    return WeightSelection(
        resolve(model, target),
        criterion_of("magnitude" if criterion is None else criterion),
        amount,
        scoring,
        before,
        keep=keep,
        scope=pattern or scope,  # type: ignore[arg-type]  # a mapping is a pattern
        min_keep=min_keep,
        regrow=_regrowth(regrow),
    )


def _refuse_for_branches(**given: bool) -> None:
    if names := [name for name, is_given in given.items() if is_given]:
        raise InputError(f"{names[0]} is for weights or nodes, and the target is branches; leave it out")


def _amount(keep: object, **given: float | Mapping[str, float] | None) -> Amount | None:
    """None where the masks themselves are given."""
    if keep is None:
        return Amount.of(**given)  # type: ignore[arg-type]  # it checks them
    if names := [name for name, value in given.items() if value is not None]:
        raise InputError(f"found keep and {' and '.join(names)}; give exactly one of them")
    return None


def _regrowth(regrow: object) -> Regrowth | None:
    if regrow is None or isinstance(regrow, Regrowth):
        return regrow
    check("regrow", regrow, float, gt=0, lt=1)
    assert isinstance(regrow, float | int)
    return Regrowth(regrow)
