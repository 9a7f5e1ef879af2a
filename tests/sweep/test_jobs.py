"""Sweeps: cached, in order of need, in processes of one thread, and going on after a failure."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from compress.errors import DataError, SweepError
from compress.sweep import jobs
from compress.sweep.cell_store import Cells
from compress.sweep.engines import ONE, Workers


def note(log: Path, name: str) -> dict[str, object]:
    import torch

    with log.open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    return {"name": name, "process": os.getpid(), "threads": torch.get_num_threads()}


def fail() -> dict[str, object]:
    raise DataError("no such images")


def job(log: Path, name: str, *needs: str) -> jobs.Job:
    return jobs.Job(name, name, partial(note, log, name), needs)


def test_results_are_kept_and_not_computed_again(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "cells"
    first = jobs.run([job(log, "a"), job(log, "b")], Cells(folder), ONE)
    again = jobs.run([job(log, "b"), job(log, "c")], Cells(folder), ONE)
    assert log.read_text().split() == ["a", "b", "c"]
    assert again["b"] == first["b"] == json.loads((folder / "b.json").read_text())["result"]
    assert first["a"]["threads"] == 1
    assert first["a"]["seconds"] >= 0


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "cells"
    jobs.run([job(log, "a")], Cells(folder), ONE)
    (folder / "a.json").write_text("{", encoding="utf-8")
    assert jobs.run([job(log, "a")], Cells(folder), ONE)["a"]["name"] == "a"
    assert log.read_text().split() == ["a", "a"]


def test_what_is_needed_comes_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs.run([job(log, "leaf", "root"), job(log, "root"), job(log, "other")], Cells(tmp_path / "cells"), ONE)
    order = log.read_text().split()
    assert order.index("root") < order.index("leaf")
    assert sorted(order) == ["leaf", "other", "root"]


def test_the_same_key_is_computed_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert len(jobs.run([job(log, "a"), job(log, "a")], Cells(tmp_path / "cells"), ONE)) == 1
    assert log.read_text().split() == ["a"]


@pytest.mark.extended
@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_stops_only_what_needs_it(tmp_path: Path, workers: int) -> None:
    log, folder = tmp_path / "log", tmp_path / "cells"
    todo = [
        jobs.Job("bad", "the bad one", fail),
        job(log, "grandchild", "child"),
        job(log, "child", "bad"),
        job(log, "good"),
    ]
    with pytest.raises(SweepError, match=r"1 of 4 cells failed; the first: the bad one: no such images"):
        jobs.run(todo, Cells(folder), Workers(workers))
    assert log.read_text().split() == ["good"]
    assert [path.name for path in folder.glob("*.json")] == ["good.json"]


@pytest.mark.extended
def test_workers_are_processes_that_are_used_again(tmp_path: Path) -> None:
    names = [str(number) for number in range(6)]
    done = jobs.run([job(tmp_path / "log", name) for name in names], Cells(tmp_path / "cells"), Workers(2))
    processes = {result["process"] for result in done.values()}
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2
    assert {result["threads"] for result in done.values()} == {1}


def test_progress_counts_what_is_left(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", list[jobs.Progress]()
    jobs.run([job(log, "a")], Cells(tmp_path / "cells"), ONE)
    jobs.run([job(log, "a"), job(log, "b"), job(log, "c")], Cells(tmp_path / "cells"), ONE, seen.append)
    assert [(one.done, one.total, one.title) for one in seen] == [(1, 2, "b"), (2, 2, "c")]
    assert seen[0].seconds_left is not None
    assert seen[1].seconds_left == 0
