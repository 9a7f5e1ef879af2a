"""The sizes that slimming changed, as a list from which the slim network is rebuilt without pickle."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, fx, nn

from compress.dynamic import BATCH_NAME
from compress.errors import CheckpointError
from compress.graph.branches import operands_of_sum, remove
from compress.graph.flow import arguments_of
from compress.graph.trace import tensors_of, trace
from compress.inputs import Inputs
from compress.slimming.attributes import integers_of, set_integer
from compress.slimming.bottleneck import Affine, take_apart
from compress.slimming.norms import count_on, count_on_in_graph, means_of, nodes_of
from compress.slimming.slim_graph import Size, SlimGraph, refuse_gradients
from compress.slimming.standardized import count_weights
from compress.slimming.traced import numbers_of, set_numbers, traced_module
from compress.slimming.traced_call import call_of, entries_of

Kind = Literal["tensor", "attribute", "input", "number", "bottleneck", "norm", "mean", "weights", "gradients", "branch"]

_MOST_ROUNDS = 64
"""Each needs a trace of the network, or another layer; a stage of a recipe makes at most one."""

_MOST_TRACED = 10_000
"""Operators of all the traces together, which take some tenths of a millisecond each."""


_MOST_DIMENSIONS = 16
"""Of the input of a norm."""


@dataclass(frozen=True)
class ShapeEdit:
    """One size that slimming changed, from `before` to `after`.

    tensor: dimension `index` of the parameter or buffer `name`.
    attribute: entry `index` of the attribute `name` (module and attribute, "decoder.3.unflattened_size"), or the
        attribute itself, if it is one number.
    input: nothing changes. The network becomes the graph traced of it, for an input `name` (see `traced_call`) whose
        size `index` is `before`; these edits come first, and the tensors and numbers after them are the graph's.
    bottleneck: the Linear layer `name`, of `before` inputs, is taken apart (`bottleneck.take_apart`); these edits come
        before those of the layers that it makes.
    number: entry `index` of an operator's argument in that graph ("view_3.size").
    branch: the operator `name` of that graph, a sum, is its operand `index` alone: the branch that the other one ends
        is not there any more, and neither are its tensors.
    gradients: that graph refuses its backward pass, with the reason `name`.
    norm: the norm `name`, over dimension `index` of its input (0 for the last), still divides by `before`, the original
        number of nodes, of which `after` are left (see `norms`).
    mean: the same for the operator `name` of that graph; `index` is 0.
    weights: the layer of the parameter `name` standardizes it as if dimension `index` still had the size `before` (see
        `standardized`).

    Widths that follow from a weight's shape (`in_features`, `out_channels`) have no edit.
    """

    kind: Kind
    name: str
    index: int
    before: int
    after: int


def apply_edits(model: nn.Module, edits: Sequence[ShapeEdit]) -> nn.Module:
    """Change `model` in place to the shapes in `edits`; changed tensors are new and zero, to be loaded into.

    Returns the model, or the module traced of it, whose `shape_edits` now include these edits. Nothing changes unless
    the edits fit.

    Raises:
        CheckpointError: an edit names no tensor, attribute or number of the model, or its sizes are not the model's.
    """
    rounds, traced = _rounds(edits), 0
    if len(rounds) > _MOST_ROUNDS:
        raise CheckpointError(f"The shape edits are of {len(rounds)} slimmings; {_MOST_ROUNDS} is the most.")
    for part in rounds:
        given = [edit for edit in part if edit.kind == "input"]
        if given:
            model = _traced(model, given, _MOST_TRACED - traced)
            traced += len(model.graph.nodes)
        elif part and part[0].kind == "bottleneck":
            _check(model, part[:1])
            insert_bottleneck(model, part[0].name)
            part = part[1:]
        model = change(model, part)
    return model


def change(model: nn.Module, edits: Sequence[ShapeEdit]) -> nn.Module:
    """`apply_edits` for one round of edits. If they are of a graph, the model is already traced."""
    _check(model, edits)
    if isinstance(model, fx.GraphModule):
        _remove_branches(model, [(edit.name, edit.index) for edit in edits if edit.kind == "branch"])
    tensors = tensors_of(model)
    shapes: dict[str, list[int]] = {}
    numbers: list[tuple[str, int, int]] = []
    for edit in edits:
        if edit.kind == "tensor":
            shapes.setdefault(edit.name, list(tensors[edit.name].shape))[edit.index] = edit.after
        elif edit.kind == "attribute":
            path, _, name = edit.name.rpartition(".")
            set_integer(model.get_submodule(path), name, edit.index, edit.after)
        elif edit.kind == "number":
            numbers.append((edit.name, edit.index, edit.after))
        elif edit.kind == "gradients" and isinstance(model, SlimGraph):
            refuse_gradients(model, edit.name)
        elif edit.kind == "norm":
            count_on(model, edit.name, edit.index, edit.before, edit.after)
        elif edit.kind == "weights":
            count_weights(model, edit.name, edit.index, edit.before)
    if isinstance(model, fx.GraphModule):
        set_numbers(model, numbers)
        count_on_in_graph(model, [(edit.name, edit.before, edit.after) for edit in edits if edit.kind == "mean"])
    made: dict[int, Tensor] = {}  # a tensor with several names remains one tensor
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        new_tensor = made.setdefault(id(tensors[name]), _resized(tensors[name], shape))
        setattr(model.get_submodule(path), leaf, new_tensor)
    for module in {name.rpartition(".")[0].partition(".parametrizations.")[0] for name in shapes}:
        state_widths(model.get_submodule(module))
    if isinstance(model, fx.GraphModule):
        model.recompile()
    model.shape_edits = _compose(getattr(model, "shape_edits", ()), edits)  # type: ignore[assignment]
    return model


def _remove_branches(model: fx.GraphModule, joins: Sequence[tuple[str, int]]) -> None:
    """Take branches out of the graph, and the tensors that nothing uses then out of the module."""
    if not joins:
        return
    remove(model.graph, joins)
    used = {node.target for node in model.graph.nodes if node.op == "get_attr"}
    for name in tensors_of(model).keys() - used:
        path, _, leaf = name.rpartition(".")
        delattr(model.get_submodule(path), leaf)
    model.delete_all_unused_submodules()


def insert_bottleneck(model: nn.Module, name: str, axes: Affine | None = None, reader: Affine | None = None) -> str:
    """`take_apart`, recorded in the model's `shape_edits`, so that a saved model can be loaded again."""
    axes_name, width = take_apart(model, name, axes, reader)
    edit = ShapeEdit("bottleneck", name, 0, width, width)
    model.shape_edits = _compose(getattr(model, "shape_edits", ()), [edit])  # type: ignore[assignment]
    return axes_name


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


