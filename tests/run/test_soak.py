"""Real processes, killed at random moments and gone on with, until fifty have died; takes minutes.

pytest -m slow tests/run/test_soak.py
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KILLS = 50
RECIPE = """\
name: soak
model: {name: classifier}
data: {name: mnist_sample, train: 1000, batch_size: 25}
task: classify
train: {epochs: 1, optimizer: adamw, lr: 1e-3}
stages:
  - target: {weights: ["dense.*"]}
    criterion: magnitude
    sparsity: 0.8
    removal: {kind: gradual_soft, every: 20 steps}
    regrow: {share: 0.2, samples: 100}
    retrain: {epochs: 3, optimizer: muon, lr: 1e-3, lr_schedule: cosine, distill: {weight: 0.5}}
  - target: {nodes: ["*"]}
    criterion: skeletonization
    sparsity: 0.25
    removal: {kind: soft, over: 4 epochs}
    retrain: {epochs: 6, optimizer: adamw, lr: 1e-3}
export: [safetensors]
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "compress.cli", *map(str, words)]


def content(out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Figures without times, and the bytes of all weights."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    del results["timing"], results["best"]
    for stage in results["stages"]:
        del stage["seconds"]
    for timed in [*results["models"].values(), *results["choices"].values()]:
        timed.pop("latency_ms", None)
        timed.pop("peak_memory", None)
    files = [out / "slim.safetensors", out / "checkpoint" / "masked.safetensors"]
    return results, {path.name: path.read_bytes() for path in files}


@pytest.mark.slow
def test_fifty_deaths(tmp_path: Path, measured: Callable[[str, dict[str, Any]], None]) -> None:
    recipe, model = tmp_path / "recipe.yaml", tmp_path / "model.pt"
    recipe.write_text(RECIPE, encoding="utf-8")
    subprocess.run(command("train", recipe, "-o", model), check=True)
    apply = command("apply", recipe, model, "--checkpoint-every", 0.2)
    started = time.monotonic()
    subprocess.run([*apply, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
    whole, seconds = content(tmp_path / "whole"), time.monotonic() - started
    chance = random.Random(0)
    deaths: dict[str, int] = {"SIGKILL": 0, "SIGTERM": 0}
    gone_on, finished, spent = 0, 0, 0.0
    while sum(deaths.values()) < KILLS:
        out = tmp_path / f"out{finished}"
        while not out.exists():
            started = time.monotonic()
            with subprocess.Popen([*apply, "-o", str(out), "--resume"], stderr=subprocess.PIPE, text=True) as run:
                number = chance.choice([signal.SIGKILL, signal.SIGTERM])
                try:
                    # Processes that die before they have begun are not news.
                    run.wait(chance.uniform(0.15, 0.9) * seconds)
                except subprocess.TimeoutExpired:
                    run.send_signal(number)
                    deaths[number.name] += 1
                _, said = run.communicate()
            spent += time.monotonic() - started
            gone_on += "resuming from" in said
            assert run.returncode in (0, -signal.SIGKILL, 143, -signal.SIGTERM), said
            assert out.exists() or run.returncode != 0
        assert content(out) == whole
        assert run.returncode != 0 or not (tmp_path / f"out{finished}.partial").exists()
        finished += 1
    assert gone_on > KILLS / 4
    figures = {**deaths, "seconds of a run": round(seconds), "gone on": gone_on, "finished": finished}
    measured("deaths", {**figures, "seconds": round(spent)})
