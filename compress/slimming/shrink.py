"""`slim` cuts nodes that nothing reads out of the tensors, and proves that the result computes the same."""

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import prune

from compress.dynamic import Dynamic, alike, fixed, other_lengths, resized, sizes_of, steps_of, varying_dims
from compress.errors import InputError, ProofError, UnsupportedModelError
from compress.graph.branches import Branch, residual_branches, without
from compress.graph.coupling import Coupling, Couplings, couplings, couplings_in
from compress.graph.network import require_parameters, require_unwrapped, uncompiled
from compress.graph.parametrized import parametrized
from compress.graph.real_pass import runs
from compress.graph.trace import Trace, tensors_of
from compress.graph.twin import copied
from compress.inputs import Inputs, inputs_of
from compress.options import check, shown
from compress.proof import Passes, inputs_like, paired, prove_same
from compress.slimming.attributes import Integer, Tried, following
from compress.slimming.constants import fold_constants
from compress.slimming.dead import all_zero, dead_nodes
from compress.slimming.edits import Kind, ShapeEdit, apply_edits, change, input_edits
from compress.slimming.gradients import lost_gradients
from compress.slimming.norms import rescale
from compress.slimming.queries import scaled_by_size, with_rescaled_queries
from compress.slimming.shifts import with_shifts_removed
from compress.slimming.traced import numbers_of, traced_module
from compress.slimming.training import warn_where_training_fails
from compress.wording import count_of

_LARGE = 2**14
"""Numbers in a sample, as in an image of 74 x 74; above this, a proof takes most of the time of `slim`."""

Positions = Mapping[tuple[str, int], Tensor]


def slim(
    model: nn.Module,
    example: object,
    *,
    tolerance: float = 1e-5,
    optimizer: torch.optim.Optimizer | None = None,
    known: Couplings | None = None,
    dynamic: Dynamic | None = None,
    custom_gradients: Literal["refuse", "drop"] = "refuse",
) -> nn.Module:
    """Return a copy of `model` without its dead nodes and branches, proven to compute the same.

    Inputs and outputs keep their size. A node is dead if every column that reads it is exactly 0.0, or if the node is
    the same for every input (its row is zero) and can be folded into the next bias. Where a computation sums over the
    nodes without weights, as attention does, its rows and biases must be 0.0 too. The last node of a width is kept even
    if it is dead. A residual branch is dead if the weight and the bias of the layer at its end are exactly 0.0: nothing
    is left of it.

    The copy has new tensors and the model's own mode. It has the model's class if no branch is dead and the class's
    forward runs at the new sizes; integer attributes of its modules that are sizes follow the cut. Otherwise it is a
    `SlimGraph`, with limits: fixed sizes of the inputs, evaluation mode, and no custom gradients. Its `shape_edits` (a
    tuple of ShapeEdit, relative to the network that the model's class builds) let `apply_edits` rebuild it.

    Args:
        example: inputs of the network (see `compress.Inputs`). The proof runs on them and on random ones like them
            with 2 and 3 samples (one of these numbers, if a sample has more than 16,384 numbers).
        tolerance: allowed difference relative to how much the output varies over the inputs (see `prove_same`); a
            model in float64 must agree to 1e-7 times it.
        optimizer: an optimizer of the model's parameters; it trains the copy from now on, with its state cut in the
            same way.
        known: the result of `couplings(model, example)`, if you have it already.
        dynamic: names of the dimensions that vary besides the batch, by input and dimension, as in
            {"ids": {1: "length"}}; inputs have the names that `forward` gives them. The proof runs at several of their
            sizes, and a slim graph accepts any.
        custom_gradients: "drop" lets a slim graph train without the network's custom gradients, such as those of a
            straight-through estimator; by default its backward pass raises an error.

    Raises:
        InputError: the model still has pruning masks, or does not run on `example`, or not at other sizes of the
            dimensions that `dynamic` names.
        UnsupportedModelError: there are dead nodes and none of them can be cut (with layer, operator and reason);
            or the network cannot be traced, or is wrapped (pass `model.module`). If only some can be cut,
            `couplings` gives the reasons for the others.
        ProofError: the smaller network would compute something else.

    Warns:
        ConstantOutputsWarning: the outputs do not depend on the inputs, so the proof shows nothing.
        TrainingOnlyWarning: the copy does not run in training mode, which reads tensors that evaluation does not use,
            such as the auxiliary heads of GoogLeNet.
    """
    model = uncompiled(model)
    _require_arguments(model, tolerance, optimizer, known, custom_gradients)
    given = inputs_of(example)
    if prune.is_pruned(model):
        raise InputError("The model still carries pruning masks; fold them first with finalize() or prune.remove().")
    varying = varying_dims(model, given, dynamic)
    known = known or couplings(model, given)
    given = replace(given, whole=known.trace.whole)
    dead = dead_in(model, known)
    if not dead:
        small = apply_edits(_copied(model), ())
        _carry_over(optimizer, model, small, {})
        return small
    exact = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    checks = _Checks(model, known.trace, given, varying, tolerance * 1e-7 if exact else tolerance)
    cut = _planned(dead, checks)
    found = None if dead.branches else cut.by_class()
    if found is None and dynamic:
        known = couplings(model, given, dynamic=dynamic)
        cut = _planned(dead_in(model, known), checks)
    if found is None:
        small = _as_graph(cut, custom_gradients, dynamic)
    else:
        small = found
        warn_where_training_fails(model, small, given, known)
    _carry_over(optimizer, model, small, cut.kept)
    return small


