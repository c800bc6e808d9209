"""A forecast watches a few steps of a stage, stops it, and multiplies."""

import sys
import time

import pytest

from hellods.forecast import WATCHED, Trial, cost, peak
from hellods.progress import Progress, track


def test_cost_is_the_mean_of_a_few_steps_without_the_first_for_all() -> None:
    now, done = 0.0, []

    def work(progress: Progress) -> None:
        nonlocal now
        for step in track(range(100), 100, "Fit", progress):
            now += 50 if step == 0 else 2
            done.append(step)

    found = cost(Trial(work, 4, 1.5), later=10**9, now=lambda: now)
    assert found
    assert (found.stage, found.steps, found.seconds) == ("Fit", 100, 300)
    assert done == [0, 1, 2, 3]


def test_short_steps_are_watched_for_a_while() -> None:
    done = []

    def work(progress: Progress) -> None:
        for step in track(range(10**6), 10**6, "Fit", progress):
            time.sleep(0.001)
            done.append(step)

    began = time.monotonic()
    assert cost(Trial(work))
    assert len(done) > 10
    assert time.monotonic() - began >= WATCHED


@pytest.mark.parametrize("total", [1, 2])
def test_stage_of_fewer_steps_is_stopped_at_its_last(total: int) -> None:
    ended = []

    def work(progress: Progress) -> None:
        for _ in track(range(total), total, "Fit", progress):
            pass
        ended.append("a check of its result, which a plan must not fail on")

    found = cost(Trial(work))
    assert found
    assert (found.steps, ended) == (total, [])


def test_stage_without_steps_costs_nothing() -> None:
    assert cost(Trial(lambda progress: progress("Fit", 0, 0))) is None
    assert cost(Trial(lambda progress: None)) is None


@pytest.mark.skipif(sys.platform == "win32", reason="getrusage is not there")
def test_memory_is_what_was_held_and_what_comes_later() -> None:
    held = peak()
    assert held
    assert held > 10**7
    found = cost(Trial(lambda progress: list(track(range(9), 9, "Fit", progress))), later=10**12)
    assert found
    assert found.memory
    assert found.memory >= held + 10**12
