"""Reads files back in fresh processes, which have nothing but them: their outputs, and the memory they take."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, treespec_dumps

from compress.dynamic import BATCH_NAME, Dynamic
from compress.errors import ProofError
from compress.export import stranger
from compress.export.interface import Interface, interface
from compress.export.latency import open_session
from compress.files.foreign import allowed, limit, reason
from compress.graph.untouched import untouched
from compress.inputs import Inputs
from compress.proof import prove_file

_SECONDS = 120.0
"""To start a process and import torch, onnxruntime and this package, even on a busy machine."""

_PATIENCE = 100
"""How many times as long as the networks take here their files may take."""


_OUTSIDE = "; a newly built network lacks what this one keeps outside of its parameters and buffers: register_buffer it"


class Network(TypedDict):
    """A function that builds the network of weights, named as "my_module:build", and its arguments, plain values."""

    factory: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Waiting:
    """A fresh process that has its imports done, or is at it, and no job yet."""

    folder: Path
    process: subprocess.Popen[bytes]

    def run(self, folder: Path, room: int, seconds: float) -> str:
        """Do the job in its folder; else as `run_stranger`."""
        if hasattr(os, "fork"):
            with suppress(ProcessLookupError):  # it has ended, as is said below
                limit(room, seconds, self.process.pid)
        try:
            errors = self.process.communicate(timeout=seconds)[1]  # ends its input: the job is there
        except subprocess.TimeoutExpired:
            return _too_long(seconds)
        return _ended(self.process.returncode, errors)


@contextmanager
def waiting(suffixes: Collection[str]) -> Iterator[Waiting]:
    """A fresh process for `read_back`, which imports what reads such files while they are still being made.

    It has imported no more than a process that starts with the job when it comes to the first of its files: torch alone
    if there are programs. At the end of the block it is ended, if it has not come to its end.
    """
    first = ".pt2" if ".pt2" in suffixes else ".safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [sys.executable, "-I", stranger.__file__, scratch, stranger.WAITING],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # as in `run_stranger`
        )
        asked = {"path": _path(), "modules": stranger.IMPORTED[first]}
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended, as `run` says
                process.stdin.write(f"{json.dumps(asked)}\n".encode())
                process.stdin.flush()
            yield Waiting(Path(scratch), process)
        finally:
            process.kill()
            process.communicate()


def read_back(
    files: Mapping[Path, nn.Module],
    example: object,
    *,
    early: Waiting | None = None,
    network: Network | None = None,
    dynamic: Dynamic | None = None,
    most: Mapping[str, int] | None = None,
    tolerance: float = 1e-5,
) -> dict[str, float]:
    """Load each file in one fresh process and compare what it computes with its network, as `prove_file` does.

    ONNX files are run by onnxruntime alone, `.pt2` programs by torch alone, and `.safetensors` by `compress.load`.

    Args:
        files: the network of each file, on the CPU.
        early: reads all but ONNX files, for which a process without torch is started.
        network: how to build the network, dense, that files of weights belong to.
        dynamic: names of dimensions that vary beside the batch; several of their sizes are tried, `most` at the most.

    Returns:
        The largest difference of each file, by its name.

    Raises:
        ProofError: a file cannot be loaded or run there, or computes something else.
    """
    called = interface(next(iter(files.values())), example, dynamic)
    examples = [called.example, *called.others(called.sizes if most is None else most)]
    start = time.monotonic()
    asked = _asked(files, examples, tolerance)
    seconds = _SECONDS + _PATIENCE * (time.monotonic() - start)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for folder, runs, paths in _shared_out(list(files), Path(scratch), early):
            _write_job(folder, paths, called, asked, network)
            failed = _answer(folder, paths, seconds, runs)
            for number, path in enumerate(paths):
                what = f"{path.name}, read back in a fresh process,"
                if path.as_posix() in failed:
                    raise ProofError(f"{what} fails: {reason(RuntimeError(failed[path.as_posix()]))}")
                run, model = _looked_up(folder, number, asked), files[path]
                try:
                    found[path.name] = max(prove_file(model, run, one, tolerance, what).difference for one in examples)
                except ProofError as error:
                    hint = _OUTSIDE if path.suffix == ".safetensors" else ""
                    raise ProofError(f"{error}{hint}") from error
    return {path.name: found[path.name] for path in files}


_Run = Callable[[Path, int, float], str]
"""Runs the job in a folder, within some bytes and seconds; returns in words how that ended."""


def _shared_out(files: list[Path], scratch: Path, early: Waiting | None) -> Iterator[tuple[Path, _Run, list[Path]]]:
    """The folder of each process, how it is run, and the files that it reads."""
    cold = files if early is None else [path for path in files if path.suffix == ".onnx"]
    if cold:
        yield scratch, run_stranger, cold
    if early is not None and len(cold) < len(files):
        yield early.folder, early.run, [path for path in files if path not in cold]


def require_same_elsewhere(path: Path, inputs: Sequence[Mapping[str, NDArray[Any]]], name: str) -> None:
    """Run an ONNX file in a fresh process, by onnxruntime alone, and compare its outputs with those in this process.

    Args:
        inputs: arrays by the names of the file's inputs.
        name: what the file is called, for the error text.

    Raises:
        ProofError: it fails there, or its outputs differ in any bit.
    """
    session = open_session(path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write(folder, {"asked": stranger.OUTPUTS, "files": [path.as_posix()], "inputs": len(inputs), "threads": 1})
        for index, given in enumerate(inputs):
            np.savez(folder / f"inputs-{index}.npz", allow_pickle=False, **given)
        failed = _answer(folder, [path], _SECONDS, run_stranger)
        if failed:
            raise ProofError(f"{name} fails in a fresh process: {reason(RuntimeError(failed[path.as_posix()]))}")
        for index, given in enumerate(inputs):
            with np.load(folder / f"0-{index}.npz", allow_pickle=False) as found:
                here = session.run(None, dict(given))
                if not all(np.array_equal(one, found[str(place)], equal_nan=True) for place, one in enumerate(here)):
                    raise ProofError(f"{name} computes something else in a fresh process than in this one")


def peak_memory(
    path: Path,
    model: nn.Module,
    example: object,
    batch_sizes: Sequence[int],
    *,
    network: Network | None = None,
    sparse: Sequence[str] = (),
    threads: int = 1,
) -> int | None:
    """Bytes that a file takes to run batches of these sizes, in a fresh process.

    It is the largest resident size while it runs, above that of the process after importing the runtime: the weights,
    as the runtime keeps them, the largest activations, and what the runtime itself needs, some 10 MB for onnxruntime.

    Args:
        model: the file's network, for the names of its inputs.
        network: how to build the network, dense, that a file of weights belongs to.
        sparse: the names of its layers that become sparse.
        threads: of the runtime.

    Returns:
        None where the system does not tell, or where the process failed.
    """
    called = interface(model, example)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        batches = [called.at({BATCH_NAME: size}) for size in batch_sizes]
        _write_job(
            folder, [path], called, batches, network, {"asked": stranger.MEMORY, "sparse": sparse, "threads": threads}
        )
        room, seconds = allowed(path.stat().st_size)
        run_stranger(folder, room, _SECONDS + seconds)
        answer = folder / stranger.ANSWER
        found: int | None = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
        return found


def _asked(files: Mapping[Path, nn.Module], examples: list[Inputs], tolerance: float) -> list[Inputs]:
    """All inputs on which the proof compares; they are always the same ones."""
    asked: list[Inputs] = []

    def recorded(model: nn.Module, given: Inputs) -> object:
        if not any(_same(given, other) for other in asked):
            asked.append(given.mapped(torch.clone))
        return given.call(model)

    for model in {id(model): model for model in files.values()}.values():
        with untouched(model) as network:
            for example in examples:
                prove_file(model, partial(recorded, network), example, tolerance, "the network")
    return asked


def _same(call: Inputs, other: Inputs) -> bool:
    return all(
        one.dtype == two.dtype and torch.equal(one, two) for one, two in zip(call.tensors, other.tensors, strict=True)
    )


def _write_job(
    folder: Path,
    files: list[Path],
    called: Interface,
    asked: list[Inputs],
    network: Network | None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    leaves, structure = tree_flatten((tuple(called.example.args), dict(called.example.kwargs)))
    job = {
        "asked": stranger.OUTPUTS,
        "files": [path.as_posix() for path in files],
        "inputs": len(asked),
        "by_position": called.by_position,
        "call": treespec_dumps(structure),
        "leaves": [stranger.TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves],
        "network": network,
        "threads": torch.get_num_threads(),
        "sparse": (),
        **more,
    }
    _write(folder, job)
    for index, given in enumerate(asked):
        np.savez(folder / f"inputs-{index}.npz", allow_pickle=False, **stranger.arrays_of(called.named(given)))


def _write(folder: Path, job: Mapping[str, Any]) -> None:
    job = {**job, "path": _path()}
    (folder / stranger.JOB).write_text(json.dumps(job), encoding="utf-8", newline="\n")


def _path() -> list[str]:
    """Where this process imports from."""
    return [entry or os.getcwd() for entry in sys.path]


def _answer(folder: Path, files: list[Path], seconds: float, run: _Run) -> dict[str, str]:
    """The files that failed, with the reasons. Raises ProofError where the process has not come to its end."""
    room, more = allowed(sum(path.stat().st_size for path in files))
    ended = run(folder, room, seconds + more)
    if not (folder / stranger.ANSWER).exists():
        names = ", ".join(path.name for path in files)
        raise ProofError(f"{names}: the fresh process that reads them back {ended}")
    found: dict[str, str] = json.loads((folder / stranger.ANSWER).read_text(encoding="utf-8"))
    return found


def run_stranger(folder: Path, room: int, seconds: float) -> str:
    """Run the job in `folder` in a fresh process of bounded memory and time; how it ended, in words."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", stranger.__file__, folder],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            start_new_session=True,  # Ctrl-C is for this process, which decides what to do
            preexec_fn=(lambda: limit(room, seconds)) if hasattr(os, "fork") else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _too_long(seconds)
    return _ended(done.returncode, done.stderr)


def _too_long(seconds: float) -> str:
    return f"took longer than {seconds:.0f} s"


def _ended(code: int, errors: bytes) -> str:
    said = errors.decode(errors="replace").strip().rpartition("\n")[2]
    return f"ended with {code}: {said}"


def _looked_up(folder: Path, number: int, asked: list[Inputs]) -> Callable[[Inputs], object]:
    """The outputs that the fresh process has computed of an input."""

    def run(given: Inputs) -> object:
        index = next(index for index, other in enumerate(asked) if _same(given, other))
        with np.load(folder / f"{number}-{index}.npz", allow_pickle=False) as arrays:
            return list(stranger.tensors_of(arrays).values())

    return run