def _as_graph(cut: "_Cut", custom_gradients: str, dynamic: Dynamic | None) -> nn.Module:
    try:
        return cut.as_graph(custom_gradients)
    except ProofError as error:
        if not dynamic:
            raise
        raise ProofError(
            f"{error}; sizes in the network's code may not follow those that vary: slim without dynamic, which holds "
            "for the example's sizes"
        ) from error


def _require_arguments(
    model: object, tolerance: object, optimizer: object, known: object, custom_gradients: object
) -> None:
    """Raise InputError where an argument has a wrong type or value."""
    require_unwrapped(model)
    require_parameters(model)
    assert isinstance(model, nn.Module)
    check("tolerance", tolerance, float, ge=0)
    check("custom_gradients", custom_gradients, Literal["refuse", "drop"])
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


@dataclass(frozen=True)
class Dead:
    """What `slim` cuts out of a network.

    whole: the trace of the network. known: the couplings without the dead branches. tensors: with constants folded
    into them.
    """

    whole: Trace
    known: Couplings
    branches: tuple[Branch, ...]
    nodes: Mapping[Coupling, Tensor]
    tensors: Mapping[str, Tensor]

    def __bool__(self) -> bool:
        return bool(self.branches or self.nodes)


def dead_in(model: nn.Module, known: Couplings) -> Dead:
    """The branches and nodes that `slim` would cut out of `model`.

    Args:
        known: the result of `couplings` for the model.

    Raises:
        UnsupportedModelError: as `slim`.
    """
    own, whole = tensors_of(model), known.trace
    gone = tuple(branch for branch in residual_branches(model, whole).found if branch.is_zero(own))
    if gone:
        known = couplings_in(model, without(whole, gone))
    tensors = fold_constants(known, own)
    nodes = dead_nodes(known.found, tensors)
    if not nodes and not gone:
        _refuse_stuck(model, known, tensors)
    return Dead(whole, known, gone, nodes, tensors)


