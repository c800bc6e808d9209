import io
import logging
import re
import sys
import time

import pytest

import hellods_cli.progress as module
from hellods_cli.progress import WHOLE, clock, progress, whole

Capture = pytest.CaptureFixture[str]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time_of(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(module.time, "monotonic", moved)
    return moved


def count(time_of: Clock, quiet: bool, seconds: float, total: int = 10) -> None:
    with progress(quiet) as draw:
        draw("Fit", 0, total)
        for done in range(1, total + 1):
            time_of.now += seconds
            draw("Fit", done, total)


def test_short_stage_says_nothing(time_of: Clock, capsys: Capture) -> None:
    count(time_of, quiet=False, seconds=0.1)
    assert capsys.readouterr() == ("", "")


def test_long_stage_says_how_much_is_left_then_how_long_it_took(time_of: Clock, capsys: Capture) -> None:
    count(time_of, quiet=False, seconds=10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Fit: 1 of 10, 1:30 left"
    assert lines[-1] == "Fit: done in 1:40"


def test_lines_are_rare(time_of: Clock, capsys: Capture) -> None:
    count(time_of, quiet=False, seconds=1, total=100)
    assert len(capsys.readouterr().err.splitlines()) < 10


def test_quiet_shows_no_progress(time_of: Clock, capsys: Capture) -> None:
    count(time_of, quiet=True, seconds=10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("quiet", "shown"), [(False, ["Note: small", r"Note: great\x1b"]), (True, [r"Note: great\x1b"])]
)
def test_notes_of_the_library_are_shown_and_warnings_even_when_quiet(
    quiet: bool, shown: list[str], capsys: Capture
) -> None:
    with progress(quiet):
        logging.getLogger("hellods").info("small")
        logging.getLogger("hellods").warning("great\x1b")
    assert capsys.readouterr().err.splitlines() == shown


def test_stage_that_goes_on_says_what_is_left_by_its_own_pace(time_of: Clock, capsys: Capture) -> None:
    with progress(quiet=False) as draw:
        draw("Fit", 90, 100)
        time_of.now += 10
        draw("Fit", 95, 100)
    assert capsys.readouterr().err == "Fit: 95 of 100, 0:10 left\n"


def test_whole_is_a_stage_by_its_own_pace_and_the_others_as_expected(time_of: Clock, capsys: Capture) -> None:
    with progress(quiet=False) as draw:
        draw = whole(draw, {"Data": 5, "Fit": 90})
        for done in (0, 1, 2):
            draw("Data", done, 2)
            time_of.now += 10
    assert capsys.readouterr().err.splitlines() == [
        "Data: 1 of 2, 0:10 left",
        "Whole build: 9%, 1:40 left",
        "Data: done in 0:20",
    ]


def test_whole_ends_when_its_stages_have_and_knows_what_lay_behind(time_of: Clock) -> None:
    calls: list[tuple[int, int]] = []
    draw = whole(
        lambda stage, done, total: calls.append((done, total)) if stage == WHOLE else None, {"A": 1, "Fit": 20}
    )
    for stage, done, total in (("A", 1, 1), ("Other", 0, 1), ("Fit", 6, 10), ("Fit", 8, 10), ("Fit", 10, 10)):
        time_of.now += 1
        draw(stage, done, total)
    assert calls == [(0, 210), (10, 210), (30, 230), (40, 50), (50, 50)]


def test_whole_is_not_done_while_a_stage_is_left(time_of: Clock) -> None:
    calls: list[tuple[int, int]] = []
    draw = whole(lambda stage, done, total: calls.append((done, total)) if stage == WHOLE else None, {"Fit": 3})
    for done in (0, 999, 1000):
        time_of.now += 1
        draw("Fit", done, 1000)
    assert [done == total for done, total in calls] == [False, False, False, True]


def test_note_is_shown_once(capsys: Capture) -> None:
    with progress(quiet=False):
        for _ in range(2):
            logging.getLogger("hellods").info("the same")
    assert capsys.readouterr().err == "Note: the same\n"


def test_logging_is_left_as_it_was() -> None:
    log = logging.getLogger("hellods")
    before = (log.level, list(log.handlers))
    with progress(quiet=False):
        pass
    assert (log.level, list(log.handlers)) == before


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "62:05")])
def test_clock_counts_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_gets_a_bar_for_what_is_slow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress(quiet=False) as draw:
        for stage, seconds in (("Quick", 0.0), ("Slow", 0.4)):
            draw(stage, 0, 2)
            time.sleep(seconds)
            draw(stage, 2, 2)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search("Slow .* 2 of 2 ", text)
    assert "Quick" not in text
