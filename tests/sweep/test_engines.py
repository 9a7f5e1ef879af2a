"""Where jobs are computed: the same results everywhere, the call's own errors, and what becomes of a lost worker."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from compress.errors import DataError, InputError, LostWorkerError, SweepError
from compress.sweep import jobs
from compress.sweep.cell_store import Cells
from compress.sweep.engines import ONE, Workers


def note(log: Path, name: str) -> dict[str, object]:
    import torch

    with log.open("a", encoding="utf-8") as file:
        file.write(f"{name} {os.getpid()}\n")
    return {"name": name, "process": os.getpid(), "threads": torch.get_num_threads()}


def die_once(log: Path, name: str) -> dict[str, object]:
    """Killed, as by the system for want of memory, the first time that it is called."""
    first = not log.exists() or f"{name} " not in log.read_text(encoding="utf-8")
    found = note(log, name)
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def die() -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def fail() -> dict[str, object]:
    raise DataError("no such images")


def job(log: Path, name: str, call: object = note) -> jobs.Job:
    return jobs.Job(name, name, partial(call, log, name))  # type: ignore[arg-type]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray's workers find this file's functions by value: they cannot import a test."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert not ray.is_initialized()


@pytest.mark.extended
def test_a_lost_process_ends_the_sweep_and_keeps_what_was_finished(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "cells"
    with pytest.raises(LostWorkerError, match=r"bad: a worker process died .* are kept in"):
        jobs.run([jobs.Job("bad", "bad", die)], Cells(folder), Workers(2))
    done = jobs.run([job(log, "a"), job(log, "b")], Cells(folder), Workers(2))
    assert {result["threads"] for result in done.values()} == {1}


@pytest.mark.extended
def test_two_sweeps_may_write_the_same_folder(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "cells"
    twenty = [job(log, str(number)) for number in range(20)]
    with Workers(2).started() as pool:
        both = [pool.submit(partial(_keys, twenty, folder)) for _ in range(2)]
        assert [found.result() for found in both] == [sorted(one.key for one in twenty)] * 2
    assert len(Cells(folder).read((one.key, one.code) for one in twenty)) == 20
    assert {path.suffix for path in folder.glob("[!.]*")} == {".json"}


def _keys(several: list[jobs.Job], folder: Path) -> list[str]:
    return sorted(jobs.run(several, Cells(folder), ONE))


@pytest.mark.extended
def test_on_a_cluster_a_lost_worker_is_replaced_and_its_job_counted_once(tmp_path: Path, cluster: None) -> None:
    log, folder, seen = tmp_path / "log", tmp_path / "cells", list[jobs.Progress]()
    good = [job(log, "a"), job(log, "lost", die_once), job(log, "b"), job(log, "c")]
    with pytest.raises(SweepError, match=r"1 of 5 cells failed; the first: the bad one: no such images"):
        jobs.run([*good, jobs.Job("bad", "the bad one", fail)], Cells(folder), Workers(2, "ray"), seen.append)
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    assert sorted(name for name, _ in lines) == ["a", "b", "c", "lost", "lost"]
    assert len({process for name, process in lines if name == "lost"}) == 2
    assert str(os.getpid()) not in {process for _, process in lines}
    assert [one.done for one in seen] == [1, 2, 3, 4, 5]
    done = jobs.run(good, Cells(folder), ONE)  # nothing is left to compute
    assert {result["threads"] for result in done.values()} == {1}
    assert len(log.read_text(encoding="utf-8").splitlines()) == len(lines)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"softprune\[ray\]"):
        jobs.run([job(tmp_path / "log", "a")], Cells(tmp_path / "cells"), Workers(2, "ray"))
