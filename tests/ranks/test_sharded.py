"""Weights that are spread over processes: the masks are those of one process, the weights too, and a run resumes."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("sharded.py")

SHORT = ["fsdp:gradual_soft:magnitude", "fsdp:soft:taylor"]
TWO = [
    "fsdp:hard:lamp",
    "fsdp_whole:gradual:scaled_magnitude",
    "columns:gradual_soft:random",
    "columns:soft:snip",
    "columns:sfp:erk",
    "fsdp:srfp:layer",
    "fsdp:greg:floor",
    "fsdp:gradual:regrow",
    "fsdp_whole:soft:layers",
    "fsdp:soft_learning:taylor_square",
    "tensor_parallel:soft:obd",
]
FOUR = [
    "fsdp:soft:obd",
    "fsdp:gradual:regrow",
    "hybrid:soft:taylor_square",
    "tensor_parallel:gradual_soft:taylor",
    "tensor_parallel:soft_learning:magnitude",
    "both:gradual_soft:snip",
    "both:soft_learning:pattern",
]


def torchrun(out: Path, processes: int, *cases: str, code: int = 0) -> str:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), str(SCRIPT), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *start, *cases], capture_output=True, text=True, timeout=900, env=environment
    )
    assert (done.returncode == 0) == (code == 0), done.stderr
    return done.stderr


def result(out: Path, case: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(out / f"{case.replace(':', '_')}.pt", weights_only=True)
    return found


def alone(case: str) -> dict[str, Any]:
    script = runpy.run_path(str(SCRIPT))
    way, how = case.split(":", 1)
    found: dict[str, Any] = script["run"](f"{'alone_even' if way in script['EVEN'] else 'alone'}:{how}", None)
    return found


def require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for one, other in zip(found["masks"], expected["masks"], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert sum(int(mask.sum()) for mask in found["masks"][-1].values()) > 300
    for name, weight in expected["weights"].items():
        assert torch.equal(found["weights"][name] == 0, weight == 0)
        torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=1e-6)
    assert found["layers"] == expected["layers"]
    for one, other in zip(found["histograms"], expected["histograms"], strict=True):
        assert one.keys() == other.keys()
        assert all(value == pytest.approx(other[key]) for key, value in one.items())


def test_two_processes_choose_and_remove_what_one_does(tmp_path: Path) -> None:
    torchrun(tmp_path, 2, "chosen=2", *(f"run={case}" for case in SHORT))
    assert result(tmp_path, "chosen=2") == {"wrong": 0}
    for case in SHORT:
        require_same(result(tmp_path, f"run={case}"), alone(case))


@pytest.mark.extended
@pytest.mark.parametrize(("processes", "cases"), [(2, TWO), (4, FOUR)])
def test_every_placement_removal_and_criterion(tmp_path: Path, processes: int, cases: list[str]) -> None:
    numbers = range(5)
    torchrun(tmp_path, processes, *(f"chosen={number}" for number in numbers), *(f"run={case}" for case in cases))
    assert all(result(tmp_path, f"chosen={number}") == {"wrong": 0} for number in numbers)
    for case in cases:
        require_same(result(tmp_path, f"run={case}"), alone(case))


@pytest.mark.extended
@pytest.mark.parametrize("case", ["soft:magnitude", "gradual_soft:taylor"])
def test_a_killed_process_ends_the_rest_and_the_run_resumes(tmp_path: Path, case: str) -> None:
    torchrun(tmp_path, 4, f"saved={case}")
    whole = result(tmp_path, f"saved={case}")
    (tmp_path / "mortal").touch()
    torchrun(tmp_path, 4, f"saved={case}", code=1)
    torchrun(tmp_path, 4, f"resumed={case}")
    again = result(tmp_path, f"resumed={case}")
    assert all(torch.equal(again["weights"][name], weight) for name, weight in whole["weights"].items())
    assert again["layers"] == whole["layers"]
    torchrun(tmp_path, 2, f"resumed={case}")
    fewer = result(tmp_path, f"resumed={case}")
    for name, weight in whole["weights"].items():
        assert torch.equal(fewer["weights"][name] == 0, weight == 0)
        torch.testing.assert_close(fewer["weights"][name], weight, rtol=0, atol=1e-6)
    assert fewer["layers"] == whole["layers"]
    assert fewer["histograms"] == whole["histograms"]
