"""A user's loop in two processes: masks are the same in both, and weights those of one process with all the data."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

LOOP = Path(__file__).with_name("loop.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(mode: str, removal: str, out: Path) -> None:
    several = [] if mode == "alone" else TORCHRUN
    done = subprocess.run(
        [sys.executable, *several, str(LOOP), mode, removal, str(out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("mode", "removal"), [("ddp", "gradual"), ("accelerate", "soft")])
def test_two_processes_end_where_one_does(tmp_path: Path, mode: str, removal: str) -> None:
    if mode == "accelerate" and find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    run("alone", removal, tmp_path)
    run(mode, removal, tmp_path)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("alone0", f"{mode}0", f"{mode}1"))
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name] == 0, expected == 0)
        torch.testing.assert_close(first[name], expected, rtol=0, atol=1e-12)
    zeros = sum(int((alone[name] == 0).sum()) for name in ("0.weight", "2.weight"))
    assert zeros == round(0.6 * 2 * 12 * 32)
