"""The files to choose from after a run, measured side by side: dense, dense int8, slim, slim int8, sparse."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

import compress.export
from compress.errors import InputError
from compress.export import latency
from compress.export.interface import interface
from compress.export.reading_back import Network, peak_memory
from compress.inputs import Inputs
from compress.quantize.settings import Quantization
from compress.recipe import schema
from compress.report.choices import LABELS, best_of, file_kind
from compress.results import Choice, ChoiceName, Choices, Format, Load, ModelName, Models, Quality
from compress.run.quantizing import agreement_of_files, metric_of_file, quantized
from compress.run.sampling import quality
from compress.run.setting import Setting
from compress.run_warnings import RunWarning
from compress.sparsify.decisions import SparseReport
from compress.sparsify.sparse import sparse
from compress.tasks import ranking
from compress.tasks.sampling import Samples

SLIM_INT8, SLIM_SPARSE = "slim.int8.onnx", "slim.sparse.safetensors"

_FLOAT: Mapping[ModelName, ChoiceName] = {"dense": "dense", "slim": "slim"}
_INT8: Mapping[ModelName, ChoiceName] = {"dense": "dense_int8", "slim": "slim_int8"}

_DENSE_IN_TORCH = "dense in torch"


class RefusedWarning(RunWarning):
    """A requested file is not worth it; the float file is kept."""

    kind = "refused"


@dataclass
class ChoosingRun:
    """Makes int8 and sparse files where the recipe asks for them, and measures all choices, step by step.

    networks: dense and slim, on the CPU, released before anything is timed.
    files: what was written of all three networks.
    described: the entries of results.json, with bytes and metrics.
    samples: that have watched the evaluation of the dense network.
    folder: of the slim network's files. scratch: for files that are only measured.
    fresh: how a fresh process builds the dense network.
    """

    recipe: schema.Recipe
    networks: dict[ModelName, nn.Module]
    files: Mapping[ModelName, Mapping[Format, Path]]
    described: Models
    samples: Samples
    folder: Path
    scratch: Path
    setting: Setting
    fresh: Network
    choices: dict[ChoiceName, Choice] = field(default_factory=dict)
    _paths: dict[ChoiceName, Path] = field(default_factory=dict)
    _in_torch: dict[str, tuple[nn.Module, Inputs]] = field(default_factory=dict)
    _sizes: Mapping[str, int] = field(default_factory=dict)  # of dimensions that vary beside the batch
    _load: Load | None = None  # while the files were timed
    _converted: tuple[str, ...] = ()  # the layers that have become sparse

    def __post_init__(self) -> None:
        self.setting = replace(self.setting, device=torch.device("cpu"))
        self.example = self.setting.example
        self._sizes = interface(self.networks["slim"], self.example, self.recipe.dynamic).sizes
        kind = file_kind(self.described)
        for name, choice in _FLOAT.items():
            path = self.scratch / f"{name}.safetensors" if kind is None else self.files[name][kind]
            if kind is None:  # for its size
                compress.export.safetensors(self.networks[name], path)
            self._add(choice, path, self.described[name])

    def _add(self, name: ChoiceName, path: Path, found: Quality) -> Choice:
        choice: Choice = {
            "runtime": "onnxruntime" if path.suffix == ".onnx" else "torch",
            "bytes": path.stat().st_size,
            "metric": found["metric"],
        }
        if "error" in found:
            choice["error"] = found["error"]
        if "change" in found:
            choice["change"] = found["change"]
        if path.parent == self.folder:
            choice["file"] = path.name
        self.choices[name], self._paths[name] = choice, path
        return choice

    # --- int8 ---

    def quantize(self) -> None:
        """Make int8 of the dense and of the slim ONNX file, and measure it in onnxruntime on the test data."""
        for name, choice in _INT8.items():
            network, source = self.networks[name], self.files[name]["onnx"]
            out = self.folder / SLIM_INT8 if name == "slim" else self.scratch / "dense.int8.onnx"
            try:
                found = quantized(self.recipe, self.setting, network, source, out)
            except InputError as error:  # the float file is good, and hours of training are behind it
                self.choices[choice] = {"runtime": "onnxruntime", "refused": str(error)}
                continue
            if found.refused is not None:
                self.choices[choice] = {
                    "runtime": "onnxruntime",
                    "quantization": found.entry,
                    "refused": found.refused,
                }
                continue
            samples = Samples(self.setting.task)
            metric = metric_of_file(self.setting, network, out, samples)
            entry = self._add(choice, out, quality(metric, samples, self.samples))
            entry["agreement"] = agreement_of_files(self.setting, out, source)
            entry["quantization"] = found.entry

    # --- sparse ---

    def sparsify(self) -> None:
        """Turn layers of the slim network whose zeros pay into sparse ones, and measure it in torch."""
        with latency.torch_threads(self.recipe.benchmark.threads):
            network = sparse(self.networks["slim"], self.example, self.recipe.benchmark.batch_sizes[0])
            report: SparseReport = network.sparse_report  # type: ignore[assignment]
        self._converted = report.converted
        samples = Samples(self.setting.task)
        metric = self.setting.evaluate(network, samples)
        self._add("sparse", self.folder / SLIM_SPARSE, quality(metric, samples, self.samples))
        self._in_torch = {
            _DENSE_IN_TORCH: (self.networks["dense"], self.example),
            "sparse": (network, self.example),
        }

    # --- memory and time ---

    def weigh(self) -> None:
        """Measure the memory that each ONNX file and the sparse network take, in fresh processes."""
        owners: Mapping[ChoiceName, ModelName] = {"dense": "dense", "dense_int8": "dense"}
        for name, path in self._paths.items():
            if path.suffix == ".onnx" or name == "sparse":
                peak = peak_memory(
                    path,
                    self.networks[owners.get(name, "slim")],
                    self.example,
                    self.recipe.benchmark.batch_sizes,
                    network=self.fresh,
                    sparse=self._converted,
                    threads=self.recipe.benchmark.threads,
                )
                if peak is not None:
                    self.choices[name]["peak_memory"] = peak

    def time(self) -> None:
        """Time all ONNX files and, beside the sparse network, the dense one in torch; in turns."""
        onnx: dict[str, Path] = {name: paths["onnx"] for name, paths in self.files.items() if "onnx" in paths}
        onnx |= {name: self._paths[name] for name in _INT8.values() if name in self._paths}
        models: dict[str, latency.Timeable] = {**onnx, **self._in_torch}
        if not models:
            return
        wanted, seconds = self.recipe.benchmark, len(models) / 3
        timings = latency.measure(
            models, batch_sizes=wanted.batch_sizes, sizes=self._sizes, threads=wanted.threads, seconds=seconds
        )
        self._load = timings.load
        if onnx:
            timed = timings.document("dense")["models"]
            for name, described in self.described.items():
                described["latency_ms"] = timed[name]
            for choice, path in self._paths.items():
                if path.suffix == ".onnx":
                    self.choices[choice]["latency_ms"] = timed[choice]
        if self._in_torch:
            in_torch = timings.document(_DENSE_IN_TORCH)["models"]
            self.choices["sparse"]["latency_ms"] = in_torch["sparse"]
            self.choices["sparse"]["torch_dense_latency_ms"] = in_torch[_DENSE_IN_TORCH]

    def entries(self) -> Choices:
        """The entries of results.json."""
        wanted = self.recipe.quantize
        max_drop = Quantization().max_drop if wanted is None else wanted.build().max_drop
        in_order: dict[ChoiceName, Choice] = {name: self.choices[name] for name in LABELS if name in self.choices}
        found: Choices = {"choices": in_order, "best": best_of(in_order, max_drop, ranking(self.setting.task))}
        if self._load is not None:
            found["load"] = self._load
        return found
