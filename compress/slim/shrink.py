"""Nodes that are zero on both sides are cut out of the tensors; the result is proven to compute the same."""

import copy
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.errors import CheckpointError, InputError, UnsupportedModelError
from compress.slim.coupling import Coupling, Couplings, couplings
from compress.slim.proof import prove_same

Kind = Literal["tensor", "attribute"]


@dataclass(frozen=True)
class ShapeEdit:
    """One size that slimming changed, from `before` to `after`.

    tensor: dimension `index` of the parameter or buffer `name`.
    attribute: entry `index` of the attribute `name` (module and attribute, "decoder.3.unflattened_size").
    Widths that follow from a weight's shape (`in_features`, `out_channels`) have no edit of their own.
    """

    kind: Kind
    name: str
    index: int
    before: int
    after: int


def slim(model: nn.Module, example: Tensor, *, tolerance: float = 1e-5) -> nn.Module:
    """A copy of `model` without its dead nodes, proven to compute the same; the widths of input and output stay.

    A node is dead where its row, its bias and every column that reads it are exactly 0.0. The last node of a width
    stays even if it is dead. The copy is in the model's own mode, its tensors are new, and its `shape_edits`
    (a tuple of ShapeEdit, against the network that the model's class builds) let `apply_edits` rebuild it.

    Args:
        example: an input [N, ...]; the proof runs on it and on random ones of its shape with 2 and 5 rows.
        tolerance: allowed difference relative to the output's scale (see `prove_same`) for float32; a model in
            float64 must agree to 1e-7 times it.

    Raises:
        InputError: the model still carries pruning masks, or does not run on `example`.
        UnsupportedModelError: there are dead nodes and none of them can be cut, with layer, operator and reason;
            or the network cannot be traced. Where only some can be cut, `couplings` tells why others cannot.
        ProofError: the smaller network would compute something else.
    """
    if prune.is_pruned(model):
        raise InputError("The model still carries pruning masks; fold them first with finalize() or prune.remove().")
    known, tensors = couplings(model, example), _tensors(model)
    dead = {coupling: nodes for coupling in known.found if len(nodes := _dead(coupling, tensors))}
    if not dead:
        _refuse_stuck(known, tensors)
        return apply_edits(copy.deepcopy(model), ())
    kept = _kept_positions(dead, tensors)
    small = apply_edits(copy.deepcopy(model), [*_tensor_edits(kept, tensors), *_attribute_edits(dead, model)])
    _fill(_tensors(small), tensors, kept)
    exact = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    prove_same(model, small, _inputs(example), tolerance * 1e-7 if exact else tolerance)
    return small


def apply_edits(model: nn.Module, edits: Sequence[ShapeEdit]) -> nn.Module:
    """Give `model`, in place, the shapes that `edits` say; changed tensors are new and zero, to be loaded into.

    Returns the model, whose `shape_edits` now hold these edits too. Nothing is changed unless all edits fit.

    Raises:
        CheckpointError: an edit names no tensor or attribute of the model, or its sizes are not the model's.
    """
    _check(model, edits)
    tensors = _tensors(model)
    shapes: dict[str, list[int]] = {}
    for edit in edits:
        if edit.kind == "tensor":
            shapes.setdefault(edit.name, list(tensors[edit.name].shape))[edit.index] = edit.after
        else:
            path, _, attribute = edit.name.rpartition(".")
            module = model.get_submodule(path)
            sizes = tuple(getattr(module, attribute))
            setattr(module, attribute, (*sizes[: edit.index], edit.after, *sizes[edit.index + 1 :]))
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        _replace(model.get_submodule(path), leaf, tensors[name].new_zeros(shape))
    model.shape_edits = _compose(getattr(model, "shape_edits", ()), edits)  # type: ignore[assignment]
    return model


def edits_to_json(edits: Sequence[ShapeEdit]) -> str:
    return json.dumps([asdict(edit) for edit in edits])


def edits_from_json(text: str) -> tuple[ShapeEdit, ...]:
    """Raises CheckpointError unless `text` is exactly what `edits_to_json` writes."""
    try:
        entries = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"The list of shape edits is not JSON ({error}); the file is damaged.") from error
    if not isinstance(entries, list):
        raise CheckpointError(f"The shape edits are a {type(entries).__name__}, not a list; the file is damaged.")
    return tuple(_edit(entry) for entry in entries)


def _edit(entry: Any) -> ShapeEdit:
    types = {"kind": str, "name": str, "index": int, "before": int, "after": int}
    values = dict(entry) if isinstance(entry, tuple) and len(entry) == len(types) else {}
    if {key: type(value) for key, value in values.items()} != types or values["kind"] not in get_args(Kind):
        raise CheckpointError(f"{str(entry)[:200]} is no shape edit; it has exactly the keys {', '.join(types)}.")
    return ShapeEdit(**values)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


# --- what goes ---


def _dead(coupling: Coupling, tensors: Mapping[str, Tensor]) -> Tensor:
    """Nodes (int64, ascending) whose entries are exactly zero in all members; never all of them."""
    alive = torch.zeros(coupling.size, dtype=torch.bool)
    for member in coupling.members:
        tensor = tensors[member.tensor].detach()
        used = (tensor != 0).movedim(member.dim, 0).reshape(tensor.shape[member.dim], -1).any(1)
        alive |= used.reshape(member.outer, member.size, member.inner).any(2).any(0).cpu()
    dead = (~alive).nonzero().flatten()
    return dead[1:] if len(dead) == coupling.size else dead


