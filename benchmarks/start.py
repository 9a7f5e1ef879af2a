"""Times the start of commands, and of `compress apply` up to its first training step.

    python benchmarks/start.py
    python benchmarks/start.py --quick

Seconds of processor time, so that other processes disturb little. Each run is its own process. `--help` and `recipes`
are timed from outside. `apply` (the recipe mnist_latent on mnist_sample, random weights) runs in this script's own
interpreter, which imports the command line first and torch after that, and stops before the first optimizer step: that
is timed from the end of `import torch`.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "start.json"
COMPRESS = [sys.executable, "-m", "compress.cli"]
AIMS = {"compress --help": 0.25, "compress recipes": 0.5, "compress apply, first step": 1.2}
SETTINGS = ("data.name=mnist_sample", "data.train=4000", "data.test=1000")
FIRST_STEP = """
import sys, time
from compress.cli import main
from compress.recipe import loading
import torch
imported = time.process_time()
from torch.optim.optimizer import register_optimizer_step_pre_hook

def stop(*_):
    print("first step after", time.process_time() - imported, file=sys.stderr)
    sys.exit()

register_optimizer_step_pre_hook(stop)
main()
"""


def main(
    runs: Annotated[int, typer.Option(min=1, help="How often each; in turns, after one that is not counted.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="A third of the runs.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Print medians and the fastest run in seconds beside the aims; write them as JSON."""
    runs = -(-runs // 3) if quick else runs
    found: dict[str, list[float]] = {name: [] for name in AIMS}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.safetensors"
        cpu = random_weights(model)
        for number in range(runs + 1):
            seconds = (timed("--help"), timed("recipes"), first_step(model, threads))
            if number:  # the first reads all files from the disk
                for name, one in zip(AIMS, seconds, strict=True):
                    found[name].append(one)
    figures = {
        name: {"median": statistics.median(all_of_it), "fastest": min(all_of_it), "aim": AIMS[name]}
        for name, all_of_it in found.items()
    }
    machine = {"cpu": cpu, "threads": threads, "cores": os.cpu_count()}
    versions = {name: version(name) for name in ("softprune", "torch", "typer", "pydantic")}
    document: dict[str, Any] = {"runs": runs, "machine": machine, "versions": versions, "seconds": figures}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"seconds, {runs} runs, {threads} thread(s)")
    print(f"{'':<30}" + "".join(f"{title:>10}" for title in ("median", "fastest", "aim")))
    for name, figure in figures.items():
        print(f"{name:<30}" + "".join(f"{value:10.2f}" for value in figure.values()))


def random_weights(model: Path) -> str:
    """Weights of the recipe's network in the file `model`; returns the processor's name."""
    from compress.files.checkpoint import write_weights
    from compress.recipe.loading import load_recipe
    from compress.run.building import build_model
    from compress.run.provenance import cpu_name

    write_weights(build_model(load_recipe("mnist_latent").model, 0).state_dict(), model)
    return cpu_name()


def timed(*arguments: str) -> float:
    """Seconds of processor time of a command's process."""
    before = os.times()
    subprocess.run([*COMPRESS, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def first_step(model: Path, threads: int) -> float:
    """Seconds from the end of `import torch` to the first optimizer step."""
    settings = [part for change in SETTINGS for part in ("--set", change)]
    arguments = ["apply", "mnist_latent", str(model), "-o", str(model.with_name("out")), "--json", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", FIRST_STEP, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = re.search(r"first step after ([\d.]+)", done.stderr)
    if found is None:
        raise SystemExit(f"apply came to no training step: {done.stderr}")
    return float(found[1])


if __name__ == "__main__":
    typer.run(main)
