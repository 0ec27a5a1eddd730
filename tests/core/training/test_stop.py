"""Signals wait for the end of a step, and then do what they did before."""

from __future__ import annotations

import signal
import threading

import pytest

from adaptive.core.training import Stop

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def as_on_the_command_line():
    before = {number: signal.signal(number, signal.default_int_handler) for number in BOTH}
    yield
    assert all(signal.getsignal(number) is signal.default_int_handler for number in BOTH)
    for number, handler in before.items():  # of a job in the background SIGINT is ignored
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_kept_until_the_end(number):
    done = []
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        assert not stop.asked()
        signal.raise_signal(number)
        done.append("the step")
        assert stop.asked()
        done.append("saved")
    assert done == ["the step", "saved"]


def test_a_second_one_is_not():
    with pytest.raises(KeyboardInterrupt), Stop():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it was kept waiting")


@pytest.mark.parametrize("number", BOTH)
def test_what_was_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(number)
            assert not stop.asked()
    finally:
        signal.signal(number, signal.default_int_handler)


def test_an_error_is_told_first():
    with pytest.raises(ValueError, match="worse"), Stop():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("worse")


def test_without_a_signal_and_in_another_thread_nothing_happens():
    found = []

    def work():
        with Stop() as stop:
            found.append(stop.asked())

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, False]
