"""A user's loop in two processes: masks are the same in both, and weights those of one process with all the data."""

import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

LOOP = Path(__file__).with_name("loop.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
REMOVALS = {"ddp": "gradual", "accelerate": "soft"}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have ended with: they take seconds to start, and go through all loops one after the other."""
    out = tmp_path_factory.mktemp("loops")
    loops = [f"{mode}={removal}" for mode, removal in REMOVALS.items() if mode == "ddp" or find_spec(mode)]
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(LOOP), str(out), *loops], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.extended
@pytest.mark.parametrize("mode", REMOVALS)
def test_two_processes_end_where_one_does(ended: Path, tmp_path: Path, mode: str) -> None:
    if mode == "accelerate":
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    runpy.run_path(str(LOOP))["main"]("alone", REMOVALS[mode], tmp_path)
    alone = torch.load(tmp_path / "alone0.pt")
    first, second = (torch.load(ended / f"{mode}{rank}.pt") for rank in (0, 1))
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name] == 0, expected == 0)
        torch.testing.assert_close(first[name], expected, rtol=0, atol=1e-12)
    zeros = sum(int((alone[name] == 0).sum()) for name in ("0.weight", "2.weight"))
    assert zeros == round(0.6 * 2 * 12 * 32)
