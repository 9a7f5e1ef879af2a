"""What a result depends on: versions, machine, data, and the hash of the initial weights."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch

from compress.batches import Subset
from compress.data.dataset import LABEL, Dataset
from compress.data.loaders import Loaders
from compress.data.streaming import StreamedDataset
from compress.files.places import digest, place
from compress.recipe import schema
from compress.results import Machine, UsedData
from compress.run.checkpoints import Fingerprint
from compress.run.setting import Setting

SUBSETS: tuple[Subset, ...] = get_args(Subset)
PACKAGES = ("softprune", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")


def fingerprint(recipe: schema.Recipe, source: Path | None, setting: Setting) -> Fingerprint:
    """Everything that determines the result of a run; which files are written and timed does not."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"export", "benchmark", "expect"}),
        "weights": None if source is None else digest(place(source)),
        "data": setting.data.sha256,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "device": str(setting.device),
        "processes": setting.ranks.count,
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine(setting: Setting) -> Machine:
    """The machine's entry of results.json."""
    found: Machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "device": str(setting.device)}
    if setting.ranks.count > 1:
        found["processes"] = setting.ranks.count
    return found


def describe_data(setting: Setting) -> UsedData:
    """The data's entry of results.json."""
    data = setting.data
    found: UsedData = {"name": data.name, "sha256": data.sha256, "shape": list(data.shape)}
    for subset in SUBSETS:
        if (count := data.count(subset)) is not None:
            found[subset] = count
    if isinstance(data, Dataset | StreamedDataset):
        found["mean"], found["std"] = data.mean.tolist(), data.std.tolist()
    if data.class_names:
        found["classes"] = list(data.class_names)
    # Those of loaders are known only after a pass over them.
    beside = {} if isinstance(data, Loaders) else {name: of for name, of in data.attributes.items() if name != LABEL}
    if beside:
        found["attributes"] = beside
    if data.note:
        found["note"] = data.note
    return found


def cpu_name() -> str:
    """The processor's name, as far as this system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
