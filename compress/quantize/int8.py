"""`int8`: int8 of a network or of any ONNX file, from batches of its training data."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from compress.batches import FORMS, Pairs
from compress.data.loaders import LoaderBatches
from compress.dynamic import Dynamic
from compress.errors import InputError
from compress.evaluation_mode import evaluation_mode
from compress.export.latency import require_file
from compress.export.onnx_file import onnx
from compress.files.atomic import require_path
from compress.inputs import inputs_of
from compress.options import check, require_word, shown
from compress.quantize.choosing import Quantized, quantize
from compress.quantize.settings import Calibration, Method, Quantization
from compress.quantize.training_data import Split
from compress.results import Metric
from compress.task_words import WORDS
from compress.tasks import NamedTask, OwnTask, Task, ranking


def int8(
    source: nn.Module | str | os.PathLike[str],
    path: str | os.PathLike[str],
    example: object = None,
    batches: Pairs = (),
    *,
    task: Task | None = None,
    kind: Literal["auto", "static", "dynamic"] = "auto",
    samples: int = 512,
    method: Method = "minmax",
    per_channel: bool = True,
    exclude: Sequence[str] = (),
    max_drop: float = 0.5,
    batch_sizes: Sequence[int] = (1, 32),
    threads: int = 1,
    dynamic: Dynamic | None = None,
) -> Quantized:
    """Write int8 of a network, or of any ONNX file, if that is faster or smaller and loses at most `max_drop`.

    The file is not equal to the network, and nothing of it is proven; it is measured.

    Args:
        source: a network, or the path of an ONNX file of float32.
        path: the int8 file.
        example: what the network is called with; for an ONNX file it is not needed.
        batches: training data that can be read several times, such as a list or a DataLoader, with inputs as the
            network gets them: the first `samples` calibrate, and up to 5,000 others decide.
        task: what decides: "classify" or another word (docs/tasks.md), a `NamedTask` or an `OwnTask`; the batches then
            have targets. Without it, the mean squared difference from the float file's outputs, relative to their
            variance.
        kind, samples, method, per_channel, exclude, max_drop: see `compress.quantize.settings`.
        batch_sizes, threads: what is timed, in onnxruntime.
        dynamic: names of dimensions that vary beside the batch, as for `compress.export.onnx`.

    Returns:
        `path` (None if the float file is kept), `why`, and `entry` with all measurements.

    Raises:
        InputError: an argument, a batch or the file is wrong, or there is nothing to quantize.
        ProofError: a fresh process computes something else with the int8 file.
        OutputError: the file cannot be written.
    """
    require_path("path", path)
    wanted = Quantization(kind, per_channel, max_drop, Calibration(samples, method), exclude)
    _require_arguments(source, batches, task, batch_sizes, threads)
    with ExitStack() as stack:
        if isinstance(source, nn.Module):
            file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "float.onnx"
            onnx(source, file, example, dynamic=dynamic)
        else:
            file = Path(source)
        data = Split(LoaderBatches(batches, torch.device("cpu"), "batches:"), samples)
        like = _output(source, example) if isinstance(source, nn.Module) else None

        def evaluate(candidate: Path) -> Metric:
            return data.difference(candidate, file) if task is None else data.metric(candidate, task, like)

        return quantize(
            file,
            Path(path),
            data.feeds(file),
            wanted,
            evaluate,
            ranked=None if task is None else ranking(task),
            batch_sizes=batch_sizes,
            threads=threads,
        )


def _require_arguments(source: object, batches: object, task: object, batch_sizes: object, threads: object) -> None:
    if not isinstance(source, nn.Module):
        require_path("source", source)
        require_file(os.fspath(source))  # type: ignore[call-overload]
    if not isinstance(batches, Iterable) or isinstance(batches, str | type):
        raise InputError(f"batches: found {shown(batches)}; expected a list or a DataLoader of {FORMS}")
    if iter(batches) is batches:
        raise InputError(f"batches: found {shown(batches)}, which can be read only once; give a list or a DataLoader")
    if task is not None and not isinstance(task, OwnTask | NamedTask):
        require_word("task", task, WORDS)
    if not isinstance(batch_sizes, list | tuple) or not batch_sizes:
        raise InputError(f"batch_sizes: found {shown(batch_sizes)}; expected a list of sizes, such as [1, 32]")
    for size in batch_sizes:
        check("batch_sizes", size, int, ge=1)
    check("threads", threads, int, ge=1)


def _output(model: nn.Module, example: object) -> object:
    with evaluation_mode(model):
        return inputs_of(example).call(model)
