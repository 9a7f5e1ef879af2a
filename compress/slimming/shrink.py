"""`slim` cuts nodes that nothing reads out of the tensors, and proves that the result computes the same."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.errors import InputError, ProofError, UnsupportedModelError
from compress.graph.coupling import Coupling, Couplings, couplings
from compress.graph.network import require_parameters, require_unwrapped, uncompiled
from compress.graph.parametrized import parametrized
from compress.graph.trace import tensors_of
from compress.graph.twin import copied
from compress.inputs import Inputs, inputs_of
from compress.options import check, shown
from compress.proof import inputs_like, prove_same
from compress.slimming.constants import fold_constants
from compress.slimming.dead import all_zero, dead_nodes
from compress.slimming.edits import ShapeEdit, apply_edits, change, input_edits
from compress.slimming.traced import traced_module

Positions = Mapping[tuple[str, int], Tensor]


def slim(
    model: nn.Module,
    example: object,
    *,
    tolerance: float = 1e-5,
    optimizer: torch.optim.Optimizer | None = None,
    known: Couplings | None = None,
) -> nn.Module:
    """A copy of `model` without its dead nodes, proven to compute the same; input and output keep their widths.

    A node is dead where every column that reads it is exactly 0.0, or becomes so because the node is the same for
    every input (its row is zero) and can be folded into the next bias; where a computation sums over the nodes without
    weights, as attention does, its rows and biases must be 0.0 too. The last node of a width is kept even if dead.

    The copy is in the model's own mode, its tensors are new, and its `shape_edits` (a tuple of ShapeEdit, against the
    network that the model's class builds) let `apply_edits` rebuild it. It is of the model's own class where the
    class's forward runs at the new sizes, and else the graph traced of it, in evaluation mode (see `traced`).

    Args:
        example: an input [N, ...]; the proof runs on it and on drawn ones of its shape with 2 and 3 rows.
        tolerance: allowed difference relative to how much the output varies over the inputs (see `prove_same`); a
            model in float64 must agree to 1e-7 times it.
        optimizer: of the model's parameters; from then on it trains those of the copy, its state cut in the same way.
        known: `couplings(model, example)`, where the caller has it already.

    Raises:
        InputError: the model still carries pruning masks, or does not run on `example`.
        UnsupportedModelError: there are dead nodes and none of them can be cut, with layer, operator and reason;
            or the network cannot be traced, or is wrapped (pass `model.module`). Where only some can be cut,
            `couplings` tells why others cannot.
        ProofError: the smaller network would compute something else.

    Warns:
        ConstantOutputsWarning: the outputs do not depend on the inputs, so that the proof shows nothing.
    """
    model = uncompiled(model)
    _require_arguments(model, tolerance, optimizer, known)
    inputs_of(example)
    if prune.is_pruned(model):
        raise InputError("The model still carries pruning masks; fold them first with finalize() or prune.remove().")
    known = known or couplings(model, example)
    tensors, dead = _dead(model, known)
    if not dead:
        small = apply_edits(copied(model), ())
        _carry_over(optimizer, model, small, {})
        return small
    kept = _kept_positions(dead, known, tensors)
    exact = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    allowed = tolerance * 1e-7 if exact else tolerance
    left = {coupling: coupling.size - len(nodes) for coupling, nodes in dead.items()}
    try:
        small = change(copied(model), [*_tensor_edits(kept, tensors), *_resized(known, left, "attribute")])
        _fill(tensors_of(small), tensors, kept)
        prove_same(model, small, _inputs(model, example, known), allowed)
    except ProofError:
        small = _slim_graph(model, known, left, kept, tensors, example)
        prove_same(model, small, _inputs(model, example, known), allowed)
    _carry_over(optimizer, model, small, kept)
    return small


def _require_arguments(model: object, tolerance: object, optimizer: object, known: object) -> None:
    """Raise InputError where an argument has a wrong type or value."""
    require_unwrapped(model)
    require_parameters(model)
    assert isinstance(model, nn.Module)
    check("tolerance", tolerance, float, ge=0)
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer: found {shown(optimizer)}; expected an object of torch.optim.Optimizer")
    if optimizer is not None:
        trained = {entry for group in optimizer.param_groups for entry in group["params"]}
        if not trained & set(model.parameters()):
            raise InputError("optimizer: it trains none of the model's parameters")
    if known is not None and not isinstance(known, Couplings):
        raise InputError(f"known: found {shown(known)}; expected couplings(model, example)")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if known is not None and known.shapes != shapes:
        raise InputError("known: these couplings are of another network")


def cuttable(model: nn.Module, known: Couplings) -> dict[str, int]:
    """How many nodes `slim` would cut out of `model`, by the name of the layer that computes them.

    Args:
        known: what `couplings` says of the model.

    Raises:
        UnsupportedModelError: as `slim`.
    """
    return {coupling.name: len(nodes) for coupling, nodes in _dead(model, known)[1].items()}


def _dead(model: nn.Module, known: Couplings) -> tuple[dict[str, Tensor], dict[Coupling, Tensor]]:
    """(the tensors with constants folded into them, the nodes to cut)."""
    tensors = fold_constants(known, tensors_of(model))
    dead = dead_nodes(known.found, tensors)
    if not dead:
        _refuse_stuck(model, known, tensors)
    return tensors, dead


def _slim_graph(
    model: nn.Module,
    known: Couplings,
    left: Mapping[Coupling, int],
    kept: Positions,
    tensors: Mapping[str, Tensor],
    example: Tensor,
) -> nn.Module:
    """The class's own code has sizes in it that no attribute changes."""
    module: nn.Module = copy.deepcopy(traced_module(known.trace, tensors_of(model)))
    earlier: Any = getattr(model, "shape_edits", ())
    module.shape_edits = earlier
    own = tensors_of(module)
    kept = {place: positions for place, positions in kept.items() if place[0] in own}
    edits = [*input_edits(example), *_tensor_edits(kept, own), *_resized(known, left, "number")]
    module = change(module, edits)
    _fill(tensors_of(module), tensors, kept)
    return module