def input_edits(given: Inputs, varying: Sequence[Mapping[int, str]]) -> Iterator[ShapeEdit]:
    """The call with which `apply_edits` traces the network again; see `traced_call`."""
    yield from (ShapeEdit("input", name, index, size, size) for name, index, size in entries_of(given, varying))


def graph_inputs(edits: Sequence[ShapeEdit]) -> dict[str, tuple[Size, ...]]:
    """The inputs for which the slim network holds, if it is a graph; otherwise empty.

    Raises:
        CheckpointError: the edits are damaged.
    """
    *_, given = [[], *([edit for edit in part if edit.kind == "input"] for part in _rounds(edits))]
    found: dict[str, tuple[Size, ...]] = {}
    for edit in given:
        if "=" not in edit.name:
            where, _, word = (*edit.name.split(":"), "", "")[:3] if ":" in edit.name else ("input", "", "")
            batch = word == BATCH_NAME or (":" not in edit.name and edit.index == 0)
            found[where] = (*found.get(where, ()), "N" if batch else word or edit.before)
    return found


def _edit(entry: Any) -> ShapeEdit:
    types = {"kind": str, "name": str, "index": int, "before": int, "after": int}
    values = dict(entry) if isinstance(entry, tuple) and len(entry) == len(types) else {}
    if {key: type(value) for key, value in values.items()} != types or values["kind"] not in get_args(Kind):
        raise CheckpointError(f"{str(entry)[:200]} is not a shape edit; it has exactly the keys {', '.join(types)}.")
    return ShapeEdit(**values)


def _rounds(edits: Sequence[ShapeEdit]) -> list[list[ShapeEdit]]:
    """The edits of each slimming: a traced network may be slimmed repeatedly; a bottleneck precedes its own edits."""
    rounds: list[list[ShapeEdit]] = [[]]
    for edit in edits:
        first, last = (rounds[-1][0], rounds[-1][-1]) if rounds[-1] else (None, None)
        goes_on = last is not None and last.kind == "input" and first != edit
        if edit.kind == "bottleneck" or (edit.kind == "input" and not goes_on):
            rounds.append([])
        rounds[-1].append(edit)
    return rounds


