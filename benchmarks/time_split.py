"""Splits the wall time of `compress apply` into its phases.

    python benchmarks/time_split.py mnist_latent model.pt --runs 3
    python benchmarks/time_split.py --quick

Each run is its own process, timed from its start to its end, the interpreter's start included. Without a model the
weights are random, and without --data-root mnist_sample, repeated up to MNIST's size, replaces it: neither changes the
time.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from whole_run import stand_in

from compress.files.checkpoint import write_weights
from compress.recipe.loading import load_recipe
from compress.run.building import build_model

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "time_split.json"
OUTSIDE = "start and end of the process"


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")] = "mnist_latent",
    model: Annotated[Path | None, typer.Argument(help="The dense weights.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As of compress apply.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(envvar="COMPRESS_DATA", help="Where the data sets lie.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Once.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Print the median seconds of each phase over the runs, and the share in training; write both as JSON."""
    settings = [part for change in changes or [] for part in ("--set", change)]
    runs = 1 if quick else runs
    machine: dict[str, Any] = {}
    splits = []
    with tempfile.TemporaryDirectory() as scratch:
        model = model or _random_weights(recipe, Path(scratch))
        arguments = [recipe, str(model), "--data-root", str(data_root or stand_in(Path(scratch))), *settings]
        for number in range(runs):
            split, machine = _apply(arguments)
            splits.append(split)
            print(f"run {number + 1} of {runs}: {sum(split.values()):.1f} s", file=sys.stderr)

    phases = {name: statistics.median(split.get(name, 0.0) for split in splits) for name in splits[0]}
    wall = statistics.median(sum(split.values()) for split in splits)
    share = statistics.median(split["training"] / sum(split.values()) for split in splits)
    asked = {"recipe": Path(recipe).stem, "set": changes or [], "runs": runs}
    document = {**asked, "machine": machine, "seconds": wall, "training_share": share, "phases": phases}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"{machine['threads']} thread(s)")
    for name, seconds in sorted(phases.items(), key=lambda item: -item[1]):
        print(f"{name:<30}{seconds:8.2f} s")
    print(f"{'all (median of ' + str(runs) + ')':<30}{wall:8.2f} s, {share:.1%} of it training")


def _random_weights(recipe: str, folder: Path) -> Path:
    loaded = load_recipe(recipe)
    write_weights(build_model(loaded.model, loaded.seed).state_dict(), folder / "model.pt")
    return folder / "model.pt"


def _apply(arguments: list[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds by phase of one run, and the machine as the run describes it."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "compress.cli", "apply", *arguments, "-o", f"{scratch}/out", "--json"]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        wall = time.perf_counter() - started
    results = json.loads(done.stdout)
    phases: dict[str, float] = results["timing"]["phases"]
    return {**phases, OUTSIDE: wall - sum(phases.values())}, results["machine"]


if __name__ == "__main__":
    typer.run(main)
