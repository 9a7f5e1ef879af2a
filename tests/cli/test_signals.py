"""SIGTERM and Ctrl-C to all processes of a command at once, as a terminal, a batch system and systemd send them.

Real processes, each signalled once what it is doing can be seen: `pytest -m slow tests/cli/test_signals.py`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from compress.models import classifier

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="as on Linux")]

SECONDS = 120
"""In which whatever is waited for has to happen, on the busiest machine."""

RECIPE = """\
name: long
model: {name: classifier, classes: 2}
data: {folder: pictures, workers: 2, stream: true, batch_size: 10}
task: classify
train: {epochs: 10000, optimizer: adamw, lr: 1e-3}
stages:
  - target: {nodes: "*"}
    criterion: norms
    sparsity: 0.5
    removal: hard
    retrain: {epochs: 10000, optimizer: adamw, lr: 1e-3}
export: []
"""

OWN = """\
import torch
from torch.utils.data import DataLoader, TensorDataset

def loaders():
    data = TensorDataset(torch.rand(40, 1, 28, 28), torch.arange(40) % 2)
    return DataLoader(data, batch_size=10, num_workers=2), DataLoader(data, batch_size=10, num_workers=2)
"""

FACTORY = ("--set", "data={factory: 'own:loaders'}")
SWEEP = ("--workers", "2", "--cache", "cells", "-q", "--set", "data.workers=0")
COMMANDS = {
    "train": ("recipe.yaml", "-o", "new.pt", "-q", "--checkpoint-every", "0.1"),
    "apply": ("recipe.yaml", "model.pt", "-o", "out", "-q", "--checkpoint-every", "0.1"),
    "compare": ("recipe.yaml", "model.pt", "--removal", "hard,soft", "--lr", "1e-3,2e-3", "--sparsity", ".5", *SWEEP),
    "own": ("recipe.yaml", "model.pt", "-o", "out", "-q", "--checkpoint-every", "0.1", *FACTORY),
    "search": ("recipe.yaml", "model.pt", "--max-loss", "1.5x", *SWEEP),
}


TRAINING = ("train", "apply", "own")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    chance = torch.Generator().manual_seed(0)
    for number in range(80):
        path = tmp_path / "pictures" / ("train", "test")[number % 2] / "ab"[number // 2 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (28, 28), generator=chance, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    torch.save(classifier(classes=2, generator=chance).state_dict(), tmp_path / "model.pt")
    return tmp_path


def waited(found: Callable[[], object]) -> object:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if seen := found():
            return seen
        time.sleep(0.05)
    raise AssertionError("what was waited for did not happen")


def of_session(leader: int) -> Iterator[int]:
    """Its living processes."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            yield int(path.parent.name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_to_all_processes_ends_the_command_alone(place: Path, command: str, number: int) -> None:
    words = [sys.executable, "-m", "compress.cli", "apply" if command == "own" else command, *COMMANDS[command]]
    run = subprocess.Popen(words, cwd=place, start_new_session=True, stderr=subprocess.PIPE, text=True)
    if command in TRAINING:
        busy = lambda: list(place.glob("*.partial/*.json"))  # noqa: E731
    else:  # the command, the two that compute, and what Python tracks their semaphores with
        busy = lambda: list(place.glob("cells")) and len(list(of_session(run.pid))) >= 4  # noqa: E731
    waited(lambda: run.poll() is not None or busy())
    os.killpg(run.pid, number)
    _, said = run.communicate(timeout=SECONDS)
    assert run.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "interrupted: " in said
    waited(lambda: not list(of_session(run.pid)))
    assert not list(place.glob("**/.softprune-*")), "nothing half-written"
    if command in TRAINING:
        assert " is kept in " in said
        assert said.splitlines()[-1].endswith("--resume")