def _traced(model: nn.Module, given: Sequence[ShapeEdit], most: int) -> SlimGraph:
    call, varying = call_of((edit.name, edit.index, edit.before) for edit in given)
    earlier = getattr(model, "shape_edits", ())
    try:
        dynamic = {name: dims for name, dims in zip(call.names(model), varying, strict=True) if dims}
        module = traced_module(trace(model, call, max(1, most), dynamic, passes=False), tensors_of(model))
    except Exception as error:
        raise CheckpointError(
            f"The shape edits are for a network that takes {_shapes(call)}, and the model does not ({error}); build "
            "the dense network that was slimmed."
        ) from error
    module.shape_edits = earlier  # type: ignore[assignment]
    return module


def _shapes(call: Inputs) -> str:
    return " and ".join(f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" for one in call.tensors)


def _check(model: nn.Module, edits: Sequence[ShapeEdit]) -> None:
    tensors, modules = tensors_of(model), dict(model.named_modules())
    numbers = numbers_of(model) if isinstance(model, fx.GraphModule) else {}
    repeated = [place for place, n in Counter((edit.kind, edit.name, edit.index) for edit in edits).items() if n > 1]
    if repeated and repeated[0][0] != "input":
        raise CheckpointError(f"The shape edits change {repeated[0][1]!r}, index {repeated[0][2]}, more than once.")
    for edit in edits:
        sizes = _sizes(edit, tensors, modules, numbers)
        if not 0 <= edit.index < len(sizes) or sizes[edit.index] != edit.before:
            raise CheckpointError(
                f"A shape edit expects {edit.before} at index {edit.index} of {edit.name!r}, whose sizes in the model "
                f"are {list(sizes)}; build the dense network that was slimmed."
            )
        if not 1 <= edit.after <= edit.before:
            raise CheckpointError(
                f"A shape edit makes {edit.before} of {edit.name!r} into {edit.after}; it may only shrink."
            )


def _sizes(
    edit: ShapeEdit,
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    numbers: Mapping[str, tuple[int, ...]],
) -> tuple[int, ...]:
    """The sizes of the model at the place of `edit`."""
    path, _, attribute = edit.name.rpartition(".")
    trained = isinstance(tensors.get(edit.name), nn.Parameter)
    if (edit.kind == "tensor" and edit.name in tensors) or (edit.kind == "weights" and trained):
        return tuple(tensors[edit.name].shape)
    if edit.kind == "attribute" and path in modules and (integers := integers_of(modules[path], attribute)):
        return integers
    if edit.kind == "number" and edit.name in numbers:
        return numbers[edit.name]
    if edit.kind == "bottleneck" and isinstance(layer := modules.get(edit.name), nn.Linear):
        return (layer.in_features,)
    if edit.kind == "gradients" and isinstance(modules[""], SlimGraph):
        return (1,)
    graph = modules[""].graph if isinstance(modules[""], SlimGraph) else None
    if edit.kind == "branch" and graph is not None and (operands := operands_of_sum(graph, edit.name)):
        return (1,) * len(operands)
    if edit.kind == "norm" and 0 <= edit.index < _MOST_DIMENSIONS and (count := nodes_of(modules.get(edit.name))):
        return (count,) * (edit.index + 1)
    if edit.kind == "mean" and (mean := means_of(modules[""]).get(edit.name)):
        shape = arguments_of(mean).get("normalized_shape", ())
        return tuple(shape) if len(shape) == 1 else (edit.before,)
    if edit.kind == "input":
        return (edit.before,) * (edit.index + 1)
    raise CheckpointError(f"A shape edit names the {edit.kind} {edit.name!r}, which the model does not have.")


def _resized(old: Tensor, shape: Sequence[int]) -> Tensor:
    new = old.new_zeros(shape)
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def state_widths(module: nn.Module) -> None:
    """Update the numbers that a layer states about its weights."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = module.weight.shape
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.RNNCellBase):
        module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]
    elif isinstance(module, nn.RNNBase):
        module.input_size = module.get_parameter("weight_ih_l0").shape[1]
        module.hidden_size = module.get_parameter("weight_hh_l0").shape[1]
    elif isinstance(module, nn.modules.batchnorm._NormBase) and module.weight is not None:
        module.num_features = len(module.weight)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)


def _compose(earlier: Sequence[ShapeEdit], later: Sequence[ShapeEdit]) -> tuple[ShapeEdit, ...]:
    """Edits that lead from the dense sizes to the latest ones; those of a new graph are a separate round."""
    if any(edit.kind in ("input", "bottleneck") for edit in later):
        return (*earlier, *later)
    *rounds, last = _rounds(earlier)
    composed = {(edit.kind, edit.name, edit.index): edit for edit in last}
    for edit in later:
        place = (edit.kind, edit.name, edit.index)
        composed[place] = replace(edit, before=composed.get(place, edit).before)
    return (*(edit for part in rounds for edit in part), *composed.values())
