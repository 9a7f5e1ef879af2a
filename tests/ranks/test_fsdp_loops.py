"""The callbacks of other libraries under FSDP2: two processes end where a loop by hand in one does, resumed or not."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("fsdp_loops.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loop", "package"), [("accelerate", "accelerate"), ("trainer", "transformers"), ("lightning", "lightning")]
)
def test_two_processes_end_where_a_loop_by_hand_does(loop: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(SCRIPT), str(tmp_path), loop],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    expected = runpy.run_path(str(SCRIPT))["alone"]()
    for ending in ("whole", "resumed"):
        found = torch.load(tmp_path / f"{loop}_{ending}.pt")
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert torch.equal(found[name] == 0, weight == 0), name
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
    assert sum(int((weight == 0).sum()) for weight in expected.values()) == round(0.6 * 2 * 12 * 30)
