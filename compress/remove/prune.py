"""`prune`: a smaller network in one call, from some samples and without training."""

import torch
from torch import nn

from compress.errors import InputError
from compress.graph.network import require_parameters, require_unwrapped, uncompiled
from compress.graph.traced_once import TracedOnce
from compress.graph.twin import copied
from compress.inputs import inputs_of
from compress.options import check, shown
from compress.remove.pruner import Pruner
from compress.select.criteria import Criterion, criterion_of
from compress.select.criteria.ablation import Ablation
from compress.select.criteria.ranked_once import RankedOnce
from compress.select.pattern import Pattern
from compress.select.scoring import BatchSource, ScoreFunction
from compress.select.targets import AnyTarget, Branches, Nodes, Wanted, nodes
from compress.slimming.shrink import slim
from compress.tasks import Loss

BRANCH_SAMPLES = 256
"""On which branches are compared: each comparison takes a pass over them."""


def prune(
    model: nn.Module,
    example: object,
    *,
    batches: BatchSource,
    macs: float | None = None,
    params: float | None = None,
    sparsity: float | None = None,
    target: AnyTarget | Wanted | None = None,
    criterion: str | Criterion | ScoreFunction | None = None,
    loss: Loss | None = None,
    scope: str | Pattern | dict[str, int] | None = None,
    multiple_of: int = 1,
    min_keep: int | float | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a smaller copy of `model`, without training: choose, remove, compensate, slim, prove.

    The kept weights are adjusted by least squares, layer by layer, so that each layer computes from what is left what
    it computed in the dense network; norms get the statistics of what reaches them then. The copy is proven to compute
    the same as the network with zeros in place of what was pruned. `model` does not change.

    Args:
        example: inputs of the network (see `compress.Inputs`).
        batches: some hundred samples like those of the training: a loader, a list, or a function from a batch size to
            one of these; labels are ignored, unless `criterion` needs them. At most 1,000 samples are used, and fewer
            if they are large.
        macs, params: the fraction of the network's multiply-adds or parameters to keep, in (0, 1). Give exactly one of
            these two and `sparsity`.
        sparsity: the fraction of the target's nodes, branches or weights to prune, in [0, 1).
        target: `nodes(...)`, `branches(...)` or `weights(...)`; all nodes by default.
        criterion: what is pruned first; see `Pruner`. By default "obs", and for branches "ablation", which measures
            the `loss`, or without one the change of the outputs.
        loss: (output, target) -> mean over the batch, for criteria that need it.
        scope: see `Pruner`. By default each tensor loses the same share of its weights; nodes are chosen in each layer,
            and among all layers, and the choice is taken whose outputs on the samples are nearer to the dense ones.
        multiple_of, min_keep, seed: see `Pruner`.
        device: where to compute, by default where the model is.

    Returns:
        A network like those of `slim`, in the model's mode and on its device.

    Raises:
        InputError: an argument does not exist, contradicts another, or is missing.
        TargetError: a target does not exist.
        UnsupportedModelError: the network cannot be traced, or nothing that is pruned can be cut out of it.
        ProofError: see `slim`.
    """
    model = uncompiled(model)
    require_unwrapped(model)
    require_parameters(model)
    if batches is None:
        raise InputError("batches: weights are fitted to some hundred samples; give a loader, or a list of batches")
    _require_one_amount(scope, macs=macs, params=params, sparsity=sparsity)
    wanted = nodes("*") if target is None else target
    home = next(model.parameters()).device
    there = home if device is None else _device(device)
    given = inputs_of(example).mapped(lambda tensor: tensor.to(there))
    found: tuple[float, nn.Module] | None = None
    ranking, traced = _criterion(criterion, wanted), TracedOnce()
    for one in _scopes(wanted) if scope is None else (scope,):
        smaller, earlier = copied(model).to(there), None
        for share in _rounds(sparsity, wanted):
            earlier = Pruner(
                smaller,
                wanted,
                macs=macs,
                params=params,
                sparsity=share,
                example=given,
                criterion=ranking,
                batches=batches,
                loss=loss,
                scope=one,
                multiple_of=multiple_of,
                min_keep=min_keep,
                compensate=True,
                earlier=earlier,
                seed=seed,
                traced=traced,
            )
            earlier.finalize()
        assert earlier is not None
        if found is None or earlier.selection.error < found[0]:
            found = earlier.selection.error, smaller
    assert found is not None
    return slim(found[1], given).to(home)


def _rounds(sparsity: float | None, target: AnyTarget | Wanted) -> list[float | None]:
    """Weights are chosen in two rounds: the scores of the second see what the first leaves to make up for."""
    if sparsity is None or isinstance(target, Nodes | Branches):
        return [sparsity]
    check("sparsity", sparsity, float, ge=0, lt=1)
    return [sparsity / 2, sparsity]


def _criterion(
    criterion: str | Criterion | ScoreFunction | None, target: AnyTarget | Wanted
) -> str | Criterion | ScoreFunction:
    """Nodes are ranked once for both scopes, since the network is the same."""
    if isinstance(target, Branches):
        return Ablation(samples=BRANCH_SAMPLES) if criterion is None else criterion
    chosen = "obs" if criterion is None else criterion
    is_known = isinstance(chosen, str | Criterion)
    return RankedOnce.of(criterion_of(chosen)) if isinstance(target, Nodes) and is_known else chosen


def _require_one_amount(scope: object, **amounts: float | None) -> None:
    """A pattern such as 2 of 4 is an amount itself, and the pruner says which others contradict it."""
    found = [f"{name}={value}" for name, value in amounts.items() if value is not None]
    if len(found) != 1 and (scope is None or isinstance(scope, str)):
        raise InputError(f"found {' and '.join(found) or 'none'}; give exactly one of {', '.join(amounts)}")


def _scopes(target: AnyTarget | Wanted) -> tuple[str | None, ...]:
    """Those to try: which is better differs from network to network, and the samples tell."""
    if isinstance(target, Branches):
        return (None,)
    return ("layer", "global") if isinstance(target, Nodes) else ("layer",)


def _device(wanted: object) -> torch.device:
    if not isinstance(wanted, str | torch.device):
        raise InputError(f"device: found {shown(wanted)}; expected a word such as cpu or cuda, or a torch.device")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device: found {shown(wanted)}, which cannot be used here ({error}); give one such as cpu or cuda"
        ) from error
    return device