@dataclass(frozen=True)
class _Checks:
    """The reference for the result, and the calls on which they are compared.

    varying: of each tensor of the call, the names of its dimensions that vary. traced: the network.
    """

    model: nn.Module
    traced: Trace
    given: Inputs
    varying: Sequence[Mapping[int, str]]
    allowed: float

    def prove(self, small: nn.Module, *, locate: bool = True) -> None:
        """Raises ProofError; InputError if the network runs at no other size of the dimensions that vary.

        Args:
            locate: whether the error names the layer, which takes a pass of both networks.
        """
        self._compare(small, self.given, locate)
        if any(self.varying) and not self._proven_at(small, self.varying, locate, self._steps):
            raise fixed(self.varying)

    def prove_elsewhere(self, small: nn.Module) -> None:
        """If the network also runs at other sizes of its input, these reveal integers that mean something else."""
        self._proven_at(small, alike(self.given), locate=False)

    def _proven_at(
        self,
        small: nn.Module,
        varying: Sequence[Mapping[int, str]],
        locate: bool,
        steps: Mapping[str, int] | None = None,
    ) -> int:
        """The number of other sizes at which the network itself runs; some may be too long for its tables."""
        count = 0
        for call in other_lengths(self.given, varying, steps):
            with suppress(InputError):
                self._compare(small, call, locate)
                count += 1
        return count

    def _compare(self, small: nn.Module, call: Inputs, locate: bool) -> None:
        given, passes = self._own if call is self.given else (self._like(call), Passes())
        prove_same(self.model, small, given, self.allowed, passes, locate=locate)

    def _like(self, call: Inputs) -> list[Inputs]:
        """The call, and drawn ones with 2 and 3 samples; with one of these numbers where samples are large."""
        entries = sum(tensor.numel() for tensor in call.tensors) // call.rows
        sizes = (2, 3) if entries <= _LARGE else (3 if call.rows == 2 else 2,)
        return [*inputs_like(self.model, call, sizes, self.traced), paired(call)]

    @functools.cached_property
    def _steps(self) -> dict[str, int]:
        few = self.given.few()
        sizes = sizes_of(few, self.varying)
        return steps_of(sizes, lambda sizes: runs(self.model, resized(few, self.varying, sizes)))

    @functools.cached_property
    def _own(self) -> tuple[list[Inputs], Passes]:
        """The example and calls like it, with the network's outputs, which no candidate changes."""
        return self._like(self.given), Passes()


def _copied(model: nn.Module) -> nn.Module:
    """The code of a graph is in a class of the graph, which a twin would share."""
    return copy.deepcopy(model) if isinstance(model, fx.GraphModule) else copied(model)


def _planned(dead: Dead, checks: _Checks) -> "_Cut":
    left = {coupling: _others(coupling.size, nodes) for coupling, nodes in dead.nodes.items()}
    tensors = with_shifts_removed(checks.model, checks.given, dead.known.shifts, dead.nodes, dead.tensors)
    kept = _kept_positions(dead.nodes, dead.known, tensors)
    return _Cut(dead.known, left, kept, tensors, checks, dead.branches, dead.whole)


def _others(size: int, nodes: Tensor) -> Tensor:
    mask = torch.ones(size, dtype=torch.bool, device=nodes.device)
    mask[nodes] = False
    return mask.nonzero().flatten()


