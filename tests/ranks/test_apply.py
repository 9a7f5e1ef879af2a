"""`torchrun -m compress.cli apply`: two processes reach the result of one, and a death is reported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

NETWORK = """
import os
from pathlib import Path
from torch import nn

class Mortal(nn.Sequential):
    steps = 0

    def forward(self, inputs):
        self.steps += self.training
        if self.steps == 12 and os.environ.get("RANK") == "1" and Path("mortal").exists():
            os._exit(9)
        return super().forward(inputs)

def build():
    return Mortal(nn.Flatten(), nn.Linear(36, 24), nn.Tanh(), nn.Linear(24, 4))
"""

RECIPE = """
name: together
model: {factory: "my_network:build"}
data: {npz: data.npz, npz_test: data.npz, batch_size: 16}
task: classify
stages:
  - target: {weights: ["*"]}
    criterion: magnitude
    sparsity: 0.7
    removal: {kind: gradual_soft, every: 2 steps, cohort: 4 steps, over: 14 steps}
    retrain: {epochs: 2, optimizer: adamw, lr: 0.01, distill: {weight: 0.5}}
export: [safetensors]
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of one process and one of two, whose processes take seconds to start."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("ranks")
        patched.chdir(folder)
        patched.syspath_prepend(str(folder))
        write_inputs()
        yield folder


def write_inputs() -> None:
    chance = np.random.default_rng(0)
    images, labels = chance.integers(0, 256, (145, 6, 6, 1), np.uint8), chance.integers(0, 4, 145)
    np.savez("data.npz", images=images, labels=labels)  # nine batches of 16, and one of a single sample
    Path("my_network.py").write_text(NETWORK, encoding="utf-8")
    Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    torch.manual_seed(0)
    import my_network

    torch.save(my_network.build().state_dict(), "model.pt")
    del sys.modules["my_network"]


def apply(out: str, *options: str) -> subprocess.CompletedProcess[str]:
    start = [*TORCHRUN, "-m", "compress.cli"]
    words = ["apply", "recipe.yaml", "model.pt", "-o", out, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *start, *words], capture_output=True, text=True, timeout=300, env=environment
    )


def weights(out: str) -> dict[str, torch.Tensor]:
    return load_file(Path(out) / "checkpoint" / "masked.safetensors")


@pytest.fixture(scope="module")
def two(here: Path) -> subprocess.CompletedProcess[str]:
    return apply("two", "--json")


def test_two_processes_come_to_what_one_does(
    here: Path, two: subprocess.CompletedProcess[str], run: Callable[..., Result]
) -> None:
    run("apply", "recipe.yaml", "model.pt", "-o", "one")
    assert two.returncode == 0, two.stderr
    document = json.loads(two.stdout)  # and nothing of another process beside it
    assert document["machine"]["processes"] == 2
    assert two.stderr.count("the recipe imports my_network") == 1
    one, together = weights("one"), weights("two")
    for name, expected in one.items():
        assert torch.equal(together[name] == 0, expected == 0)
        torch.testing.assert_close(together[name], expected, rtol=0, atol=1e-6)
    assert not list(here.glob("*.partial"))


@pytest.mark.extended
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on_from_there(
    here: Path, two: subprocess.CompletedProcess[str]
) -> None:
    assert two.returncode == 0, two.stderr
    Path("mortal").touch()
    died = apply("out", "--checkpoint-every", "0.001")
    assert died.returncode != 0
    assert not Path("out").exists()
    assert "another process of this run has ended" in died.stderr or "interrupted" in died.stderr
    assert "to resume: torchrun --nproc-per-node 2 -m compress.cli apply" in died.stderr
    Path("mortal").unlink()
    done = apply("out", "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming from stage 1" in done.stderr
    assert all(torch.equal(tensor, weights("out")[name]) for name, tensor in weights("two").items())
    assert not list(here.glob("*.partial"))
