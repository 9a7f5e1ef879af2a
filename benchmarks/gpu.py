"""Checks and times everything on a GPU, in one command that takes less than 8 minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --quick

It needs this package and nothing else, downloads nothing, and makes its networks and numbers from seeds. Checks come
first (gpu_checks.py), then times (gpu_times.py). Each section is written to the file of figures as it finishes, with
its rows so far if it failed or ran out of time; a second run repeats only what has no result yet. The exit code is 1 if
a check found something else than was expected, or failed. On a CPU the same sections run, small with `--quick`; what
only a GPU can do is not run there, and says so.
"""

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

# Read when CUDA starts: cuBLAS repeats itself to the last bit only with such a workspace.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
import typer
from gpu_checks import CHECKS
from gpu_rows import Case, NeedsCudaError, Row, Section
from gpu_times import TIMES

from compress.run.provenance import cpu_name
from compress.select.choose import LayerCollapseWarning

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "gpu.json"
SECTIONS: Mapping[str, Section] = {**CHECKS, **TIMES}
DONE, FAILED, LATE, NOT_HERE = "done", "failed", "out of time", "needs a CUDA device"


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to see that it runs.")] = "cuda",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few rounds.")] = False,
    only: Annotated[str, typer.Option(help="Sections, by their names and separated by commas; all if absent.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also what the file has already.")] = False,
    minutes: Annotated[float, typer.Option(help="Time for all sections together.")] = 8.0,
    report: Annotated[
        Path | None, typer.Option("--json", help="The file for the figures; docs/benchmarks/gpu.json for a GPU.")
    ] = None,
) -> None:
    """Run all sections, print their rows, and write them as JSON."""
    ends = time.monotonic() + 60 * minutes
    if device not in ("cuda", "cpu") or (device == "cuda" and not torch.cuda.is_available()):
        print(f"--device {device}: torch finds no such device here; there is cpu, and cuda on a GPU", file=sys.stderr)
        raise typer.Exit(2)
    if unknown := set(filter(None, only.split(","))) - SECTIONS.keys():
        print(f"--only: no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        raise typer.Exit(2)
    case = Case(torch.device(device), quick)
    file = REPORT if report is None and case.on_gpu else report
    document = _document(case, None if again else file)
    warnings.simplefilter("ignore", LayerCollapseWarning)
    for name in only.split(",") if only else SECTIONS:
        if document["sections"].get(name, {}).get("status") != DONE:
            document["sections"][name] = _measured(SECTIONS[name], name, case, ends)
            _write(document, file)
    found = document["sections"]
    wrong = [name for name, section in found.items() if not _is_right(name, section)]
    print(f"{len(found)} sections; " + (f"not as expected: {', '.join(wrong)}" if wrong else "all checks as expected"))
    raise typer.Exit(1 if wrong else 0)


def _document(case: Case, file: Path | None) -> dict[str, Any]:
    """What the file has of the same machine, versions and sizes; else a new document."""
    machine: dict[str, Any] = {"cpu": cpu_name(), "device": case.device.type, "quick": case.quick}
    if case.on_gpu:
        machine |= {"gpu": torch.cuda.get_device_name(case.device), "cuda": torch.version.cuda}
    versions = {name: version(name) for name in ("softprune", "torch", "torchvision", "onnxruntime")}
    made: dict[str, Any] = {"machine": machine, "versions": versions, "sections": {}}
    if file is None or not file.exists():
        return made
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = all(found.get(key) == made[key] for key in ("machine", "versions"))
    return found if same else made


def _measured(section: Section, name: str, case: Case, ends: float) -> dict[str, Any]:
    """The section's rows, its seconds, and how it ended."""
    print(f"{name}: {(section.__doc__ or '').splitlines()[0]}", flush=True)
    started, rows, status, error = time.monotonic(), [], DONE, None
    try:
        with _ended_at(ends):
            for row in section(case):
                rows.append(row.document())
                _print(row)
    except NeedsCudaError:
        status = NOT_HERE
    except _LateError:
        status = LATE
    except Exception as problem:  # the sections that follow still tell something
        status, error = FAILED, f"{type(problem).__name__}: {problem}"
    if status != DONE:
        print(f"  {status}" + (f": {error}" if error else ""), flush=True)
    if case.on_gpu:
        torch.cuda.empty_cache()
    found = {"status": status, "seconds": round(time.monotonic() - started, 1), "rows": rows}
    return found | ({"error": error} if error else {})


class _LateError(BaseException):
    """The time is over; no `except Exception` on the way takes it for a failure."""


@contextmanager
def _ended_at(ends: float) -> Iterator[None]:
    """Ends the block with `_LateError`, between two lines of Python."""

    def stop(number: int, frame: object) -> None:
        raise _LateError

    left = ends - time.monotonic()
    if left <= 0:
        raise _LateError
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_right(name: str, section: Mapping[str, Any]) -> bool:
    """No row is wrong; and a check has been made to its end, unless it is not for this device."""
    ended = name not in CHECKS or section["status"] in (DONE, NOT_HERE)
    return ended and all(row.get("passed", True) for row in section["rows"])


def _print(row: Row) -> None:
    values = row.result.items() if isinstance(row.result, dict) else [("", row.result)]
    shown = "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values)
    verdict = {True: "", False: f"   EXPECTED {row.expected}", None: ""}[row.passed]
    print(f"  {row.name}: {shown.strip()}{verdict}", flush=True)


def _write(document: Mapping[str, Any], file: Path | None) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)


if __name__ == "__main__":
    typer.run(main)
