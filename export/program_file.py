"""`.pt2`: the traced program with its weights, which runs with torch alone, without the model's source code.

Reading one is for files of people that you trust: `torch.export.load` unpickles everything but plain tensors, and
evaluates the file's expressions for sizes.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from compress.errors import CheckpointError, InputError, UnsupportedModelError
from compress.evaluation_mode import evaluation_mode
from compress.export.weights_file import require_plain
from compress.files.atomic import archive, atomic, require_path
from compress.graph.network import require_unwrapped
from compress.inputs import inputs_of
from compress.options import check, shown
from compress.proof import prove_file


def pt2(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    tolerance: float = 1e-5,
    program: ExportedProgram | None = None,
) -> float:
    """Write the model as a program; `torch.export.load(path).module()` runs it for any batch size.

    Args:
        example: one input, shape [batch, ...]; only its shape and type end up in the file.
        tolerance: of the outputs, relative to their largest magnitude.
        program: `trace(model, example)`, where the caller has it already.

    Returns:
        The largest difference between the file, read back, and the model.

    Raises:
        InputError: the model has pruning hooks, is not on the CPU, or cannot be traced.
        ProofError: the file computes something else; it is not kept.
        OutputError: the file cannot be written.
    """
    require_arguments(model, path, example, tolerance, program)
    program = program or trace(model, example)
    with atomic(path) as temporary:
        # Given a path, torch.export.save would write the temporary file's name into the archive.
        with archive(temporary) as file:
            torch.export.save(program, file)
        with temporary.open("rb") as file, quiet():  # torch 2.9 warns of its own buffers
            module = torch.export.load(file).module()
        return prove_file(
            model, lambda inputs: inputs.call(module), example, tolerance, f"the program {path}"
        ).difference


def require_arguments(model: object, path: object, example: object, tolerance: object, program: object = None) -> None:
    """Refuse a model that cannot become a file.

    Raises:
        InputError: see `require_plain`; or an argument has a wrong type.
    """
    require_unwrapped(model)
    require_path("path", path)
    inputs_of(example)
    check("tolerance", tolerance, float, ge=0)
    if program is not None and not isinstance(program, ExportedProgram):
        raise InputError(f"program: found {shown(program)}; expected what trace(model, example) gives")
    assert isinstance(model, nn.Module)
    require_plain(model)


def trace(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Trace the model in evaluation mode with a dynamic batch dimension; ONNX and `.pt2` can share the result.

    Args:
        example: one input, shape [batch, ...], of the model's only argument.

    Raises:
        InputError: the model has pruning hooks or is not on the CPU.
        UnsupportedModelError: torch.export cannot trace it, or its output is not one tensor.
    """
    require_plain(model)
    inputs_of(example)
    # Two rows, since torch.export takes a size of 1 for a constant. Zeros, since the file keeps the inputs.
    inputs = torch.zeros(2, *example.shape[1:], dtype=example.dtype)
    try:
        with evaluation_mode(model), quiet():
            program = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch.export has no base class for its errors
        reason = str(error).strip().partition("\n\n")[0]
        raise UnsupportedModelError(
            f"torch.export cannot trace {type(model).__name__} for any batch size: {reason}"
        ) from error
    outputs = program.graph_signature.user_outputs
    if len(outputs) != 1:
        raise UnsupportedModelError(f"{type(model).__name__} has {len(outputs)} outputs; one tensor is supported")
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has paths of this machine
    return program


def load_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """The program in the file, by `torch.export.load`, which may run code that is in it.

    Raises:
        CheckpointError: it is not a file, or not a program.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} is not a file: name a program, as torch.export.save writes it")
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
        UnsupportedModelError: it was exported in training mode, for one size of the batch, or has several inputs or
            outputs.
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
    signature = program.graph_signature
    for what, names in (("inputs", signature.user_inputs), ("outputs", signature.user_outputs)):
        if len(names) != 1:
            raise UnsupportedModelError(f"the program {path} has {len(names)} {what}; one tensor is supported")
    (entry,) = (node for node in program.graph.nodes if node.name == signature.user_inputs[0])
    if isinstance(entry.meta["val"].shape[0], int):
        raise UnsupportedModelError(
            f"the program {path} takes batches of {entry.meta['val'].shape[0]} and no others: export it with {export}"
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
