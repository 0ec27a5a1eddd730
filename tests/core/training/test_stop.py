"""Signals wait for the end of a step, and then do what they did before."""

from __future__ import annotations

import signal
import threading

import pytest

from adaptive.core.training import Stop


@pytest.fixture(autouse=True)
def as_on_the_command_line():
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
