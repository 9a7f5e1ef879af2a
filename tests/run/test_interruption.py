import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from compress.errors import Interrupted
from compress.run import interruption
from compress.run.interruption import SIGNALS, Stop


def come(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_at_once_unless_it_is_deferred(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before, stop = signal.getsignal(number), Stop()
    with stop.listening():
        with pytest.raises(Interrupted) as caught:
            come(number)
        assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    stop = Stop()
    with stop.listening(), stop.deferred():
        with stop.deferred():
            stop.check()
        come(number)
        assert stop.wanted, "the outer block goes on deferring"
        with pytest.raises(Interrupted):
            stop.check()
        come(number)  # right after the first: torchrun signals each process, and a batch system all of them
        monkeypatch.setattr(interruption, "TOGETHER", 0.0)
        with pytest.raises(Interrupted):
            come(number)


class Loses:
    """Python drops what its destructor raises."""

    def __del__(self) -> None:
        come(signal.SIGTERM)
        time.sleep(0.001)


def test_an_exception_that_a_destructor_has_lost_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    def lose() -> None:
        Loses()
        time.sleep(10)

    with Stop().listening(), pytest.raises(Interrupted):
        lose()
    assert capsys.readouterr().err == ""


def test_an_exception_that_other_code_has_caught_is_raised_again() -> None:
    def catch() -> None:
        with suppress(BaseException):
            come(signal.SIGTERM)
        time.sleep(10)

    with Stop().listening(), pytest.raises(Interrupted):
        catch()


def test_other_exceptions_in_destructors_are_printed_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr("sys.unraisablehook", found.append)

    class Fails:
        def __del__(self) -> None:
            raise ValueError("in a destructor")

    with Stop().listening():
        Fails()
    assert [str(each.exc_value) for each in found] == ["in a destructor"]


def test_what_python_swallows_is_not_lost() -> None:
    """As it does with what is raised in a destructor."""
    stop = Stop()
    with stop.listening():
        with suppress(Interrupted):
            come(signal.SIGTERM)
        with pytest.raises(Interrupted):
            stop.check()


def test_what_was_swallowed_before_is_heard_by_who_listens_next() -> None:
    """As by an `except:` of a package that is being imported."""
    with Stop().listening():
        with suppress(Interrupted):
            come(signal.SIGTERM)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Interrupted), Stop().listening():
            raise AssertionError("not reached")
        assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_may_not_say_what_signals_do() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with Stop().listening():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]


def test_what_somebody_else_has_said_of_a_signal_since_holds() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with Stop().listening():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