@dataclass(frozen=True)
class _Cut:
    """The nodes to cut out of a network.

    nodes: the remaining ones of each coupling. kept: see `_kept_positions`. branches: those to take out of the trace
    `whole`; the couplings are those of what is left.
    """

    known: Couplings
    nodes: Mapping[Coupling, Tensor]
    kept: Positions
    tensors: Mapping[str, Tensor]
    checks: _Checks
    branches: tuple[Branch, ...]
    whole: Trace

    @property
    def left(self) -> dict[Coupling, int]:
        return {coupling: len(nodes) for coupling, nodes in self.nodes.items()}

    def by_class(self) -> nn.Module | None:
        """A network of the model's own class, if its code runs at the new sizes; else None."""
        rescaled = with_rescaled_queries(self.known, self.nodes, self.tensors)
        ways = [(self.tensors, set[str]()), *([rescaled] if rescaled[1] else [])]
        for tensors, layers in reversed(ways) if scaled_by_size(self.known) else ways:
            if found := self._of_class(tensors, layers):
                return found
        return None

    def _of_class(self, tensors: Mapping[str, Tensor], rescaled: Set[str]) -> nn.Module | None:
        """rescaled: the modules within which outputs differ from the network's."""
        norms = [*_resized(self.known, self.left, "norm")]
        kinds: tuple[Kind, ...] = ("attribute", "weights")
        numbers = [edit for kind in kinds for edit in _resized(self.known, self.left, kind)]
        edits = [*_tensor_edits(self.kept, tensors), *numbers, *norms]
        small = change(_copied(self.checks.model), edits)
        _fill(tensors_of(small), tensors, self.kept)
        rescale(small, ((edit.name, edit.before, edit.after) for edit in norms))
        with suppress(ProofError):
            self.checks.prove(small, locate=False)
            return small
        for exact in (False, True):  # float64 tells what the network's own precision takes for right
            integers = following(self.checks.model, small, self._tried(rescaled, exact))
            if integers is None:
                return None
            found = change(_copied(small), [_following(integer, after) for integer, after in integers])
            with suppress(ProofError):
                self.checks.prove(found, locate=False)
                self.checks.prove_elsewhere(found)
                return found
        return None

    def _tried(self, rescaled: Set[str], exact: bool) -> Tried:
        return Tried(self.known, self.nodes, self.kept, self.checks.given.few(), rescaled, exact)

    def as_graph(self, custom_gradients: str) -> nn.Module:
        """The code of the class contains sizes that no attribute changes."""
        graph = copy.deepcopy(traced_module(self.whole, tensors_of(self.checks.model)))
        earlier: Any = getattr(self.checks.model, "shape_edits", ())
        graph.shape_edits = earlier
        own = tensors_of(graph)
        kept = {place: positions for place, positions in self.kept.items() if place[0] in own}
        sizes = [ShapeEdit("branch", branch.join, branch.stream, 1, 1) for branch in self.branches]
        sizes += _tensor_edits(kept, own)
        sizes += [*self._numbers(numbers_of(graph)), *_resized(self.known, self.left, "mean")]
        module = change(graph, [*input_edits(self.checks.given, self.checks.varying), *sizes])
        _fill(tensors_of(module), self.tensors, kept)
        self.checks.prove(module)
        if custom_gradients == "refuse":
            lost = lost_gradients(self.checks.model, module, kept, self.checks.given.few())
            module = change(module, [ShapeEdit("gradients", lost, 0, 1, 1)] if lost else [])
        return module

    def _numbers(self, own: Mapping[str, tuple[int, ...]]) -> Iterator[ShapeEdit]:
        """Numbers of the graph, without unused operators and those that find a size themselves."""
        for edit in _resized(self.known, self.left, "number"):
            if edit.name in own and own[edit.name][edit.index] != -1:
                yield edit


def _following(integer: Integer, after: int) -> ShapeEdit:
    name = f"{integer.path}.{integer.name}" if integer.path else integer.name
    return ShapeEdit("attribute", name, integer.index, integer.before, after)


def _refuse_stuck(model: nn.Module, known: Couplings, tensors: Mapping[str, Tensor]) -> None:
    computed = list(parametrized(model))
    for coupling, reason in known.stuck:
        if any(tensor.holds(member.tensor) for tensor in computed for member in coupling.members):
            continue  # zeros there are not zeros of the layer
        if dead := int(all_zero(coupling, coupling.members, tensors).sum()):
            raise UnsupportedModelError(
                f"{dead} of the {count_of(coupling.size, 'node')} of the layer {coupling.name!r} are zero, but cannot "
                f"be cut out: {reason}."
            )


def _kept_positions(dead: Mapping[Coupling, Tensor], known: Couplings, tensors: Mapping[str, Tensor]) -> Positions:
    """Positions to keep (int64) along each (tensor, dimension) that shrinks; a tied one under all its names."""
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


def _resized(known: Couplings, left: Mapping[Coupling, int], kind: Kind) -> Iterator[ShapeEdit]:
    for number, before, after in known.resized(left, kind):
        yield ShapeEdit(kind, number.name, number.index, before, after)


@torch.no_grad()
def _fill(small: Mapping[str, Tensor], tensors: Mapping[str, Tensor], kept: Positions) -> None:
    for name, tensor in small.items():
        if name in tensors:  # a graph has its own constants
            filled = _cut(tensors[name].detach(), name, kept)
            tensor.copy_(filled)
            if (layout := _layout(filled)) is not None:
                tensor.data = tensor.data.contiguous(memory_format=layout)


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
    layout = _layout(tensor)
    for (other, dim), positions in kept.items():
        if other == name:
            tensor = tensor.index_select(dim, positions.to(tensor.device))
    return tensor if layout is None else tensor.contiguous(memory_format=layout)


def _layout(tensor: Tensor) -> torch.memory_format | None:
    """The format with channels last that the weight of a convolution has, if it has one."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if layout is None or tensor.is_contiguous() or not tensor.is_contiguous(memory_format=layout):
        return None
    return layout