def _refuse_stuck(known: Couplings, tensors: Mapping[str, Tensor]) -> None:
    for coupling, reason in known.stuck:
        if dead := len(_dead(coupling, tensors)):
            raise UnsupportedModelError(
                f"{dead} of the {coupling.size} nodes of the layer {coupling.name!r} are zero, but cannot be cut out: "
                f"{reason}."
            )


def _kept_positions(dead: Mapping[Coupling, Tensor], tensors: Mapping[str, Tensor]) -> dict[tuple[str, int], Tensor]:
    """Positions that stay (int64) along each (tensor, dimension) that shrinks."""
    stays: dict[tuple[str, int], Tensor] = {}
    for coupling, nodes in dead.items():
        for member in coupling.members:
            length = tensors[member.tensor].shape[member.dim]
            mask = stays.setdefault((member.tensor, member.dim), torch.ones(length, dtype=torch.bool))
            mask[member.index(nodes)] = False
    return {place: mask.nonzero().flatten() for place, mask in stays.items()}


def _tensor_edits(kept: Mapping[tuple[str, int], Tensor], tensors: Mapping[str, Tensor]) -> Iterator[ShapeEdit]:
    for (name, dim), positions in kept.items():
        yield ShapeEdit("tensor", name, dim, tensors[name].shape[dim], len(positions))


def _attribute_edits(dead: Mapping[Coupling, Tensor], model: nn.Module) -> Iterator[ShapeEdit]:
    shares = defaultdict(list)
    for coupling, nodes in dead.items():
        for attribute in coupling.attributes:
            shares[attribute].append((coupling.size, coupling.size - len(nodes)))
    for attribute, counts in shares.items():
        before = after = getattr(model.get_submodule(attribute.module), attribute.name)[attribute.index]
        for size, left in counts:
            after = after // size * left
        yield ShapeEdit("attribute", f"{attribute.module}.{attribute.name}", attribute.index, before, after)


@torch.no_grad()
def _fill(small: Mapping[str, Tensor], tensors: Mapping[str, Tensor], kept: Mapping[tuple[str, int], Tensor]) -> None:
    cut = {name: tensors[name].detach() for name, _ in kept}
    for (name, dim), positions in kept.items():
        cut[name] = cut[name].index_select(dim, positions.to(cut[name].device))
    for name, tensor in cut.items():
        small[name].copy_(tensor)


def _inputs(example: Tensor) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for rows in (2, 5):
        shape = (rows, *example.shape[1:])
        if example.is_floating_point():
            yield torch.randn(shape, generator=generator).to(example)
        else:  # class or token numbers: any others might be out of range
            yield example.flatten()[torch.randint(example.numel(), shape, generator=generator).to(example.device)]
    yield example


# --- new shapes ---

# Attributes that an edit may change, and of which modules.
_EDITABLE = {"unflattened_size": nn.Unflatten}


def _check(model: nn.Module, edits: Sequence[ShapeEdit]) -> None:
    tensors, modules = _tensors(model), dict(model.named_modules())
    repeated = [place for place, n in Counter((edit.kind, edit.name, edit.index) for edit in edits).items() if n > 1]
    if repeated:
        raise CheckpointError(f"The shape edits change {repeated[0][1]!r}, index {repeated[0][2]}, more than once.")
    for edit in edits:
        path, _, attribute = edit.name.rpartition(".")
        if edit.kind == "tensor" and edit.name in tensors:
            sizes = tuple(tensors[edit.name].shape)
        elif edit.kind == "attribute" and isinstance(modules.get(path), _EDITABLE.get(attribute, ())):
            sizes = tuple(getattr(modules[path], attribute))
        else:
            raise CheckpointError(f"A shape edit names the {edit.kind} {edit.name!r}, which the model does not have.")
        if not 0 <= edit.index < len(sizes) or sizes[edit.index] != edit.before:
            raise CheckpointError(
                f"A shape edit expects {edit.before} at index {edit.index} of {edit.name!r}, whose sizes in the model "
                f"are {list(sizes)}; build the dense network that was slimmed."
            )
        if not 1 <= edit.after <= edit.before:
            raise CheckpointError(
                f"A shape edit makes {edit.before} of {edit.name!r} into {edit.after}; it may only shrink."
            )


def _replace(module: nn.Module, leaf: str, tensor: Tensor) -> None:
    old = getattr(module, leaf)
    if isinstance(old, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=old.requires_grad)
    setattr(module, leaf, tensor)
    if leaf == "weight":
        _state_widths(module)


def _state_widths(module: nn.Module) -> None:
    """The numbers that a layer tells about its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups


def _compose(earlier: Sequence[ShapeEdit], later: Sequence[ShapeEdit]) -> tuple[ShapeEdit, ...]:
    """Edits that lead from the dense sizes to the latest ones at once."""
    composed = {(edit.kind, edit.name, edit.index): edit for edit in earlier}
    for edit in later:
        place = (edit.kind, edit.name, edit.index)
        composed[place] = replace(edit, before=composed.get(place, edit).before)
    return tuple(composed.values())
