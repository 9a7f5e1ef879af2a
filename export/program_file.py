"""`.pt2`: the traced program with its weights, which runs with torch alone, without the model's source code."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.atomic import atomic
from compress.errors import UnsupportedModelError
from compress.export.parity import check
from compress.export.weights_file import require_plain
from compress.metrics import evaluation_mode


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
    require_plain(model)
    program = program or trace(model, example)
    with atomic(path) as temporary:
        # Given a path, torch.export.save would write the temporary file's name into the archive.
        with temporary.open("wb") as file:
            torch.export.save(program, file)
        with temporary.open("rb") as file:
            module = torch.export.load(file).module()
        return check(model, module, example, tolerance, f"the program {path}")


def trace(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Trace the model in evaluation mode with a dynamic batch dimension; ONNX and `.pt2` can share the result.

    Args:
        example: one input, shape [batch, ...], of the model's only argument.

    Raises:
        InputError: the model has pruning hooks or is not on the CPU.
        UnsupportedModelError: torch.export cannot trace it, or its output is not one tensor.
    """
    require_plain(model)
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
        node.meta.pop("stack_trace", None)  # the paths of this machine are nobody's business
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporters, which warn, log and print half-made graphs; what matters they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