def _refuse_stuck(model: nn.Module, known: Couplings, tensors: Mapping[str, Tensor]) -> None:
    computed = list(parametrized(model))
    for coupling, reason in known.stuck:
        if any(tensor.holds(member.tensor) for tensor in computed for member in coupling.members):
            continue  # zeros there are not zeros of the layer
        if dead := int(all_zero(coupling, coupling.members, tensors).sum()):
            raise UnsupportedModelError(
                f"{dead} of the {coupling.size} nodes of the layer {coupling.name!r} are zero, but cannot be cut out: "
                f"{reason}."
            )


def _kept_positions(dead: Mapping[Coupling, Tensor], known: Couplings, tensors: Mapping[str, Tensor]) -> Positions:
    """Positions to keep (int64) along each (tensor, dimension) that shrinks; a tied tensor comes with all names."""
    masks: dict[tuple[str, int], Tensor] = {}
    for coupling, nodes in dead.items():
        for member in coupling.members:
            length = tensors[member.tensor].shape[member.dim]
            mask = masks.setdefault((member.tensor, member.dim), torch.ones(length, dtype=torch.bool))
            mask[member.index(nodes)] = False
    return {
        (alias, dim): mask.nonzero().flatten() for (name, dim), mask in masks.items() for alias in known.names[name]
    }


def _tensor_edits(kept: Positions, tensors: Mapping[str, Tensor]) -> Iterator[ShapeEdit]:
    for (name, dim), positions in kept.items():
        yield ShapeEdit("tensor", name, dim, tensors[name].shape[dim], len(positions))


def _resized(known: Couplings, left: Mapping[Coupling, int], kind: str) -> Iterator[ShapeEdit]:
    for number, before, after in known.resized(left, kind):
        yield ShapeEdit("attribute" if kind == "attribute" else "number", number.name, number.index, before, after)


@torch.no_grad()
def _fill(small: Mapping[str, Tensor], tensors: Mapping[str, Tensor], kept: Positions) -> None:
    for name, tensor in small.items():
        if name in tensors:  # a graph has constants of its own
            tensor.copy_(_cut(tensors[name].detach(), name, kept))


def _carry_over(optimizer: torch.optim.Optimizer | None, model: nn.Module, small: nn.Module, kept: Positions) -> None:
    """Let the optimizer train the parameters of `small`; averages that have a parameter's shape are cut like it."""
    if optimizer is None:
        return
    new = dict(small.named_parameters(remove_duplicate=False))
    names = {parameter: name for name, parameter in model.named_parameters() if name in new}
    for group in optimizer.param_groups:
        group["params"] = [new[names[old]] if old in names else old for old in group["params"]]
    for old, name in names.items():
        if old in optimizer.state:
            state = optimizer.state.pop(old)
            optimizer.state[new[name]] = {
                key: _cut(value, name, kept) if isinstance(value, Tensor) and value.shape == old.shape else value
                for key, value in state.items()
            }


def _cut(tensor: Tensor, name: str, kept: Positions) -> Tensor:
    for (other, dim), positions in kept.items():
        if other == name:
            tensor = tensor.index_select(dim, positions.to(tensor.device))
    return tensor


def _inputs(model: nn.Module, example: object, known: Couplings) -> Iterator[Inputs]:
    given = inputs_of(example)
    yield from inputs_like(model, given, (2, 3), known.trace)
    yield given
