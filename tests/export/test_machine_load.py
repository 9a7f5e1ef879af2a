"""How busy other programs keep the machine: against a made-up clock of the system, and a real neighbour."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from compress.export import machine_load
from compress.export.machine_load import LoadMeter, busy_seconds


def line(*seconds: float) -> str:
    return "cpu " + " ".join(str(round(one * os.sysconf("SC_CLK_TCK"))) for one in seconds) + "\ncpu0 1 2 3\n"


def test_what_all_cores_have_worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """user, nice, system, idle, waiting for a disk, two kinds of interrupts: all but the idle ones are work."""
    monkeypatch.setattr(machine_load, "STAT", tmp_path / "stat")
    (tmp_path / "stat").write_text(line(10, 1, 5, 1000, 500, 0.5, 0.25, 0, 0, 0), encoding="ascii")
    assert busy_seconds() == pytest.approx(16.75)


@pytest.mark.parametrize("content", [None, "", "cpu a b c d e f g", "cpu 1 2", "intr 1 2 3 4 5 6 7"])
def test_a_system_that_does_not_tell(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_load, "STAT", tmp_path / "stat")
    if content is not None:
        (tmp_path / "stat").write_text(content, encoding="ascii")
    meter = LoadMeter()
    with meter.measuring():
        pass
    assert busy_seconds() is None
    assert meter.load is None


def test_only_the_others_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spans, of 2 and of 1 seconds: all cores work 3 and 2 seconds, this process 1 and 1 of them."""
    work, own, clock = iter([100.0, 103.0, 200.0, 202.0]), iter([5.0, 6.0, 8.0, 9.0]), iter([0.0, 2.0, 50.0, 51.0])
    monkeypatch.setattr(machine_load, "busy_seconds", lambda: next(work))
    monkeypatch.setattr(time, "process_time", lambda: next(own))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    meter = LoadMeter()
    assert meter.load is None
    for _ in range(2):
        with meter.measuring():
            pass
    assert meter.load == {"cores": 4, "busy": 1.0}


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.skipif(not machine_load.STAT.exists(), reason="only Linux tells it")
def test_a_neighbour_is_seen() -> None:
    meter, neighbour = LoadMeter(), multiprocessing.get_context("fork").Process(target=spin, args=(0.3,))
    with meter.measuring():
        neighbour.start()
        neighbour.join()
    load = meter.load
    assert load is not None
    assert load["cores"] == os.cpu_count()
    assert load["busy"] > 0
