"""int8 of ONNX files: a run's, from its own data, and any file, from arrays or a recipe's data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.batches import LABELS, Batches, Pair, Pairs, Subset
from compress.data.array_files import read_arrays
from compress.data.validation import has_validation
from compress.documents import QuantizedFile
from compress.errors import DataError
from compress.evaluation_mode import evaluation_mode
from compress.export.onnx_network import OnnxNetwork
from compress.inputs import Inputs
from compress.quantize.agreement import agreement
from compress.quantize.calibration import fixed_batch
from compress.quantize.choosing import Quantized, quantize
from compress.quantize.settings import Quantization
from compress.quantize.training_data import Split
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.results import Agreement, Metric
from compress.run.building import build_task
from compress.run.data_sets import build_data
from compress.run.setting import Setting
from compress.select.scoring import EVALUATION_BATCH
from compress.tasks import Task, ranking
from compress.train import metrics


def quantized(recipe: schema.Recipe, setting: Setting, network: nn.Module, file: Path, out: Path) -> Quantized:
    """Make int8 of the ONNX file of `network`, as the recipe's `quantize` and `benchmark` say.

    Raises:
        InputError, ProofError, OutputError: as `compress.quantize.choosing.quantize`.
    """
    wanted = Quantization() if recipe.quantize is None else recipe.quantize.build()
    like = _output(network, setting)
    data = Split(
        _shuffled(_batches(setting, "train"), recipe.seed),
        wanted.calibration.samples,
        _shuffled(_batches(setting, "validation"), recipe.seed) if has_validation(setting.data) else None,
    )
    return quantize(
        file,
        out,
        data.feeds(file),
        wanted,
        lambda candidate: data.metric(candidate, setting.task, like),
        ranked=ranking(setting.task),
        batch_sizes=recipe.benchmark.batch_sizes,
        threads=recipe.benchmark.threads,
    )


def metric_of_file(setting: Setting, network: nn.Module, file: Path, seen: Callable[[Any, Any], None]) -> Metric:
    """The metric of an ONNX file of `network` on all test data, as onnxruntime computes it.

    `seen` is called with each (output, target).
    """
    model = OnnxNetwork(file, like=_output(network, setting))
    return metrics.evaluate(model, _batches(setting, "test"), setting.task, seen)


def agreement_of_files(setting: Setting, int8: Path, float_file: Path) -> Agreement:
    """How much two ONNX files agree on all test data."""
    return agreement(OnnxNetwork(float_file), OnnxNetwork(int8), _batches(setting, "test")(), setting.task)


def _batches(setting: Setting, subset: Subset) -> Batches:
    return setting.data.batches(subset, EVALUATION_BATCH, setting.task, "cpu")


def _shuffled(batches: Batches, seed: int, most: int | None = None) -> Callable[[], Pairs]:
    """A function that gives the first `most` batches, or all, in the same order at each call."""
    return lambda: islice(batches(torch.Generator().manual_seed(seed)), most)


def _output(network: nn.Module, setting: Setting) -> object:
    """What the network returns for the example, on the CPU."""
    with evaluation_mode(network):
        return setting.example.mapped(Tensor.cpu).call(network)


# --- any file ---


def quantize_file(
    file: Path,
    source: str,
    out: Path,
    wanted: Quantization,
    *,
    root: Path = Path("data"),
    changes: Sequence[str] = (),
    batch_sizes: Sequence[int] = (1, 32),
    threads: int = 1,
) -> QuantizedFile:
    """Make int8 of any ONNX file.

    Args:
        source: the training data: an .npz file with an array for each input of the file, of the same number of
            samples, and perhaps `labels` [N]; or a recipe's file or name, for its data and task.
        root, changes: of a recipe, as for `compress apply`.

    Raises:
        DataError: the arrays are not those of the inputs, or not finite.
        InputError, ProofError, OutputError: as `compress.quantize.choosing.quantize`.
    """
    task, batches, validation = _training_data(file, source, root, changes)
    data = Split(batches, wanted.calibration.samples, validation)

    def evaluate(candidate: Path) -> Metric:
        return data.difference(candidate, file) if task is None else data.metric(candidate, task)

    made = quantize(
        file,
        out,
        data.feeds(file),
        wanted,
        evaluate,
        ranked=None if task is None else ranking(task),
        batch_sizes=batch_sizes,
        threads=threads,
    )
    found: QuantizedFile = {
        "source": str(file),
        "source_bytes": file.stat().st_size,
        "quantization": made.entry,
    }
    if made.path is None:
        return {**found, "refused": made.why}
    both = OnnxNetwork(file), OnnxNetwork(made.path)
    found["agreement"] = agreement(*both, data.held_out(), task or "reconstruct")
    return {**found, "file": str(made.path), "bytes": made.path.stat().st_size}


def _training_data(
    file: Path, source: str, root: Path, changes: Sequence[str]
) -> tuple[Task | None, Callable[[], Pairs], Callable[[], Pairs] | None]:
    """The task, if there are targets; and functions that give all training and all validation batches."""
    network = OnnxNetwork(file)
    size = fixed_batch(network.inputs)
    if source.endswith(".npz"):
        arrays = _Arrays.read(Path(source), [value.name for value in network.inputs], size)
        return None if arrays.labels is None else "classify", arrays, None
    recipe = load_recipe(source, changes)
    task, data = build_task(recipe.task), build_data(recipe.data, root)

    def all_of(subset: Subset) -> Callable[[], Pairs]:
        batches = data.batches(subset, size or EVALUATION_BATCH, task)
        whole = len(batches) - (1 if size else 0)  # the last batch may be smaller
        return _shuffled(batches, recipe.seed, whole)

    return task, all_of("train"), all_of("validation") if has_validation(data) else None


@dataclass(frozen=True)
class _Arrays:
    """Arrays in shuffled batches of `size` samples; the last one may be smaller where a file takes any number."""

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    size: int
    whole: bool

    @classmethod
    def read(cls, path: Path, names: Sequence[str], size: int | None) -> "_Arrays":
        """Raises DataError unless there is a finite array for each name, with as many samples."""
        arrays = read_arrays(path)
        labels = None if LABELS in names else arrays.pop(LABELS, None)
        if set(arrays) != set(names):
            raise DataError(
                f"{path} has the arrays {', '.join(arrays) or 'none'}, and the ONNX file takes {', '.join(names)}; "
                "name the arrays after its inputs; `labels` may be beside them."
            )
        counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
        if labels is not None:
            if labels.ndim != 1 or labels.dtype.kind not in "iu":
                raise DataError(f"{path}: labels are {labels.dtype} of shape {list(labels.shape)}; give integers [N].")
            counts[LABELS] = len(labels)
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"{path}: the arrays have different numbers of samples ({told}).")
        if not all(counts.values()):
            raise DataError(f"{path} has no sample; give a few hundred of the training data.")
        for name, array in arrays.items():
            _require_finite(array, f"{path}: {name}", masks=len(arrays) > 1)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        targets = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        return cls(tensors, targets, size or EVALUATION_BATCH, size is not None)

    def __call__(self) -> Iterator[Pair]:
        count = len(next(iter(self.inputs.values())))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))  # files are often sorted by class
        for rows in torch.split(order, self.size):
            if len(rows) == self.size or not self.whole:
                labels = None if self.labels is None else self.labels[rows]
                yield Inputs((), {name: tensor[rows] for name, tensor in self.inputs.items()}), labels


def _require_finite(array: NDArray[Any], what: str, *, masks: bool) -> None:
    finite = np.isfinite(array) | (np.isneginf(array) if masks and array.dtype.kind == "f" else False)
    if not np.all(finite):
        raise DataError(f"{what} has NaN or infinite values; fix or remove them.")
