"""Time any mixture of a run's files: ONNX in onnxruntime, weights and programs in torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.documents import Timed
from compress.errors import InputError
from compress.export import latency
from compress.export.onnx_reading import onnx_size
from compress.export.program_file import load_program, runnable
from compress.files.foreign import confined
from compress.files.places import SUFFIXES, is_weights, place, size_of
from compress.inputs import Inputs
from compress.run.exporting import example_of, network_of
from compress.sparsify.sparse import sparse

_PATIENCE = 40
"""How many times as long as asked for timing may take: a large model runs 35 times at the first batch size."""


def bench(
    files: Sequence[str | os.PathLike[str]],
    *,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    trusted: bool = False,
    batch_sizes: Sequence[int] = (1, 32),
    sizes: Mapping[str, int] | None = None,
    threads: int = 1,
    seconds: float = 1.0,
) -> Timed:
    """`latency.measure` of untrusted files in a child process of bounded time and memory.

    Args:
        recipe, changes: the recipe of the networks whose weights are among the files; files may contain their own.
        trusted: let torch load programs (.pt2), which may run code from the file.

    Returns:
        The result of `Timings.document`; ratios are to the first file.

    Raises:
        InputError: as `latency.measure`; a file is of another kind, its network is not known, or it is a program and
            not trusted; or a model takes too much for its size.
    """
    names = {os.fspath(file): Path(file) for file in files}
    for name, path in names.items():
        _require_kind(name, path, trusted)
    if recipe is None and changes:
        raise InputError("--set changes a recipe: name it with --recipe")
    size = sum(onnx_size(path) if path.suffix == ".onnx" else size_of(place(path)) for path in names.values())
    found: Timed = confined(
        lambda: latency.measure(
            {name: _model(path, recipe, changes, batch_sizes[0], threads) for name, path in names.items()},
            batch_sizes=batch_sizes,
            sizes=sizes,
            threads=threads,
            seconds=seconds,
        ).document(next(iter(names))),
        InputError,
        f"{', '.join(names)}: batches of {', '.join(map(str, batch_sizes))} cannot be timed",
        size,
        _PATIENCE * seconds,
    )
    return found


def _require_kind(name: str, path: Path, trusted: bool) -> None:
    if place(path, "name a file to time").file.suffix not in (".onnx", ".pt2") and not is_weights(place(path).file):
        raise InputError(f"{name} ends in {path.suffix!r}: .onnx, .pt2, {', '.join(SUFFIXES)} can be timed")
    if path.suffix == ".pt2" and not trusted:
        raise InputError(
            f"{name} is a program, and torch.export.load may run code from it: where you trust it, add --trust"
        )


def _model(path: Path, recipe: str | None, changes: Sequence[str], batch_size: int, threads: int) -> latency.Timeable:
    """What is timed of a file; layers of a `.sparse.safetensors` file become sparse where they are faster so."""
    if path.suffix == ".onnx":
        return path
    if path.suffix == ".pt2":
        program = load_program(path)
        args, kwargs = program.example_inputs
        return runnable(program), Inputs(args, kwargs)
    found, network, _ = network_of(path, recipe, changes)
    example = example_of(found, network)
    if path.name.endswith(".sparse.safetensors"):
        with latency.torch_threads(threads):
            network = sparse(network.eval(), example, batch_size)
    return network, example
