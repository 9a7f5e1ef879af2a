"""Runs files as somebody would who has nothing but them: a script for a fresh process, started by `reading_back`.

`.onnx` files come first, while nothing but onnxruntime is imported, then `.pt2` files, by torch alone, then weights, by
`compress.load` with a newly built network. Inputs and outputs are arrays in the folder of the job. A job may ask for
the memory that one file takes instead, `MEMORY`.
"""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
"""Tensors by name, and their type where numpy lacks it: "logits:bfloat16" has the bits as integers."""

Runs = Callable[[Arrays], Arrays]

JOB, ANSWER = "job.json", "answer.json"

OUTPUTS, MEMORY = "outputs", "memory"
"""What a job asks for: the outputs of all files, or the memory that its only file takes."""

WAITING = "waiting"
"""An argument of a process that is started before there is a job."""


def work(folder: Path) -> None:
    """Do the job in the folder, and write the answer."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    sys.path[:] = job["path"]
    answer = _memory(folder, job) if job["asked"] == MEMORY else _outputs(folder, job)
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8", newline="\n")


def wait() -> None:
    """Import modules while the files of the job are still being made; the input ends when the job is in the folder.

    Its first line has the path to import from, and the modules' names.
    """
    asked = json.loads(sys.stdin.readline())
    sys.path[:] = asked["path"]
    for name in asked["modules"]:
        import_module(name)
    sys.stdin.read()


def _outputs(folder: Path, job: Mapping[str, Any]) -> dict[str, str]:
    """Run every file of the job on every input; returns the files that fail, with the reason."""
    failed: dict[str, str] = {}
    for suffix, reader in READERS.items():
        for number, path in enumerate(job["files"]):
            if Path(path).suffix == suffix:
                try:
                    run = reader(path, job)
                    for index, given in enumerate(_inputs(folder, job)):
                        np.savez(folder / f"{number}-{index}.npz", allow_pickle=False, **run(given))
                except Exception as error:  # the file, the network or a library may raise anything
                    failed[path] = f"{type(error).__name__}: {error}"
    return failed


def _memory(folder: Path, job: Mapping[str, Any]) -> int | None:
    """The largest resident size in bytes while the file runs, less that after the imports; None if it is not known.

    Reading the file may take more for a moment; memory that it does not give back counts.
    """
    (path,) = job["files"]
    inputs = list(_inputs(folder, job))
    for name in IMPORTED[Path(path).suffix]:
        import_module(name)
    if Path(path).suffix == ".safetensors":
        _built(job)  # the network's code imports what it needs
    before = _resident("VmRSS")
    run = READERS[Path(path).suffix](path, job)
    for given in inputs:
        run(given)
    _forget_peak()
    for given in inputs:
        run(given)
    peak = _resident("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def _resident(key: str) -> int | None:
    """Bytes: VmRSS is the resident size now, VmHWM the largest one so far. Only Linux tells them."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def _forget_peak() -> None:
    with suppress(OSError):  # a system that forbids it counts the reading of the file, too
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii", newline="\n")


def _inputs(folder: Path, job: Mapping[str, Any]) -> Iterator[Arrays]:
    for index in range(job["inputs"]):
        with np.load(folder / f"inputs-{index}.npz", allow_pickle=False) as arrays:
            yield dict(arrays)


def _onnx(path: str, job: Mapping[str, Any]) -> Runs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = job["threads"], 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda given: {str(place): output for place, output in enumerate(session.run(None, given))}


def _program(path: str, job: Mapping[str, Any]) -> Runs:
    import torch
    from torch.utils._pytree import tree_leaves

    torch.set_num_threads(job["threads"])
    network = torch.export.load(path).module()

    def run(given: Arrays) -> Arrays:
        tensors = tensors_of(given)
        several = list(tensors.values())[: job["by_position"]]
        with torch.no_grad():
            output = network(*several, **dict(list(tensors.items())[len(several) :]))
        return arrays_of({str(place): leaf for place, leaf in enumerate(tree_leaves(output)) if leaf is not None})

    return run


def _weights(path: str, job: Mapping[str, Any]) -> Runs:
    import torch
    from torch.utils._pytree import tree_unflatten, treespec_loads

    from compress.export.interface import tensors_in
    from compress.files.checkpoint import load

    torch.set_num_threads(job["threads"])
    network = load(path, lambda: _built(job))
    if job["sparse"]:
        from compress.sparsify.sparse import with_sparse

        network = with_sparse(network, job["sparse"])
    structure = treespec_loads(job["call"])

    def run(given: Arrays) -> Arrays:
        left = iter(tensors_of(given).values())
        args, kwargs = tree_unflatten([next(left) if leaf == TENSOR else leaf for leaf in job["leaves"]], structure)
        with torch.no_grad():
            return arrays_of({str(place): leaf for place, leaf in enumerate(tensors_in(network(*args, **kwargs)))})

    return run


def _built(job: Mapping[str, Any]) -> Any:
    from compress.models import from_factory

    return from_factory(job["network"]["factory"], job["network"]["args"])


READERS: Mapping[str, Callable[[str, Mapping[str, Any]], Runs]] = {
    ".onnx": _onnx,
    ".pt2": _program,
    ".safetensors": _weights,
}

IMPORTED: Mapping[str, tuple[str, ...]] = {
    ".onnx": ("onnxruntime",),
    ".pt2": ("torch", "torch.export", "torch._dynamo"),  # which torch.export.load imports
    ".safetensors": ("compress.files.checkpoint", "compress.models", "compress.export.interface"),
}
"""What a process has imported before it reads such a file."""

TENSOR = {"tensor": True}
"""Represents a tensor among the leaves of a call."""


def arrays_of(tensors: Mapping[str, Any]) -> Arrays:
    import torch

    found: Arrays = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        lacking = plain.dtype == torch.bfloat16
        found[f"{name}:bfloat16" if lacking else name] = (plain.view(torch.int16) if lacking else plain).numpy()
    return found


def tensors_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}
    for key, array in arrays.items():
        name, _, kind = key.partition(":")
        tensor = torch.from_numpy(array)
        found[name] = tensor.view(torch.bfloat16) if kind else tensor
    return found


if __name__ == "__main__":
    gc.disable()  # importing torch creates millions of objects that are kept
    if sys.argv[2:] == [WAITING]:
        wait()
    work(Path(sys.argv[1]))
    os._exit(0)  # taking all of them down again takes a third of a second
