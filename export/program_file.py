"""`.pt2`: the traced program with its weights, which runs with torch alone, without the model's source code.

Reading one is for files of people that you trust: `torch.export.load` unpickles everything but plain tensors, and
evaluates the file's expressions for sizes.
"""

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from compress.dynamic import BATCH_NAME, Dynamic
from compress.errors import CheckpointError, InputError, UnsupportedModelError
from compress.export.interface import Exported, Interface, interface, output_names
from compress.export.weights_file import require_metadata, require_plain
from compress.files.atomic import archive, atomic, require_path
from compress.files.foreign import reason
from compress.files.places import place
from compress.graph.network import require_unwrapped, uncompiled
from compress.graph.real_pass import RealPass
from compress.graph.trace import tensors_of
from compress.graph.trace import trace as traced
from compress.graph.untouched import untouched
from compress.inputs import Inputs, inputs_of
from compress.options import check, shown
from compress.proof import prove_file
from compress.slimming.traced import traced_module


def pt2(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: object,
    *,
    dynamic: Dynamic | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
    program: ExportedProgram | None = None,
) -> float:
    """Write the model as a program; `torch.export.load(path).module()` runs it for any batch size.

    The program takes the tensors of the call, by position or by keyword as in `example`, and returns what the network
    does: a tensor, or tensors in dicts, lists and tuples, whatever the network's own classes are.

    Args:
        example: whatever the network is called with (see `compress.Inputs`). Of tensors, only shape and type end up in
            the file; plain values are part of it.
        dynamic: names of dimensions that vary beside the batch, by input and dimension, such as
            {"input_ids": {1: "length"}}; the program is proven at several of their sizes.
        metadata: text by key, which `torch.export.load(path, extra_files={key: ""})` fills in.
        tolerance: of each output, relative to how much it varies over the inputs.
        program: `trace(model, example)`, where the caller has it already.

    Returns:
        The largest difference between the file, read back, and the model.

    Raises:
        InputError: the model has pruning hooks, is not on the CPU, does not run on `example`, or lacks what `dynamic`
            names.
        UnsupportedModelError: the model cannot be traced.
        ProofError: the file computes something else; it is not kept.
        OutputError: the file cannot be written.
    """
    model = uncompiled(model)
    require_path("path", path)
    require_arguments(model, example, tolerance, program)
    require_metadata(metadata)
    called = interface(model, example, dynamic)
    program = program or trace(model, example, dynamic=dynamic)
    with atomic(path) as temporary:
        # Given a path, torch.export.save would write the temporary file's name into the archive.
        with archive(temporary) as file:
            torch.export.save(program, file, extra_files=dict(metadata or {}))
        with temporary.open("rb") as file, quiet():  # torch 2.9 warns of its own buffers
            module = torch.export.load(file).module()

        most = largest(called, program)
        return prove_sizes(model, _runs(module, called), called, most, tolerance, f"the program {path}")


def _runs(program: nn.Module, called: Interface) -> Callable[[Inputs], object]:
    """Calls a program with the tensors of a call."""

    def run(given: Inputs) -> object:
        args, kwargs = called.call(called.named(given))
        return program(*args, **kwargs)

    return run


def prove_sizes(
    model: nn.Module,
    run: Callable[[Inputs], object],
    called: Interface,
    most: Mapping[str, int],
    tolerance: float,
    what: str,
) -> float:
    """`prove_file` at the example's sizes, and at others of the dimensions that vary, `most` at the most."""
    examples = [called.example, *called.others(most)]
    return max(prove_file(model, run, example, tolerance, what).difference for example in examples)


def largest(called: Interface, program: ExportedProgram) -> dict[str, int]:
    """The largest sizes of the dimensions that vary, where the program has found one: a table of positions ends."""
    found: dict[str, int] = {}
    nodes = {node.name: node for node in program.graph.nodes}
    for input_name, varying in zip(program.graph_signature.user_inputs, called.varying, strict=True):
        for dim, name in varying.items():
            size = nodes[str(input_name)].meta["val"].shape[dim]
            bounds = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
            if bounds is not None and bounds.upper.is_Integer:
                found[name] = min(int(bounds.upper), found.get(name, int(bounds.upper)))
    return found


def require_arguments(model: object, example: object, tolerance: object, program: object = None) -> None:
    """Refuse a model that cannot become a file.

    Raises:
        InputError: see `require_plain`; or an argument has a wrong type.
    """
    require_unwrapped(model)
    inputs_of(example)
    check("tolerance", tolerance, float, ge=0)
    if program is not None and not isinstance(program, ExportedProgram):
        raise InputError(f"program: found {shown(program)}; expected what trace(model, example) gives")
    assert isinstance(model, nn.Module)
    require_plain(model)


