import time

import pytest

from compress.run import clock as clocks
from compress.run.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """A clock that is moved by hand."""
    moment = [100.0]
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: moment[0])
    return moment


def test_every_moment_is_charged_once_to_the_innermost_phase(now):
    told: list[str] = []
    clock = Clock(started=97.0, before="imports", on_phase=told.append)
    now[0] += 1
    with clock.phase("training"):
        now[0] += 10
        with clock.phase("evaluation"):
            now[0] += 2
        now[0] += 5
    now[0] += 2
    found = clock.split()
    assert told == ["training", "evaluation", "training", "other"]
    assert found["phases"] == {"imports": 3.0, "other": 3.0, "training": 15.0, "evaluation": 2.0}
    assert found["total"] == 23.0 == sum(found["phases"].values())
    assert found["training_share"] == 15 / 23
    assert clock.spent("training") == 15.0
    assert clock.spent("export") == 0.0


def test_a_phase_that_fails_is_closed(now):
    clock = Clock()

    def fail():
        with clock.phase("training"):
            now[0] += 4
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    now[0] += 1
    assert clock.split()["phases"] == {"other": 1.0, "training": 4.0}


def test_real_time():
    clock = Clock()
    with clock.phase("sleep"):
        time.sleep(0.01)
    assert clock.split()["phases"]["sleep"] >= 0.01
