"""Weights that are spread over processes: the masks are those of one process, the weights too, and a run resumes."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from blocks import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sharded.md"
SCRIPT = Path(__file__).with_name("sharded.py")

SHORT = "fsdp:gradual_soft:taylor"
TWO = [
    "fsdp:gradual_soft:magnitude",
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


@pytest.mark.extended
def test_two_processes_choose_and_remove_what_one_does(tmp_path: Path) -> None:
    torchrun(tmp_path, 2, f"run={SHORT}")
    require_same(result(tmp_path, f"run={SHORT}"), alone(SHORT))


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "cases"), [(2, TWO), (4, FOUR)])
def test_every_placement_removal_and_criterion(tmp_path: Path, processes: int, cases: list[str]) -> None:
    numbers = range(5)
    torchrun(tmp_path, processes, *(f"chosen={number}" for number in numbers), *(f"run={case}" for case in cases))
    assert all(result(tmp_path, f"chosen={number}") == {"wrong": 0} for number in numbers)
    for case in cases:
        require_same(result(tmp_path, f"run={case}"), alone(case))


REFUSED = {
    "pipeline": "TargetError: process 1 has other targets than process 0, as in pipeline parallelism",
    "batches": "InputError: batches: the processes were given different ones",
    "lengths": "InputError: batches: the processes were given different ones, or different numbers of them",
    "nan": "TargetError: the scores of middle.weight hold NaN",
    "nodes": "UnsupportedModelError: model: the network is sharded over several processes (FSDP)",
}


@pytest.mark.extended
def test_what_is_refused_is_refused_by_all_and_nodes_are_removed_by_their_masks(tmp_path: Path) -> None:
    torchrun(tmp_path, 2, *(f"refused={case}" for case in REFUSED), "nodes=soft")
    for case, expected in REFUSED.items():
        said = result(tmp_path, f"refused={case}")["said"]
        assert len(said) == 2
        assert all(sentence.startswith(expected) for sentence in said), said
    assert result(tmp_path, "nodes=soft") == {"widths": [15, 5], "same": True}


@pytest.mark.extended
def test_the_page_runs_and_resumes(tmp_path: Path) -> None:
    """The loop of docs/sharded.md, and then its resumption in the place where the pruner is made."""
    shown = {block.title: block.text for block in blocks(PAGE, "python")}
    loop = shown["train.py"]
    head, made, rest = loop.partition(next(line for line in loop.splitlines(keepends=True) if "Pruner" in line))
    save = "whole = [layer.weight.full_tensor() for layer in (model[0], model[2])]\n"
    save += "torch.save(whole, NAME + f'{dist.get_rank()}.pt')\n"
    ending = "dist.destroy_process_group()"
    assert made
    assert ending in rest
    whole = head + made + rest.replace(ending, save.replace("NAME", "'whole'") + ending)
    again = head + shown["resume.py"] + rest.replace("range(120)", "range(51, 120)")
    again = again.replace(ending, save.replace("NAME", "'again'") + ending)
    for text in (whole, again):
        (tmp_path / "train.py").write_text(text, encoding="utf-8")
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *start], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment
        )
        assert done.returncode == 0, done.stderr
    found, resumed = (torch.load(tmp_path / f"{name}0.pt") for name in ("whole", "again"))
    assert sum(int((weight == 0).sum()) for weight in found) == round(0.9 * 2 * 16 * 64)
    assert all(torch.equal(one, other) for one, other in zip(found, resumed, strict=True))


@pytest.mark.slow
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