def trace(model: nn.Module, example: object, *, dynamic: Dynamic | None = None) -> ExportedProgram:
    """Trace the model in evaluation mode with a dynamic batch dimension; ONNX and `.pt2` can share the result.

    Args:
        example: whatever the network is called with (see `compress.Inputs`).
        dynamic: names of dimensions that vary beside the batch, by input and dimension.

    Raises:
        InputError: the model has pruning hooks, is not on the CPU, or does not run on `example`; or it lacks what
            `dynamic` names.
        UnsupportedModelError: torch.export cannot trace it, or it returns no tensor.
    """
    model = uncompiled(model)
    require_plain(model)
    called = interface(model, example, dynamic)
    with untouched(model) as network:
        RealPass(network, called.example)  # raises where the network itself does not run
    program = _program(model, called, dynamic)
    output_names(program, ())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has paths of this machine
    return program


def _program(model: nn.Module, called: Interface, dynamic: Dynamic | None) -> ExportedProgram:
    """What torch.export makes of the network, or else of the graph that this package traces of it, if that is proven.

    A size that varies is a symbol in torch.export's pass, which cannot be the key of a cache, and a number in ours.
    """
    try:
        with untouched(model, faked=True) as network:
            return _exported(network, called)
    except Exception as error:  # torch.export has no base class for its errors
        why, said = error, f": {reason(error)}"
    try:
        with untouched(model, faked=True) as network:
            graph = traced_module(traced(network, called.example, dynamic=dynamic), tensors_of(network))
            program = _exported(graph, called)
        prove_sizes(model, _runs(program.module(), called), called, largest(called, program), 1e-5, "the program")
        return program
    except UnsupportedModelError as error:
        said = f". {error}"  # it names the line
    except Exception:  # the first reason is raised below
        pass
    sizes = " and ".join(["batch size", *called.sizes])
    raise UnsupportedModelError(f"torch.export cannot trace {type(model).__name__} for any {sizes}{said}") from why


def _exported(network: nn.Module, called: Interface) -> ExportedProgram:
    args, kwargs = called.call(called.named(called.traced()))
    batch = torch.export.Dim(BATCH_NAME)
    # A length may have bounds, such as that of a table of positions, which torch finds of a DYNAMIC one.
    dims = {
        name: {dim: batch if word == BATCH_NAME else torch.export.Dim.DYNAMIC for dim, word in varying.items()}
        for name, varying in zip(called.names, called.varying, strict=True)
    }
    with quiet():
        return torch.export.export(Exported(network, called), args, kwargs, dynamic_shapes=dims)


def load_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """The program in the file, by `torch.export.load`, which may run code that is in it.

    Raises:
        CheckpointError: it is not a file, or not a program.
    """
    place(Path(path), "name a program, as torch.export.save writes it")
    try:
        with quiet():
            return torch.export.load(path)
    except Exception as error:  # torch.export has no base class for its errors
        raise CheckpointError(f"{path} cannot be read as an exported program: {error}") from error


def read_program(path: str | os.PathLike[str]) -> nn.Module:
    """A program as a network that can be trained on and pruned, under the names that its parameters had.

    It is a graph, and computes as the network did when it was exported: in evaluation mode, `train()` turns on neither
    dropout nor the statistics of a batch.

    Raises:
        CheckpointError: it is not a file, or not a program.
        UnsupportedModelError: it was exported in training mode, or for one size of the batch.
    """
    require_path("path", path)
    program = load_program(path)
    _require_usable(program, path)
    module = runnable(program)
    graph = module.graph
    for node in reversed(graph.nodes):
        # Checks of sizes would hold for the network before it was slimmed only.
        if not node.users and (node.op == "call_module" or str(node.target) in _CHECKS):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    # A new module, since that of a program refuses train() and eval().
    return fx.GraphModule(module, graph, class_name="Program").eval()


def runnable(program: ExportedProgram) -> fx.GraphModule:
    """The program as a network that also runs on fake tensors, with attention as matrix products.

    torch 2.9 exports views of attention's result that fit the memory of its fused operator alone; reshapes fit any.
    """
    module: fx.GraphModule = program.module()
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    module.recompile()
    return module


_CHECKS = ("aten._assert_tensor_metadata.default", "aten._assert_scalar.default")
_MODES = {"dropout": "train", "batch_norm": "training"}


def _require_usable(program: ExportedProgram, path: str | os.PathLike[str]) -> None:
    export = 'torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))'
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shapes = [list(tensor.shape) for tensor in inputs if isinstance(tensor, Tensor)]
    if all(isinstance(size, int) for shape in shapes for size in shape):
        sizes = ", ".join(str(shape[0]) for shape in shapes[:1] if shape)
        raise UnsupportedModelError(
            f"the program {path} takes batches of {sizes} and no others: export it with {export}"
        )
    for node in program.graph.nodes:
        name = node.target._schema.name.removeprefix("aten::") if hasattr(node.target, "_schema") else ""
        names = [argument.name for argument in node.target._schema.arguments] if name in _MODES else []
        if names and node.args[names.index(_MODES[name]) :][:1] == (True,):
            raise UnsupportedModelError(
                f"the program {path} was exported in training mode ({node.name}), in which it gives another output "
                f"each time: export it with {export}"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporters, which warn, log and print half-made graphs; they raise errors anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
