from __future__ import annotations

import io

import pytest

from adaptive.core.run.progress import duration, line, track


class Clock:
    """Moves on by ``step`` seconds at every look."""

    def __init__(self, step: float):
        self.now, self.step = -step, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def shown(count: int, step: float, **options) -> list[str]:
    stream = io.StringIO()
    items = track(range(count), stream=stream, clock=Clock(step), **options)
    assert list(items) == list(range(count))
    return stream.getvalue().splitlines()


def test_lines_come_no_more_often_than_asked_and_say_rate_and_time_left():
    lines = shown(100, 0.5, desc="scores", every=5.0)
    assert len(lines) == 10
    assert lines[0] == "scores 10/100 (10 %), 2 it/s, 45.0 s left"
    assert lines[-1] == "scores 100/100 (100 %), 2 it/s, 0.0 s left"


def test_a_short_loop_prints_nothing():
    assert shown(40, 0.1, every=5.0) == []


def test_a_loop_of_unknown_length_says_how_long_it_has_taken():
    stream = io.StringIO()
    list(track(iter(range(3)), desc="x", stream=stream, clock=Clock(8.0), unit="row"))
    assert stream.getvalue().splitlines()[1] == "x 2, 8 s/row, 16.0 s so far"


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    assert list(track("abc", desc="letters", stream=stream)) == ["a", "b", "c"]
    assert "letters" in stream.getvalue() and "\r" in stream.getvalue()


def test_leaving_early_closes_the_iterable():
    closed = []

    def items():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    loop = track(items(), stream=io.StringIO())
    next(loop)
    loop.close()
    assert closed


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (11220, "3 h 07 min"),
    ],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_more_items_than_announced_do_not_give_a_negative_time():
    assert line("x", 12, 10, 6.0) == "x 12/10 (120 %), 2 it/s, 6.0 s so far"
