"""How far along, on stderr: bars on a terminal, now and then a line elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import click

from hellods.progress import Progress, silent

from .text import message

PATIENCE = 2.0  # seconds that a stage may take before it is shown
INTERVAL = 15.0  # seconds between two plain lines


WHOLE = "Whole build"


class Notes(logging.Handler):
    """Show what the library has to say, a line each, and nothing twice."""

    def __init__(self) -> None:
        super().__init__()
        context = click.get_current_context(silent=True)
        self.command = context.command if context else click.Command(None)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if (text := message(record.getMessage(), self.command)) not in self.said:
            self.said.add(text)
            click.echo(f"Note: {text}", err=True)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Yield a callback that draws each stage of over two seconds with the time left; `quiet` draws none.

    Notes of the library are shown too; when `quiet`, warnings alone.
    """
    log, notes = logging.getLogger("hellods"), Notes()
    level = log.level
    log.addHandler(notes)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        if quiet:
            yield silent
        elif sys.stderr.isatty():
            with bars() as draw:
                yield draw
        else:
            yield Lines()
    finally:
        log.removeHandler(notes)
        log.setLevel(level)


@contextmanager
def bars() -> Iterator[Progress]:
    """Yield a callback that draws a bar for each stage."""
    from rich import progress as rich
    from rich.console import Console, RenderableType

    def taken(task: rich.Task) -> float:
        return (task.finished_time if task.finished else task.elapsed) or 0.0

    class Slow(rich.Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table([task for task in self.tasks if taken(task) > PATIENCE])

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=30),
        rich.TextColumn("{task.fields[amount]}"),
        rich.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Slow(*columns, console=Console(stderr=True), refresh_per_second=4) as screen:
        tasks: dict[str, rich.TaskID] = {}

        def draw(stage: str, done: int, total: int) -> None:
            if done == 0 or stage not in tasks:
                tasks[stage] = screen.add_task(stage, total=total, amount="")
            screen.update(tasks[stage], completed=done, total=total, amount=amount(stage, done, total))

        yield draw


@dataclass
class Timer:
    """When a stage began, how far it was then, and when a line was last written of it."""

    started: float
    first: int
    spoken: float


class Lines:
    """Write a line when a stage has taken a while, and one when it has ended."""

    def __init__(self) -> None:
        self.timers: dict[str, Timer] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0 or stage not in self.timers:
            self.timers[stage] = Timer(started=now, first=done, spoken=now + PATIENCE - INTERVAL)
        timer = self.timers[stage]
        taken = now - timer.started
        if done == total and taken > PATIENCE:
            click.echo(f"{stage}: done in {clock(taken)}", err=True)
        elif timer.first < done < total and now > timer.spoken + INTERVAL:
            timer.spoken = now
            left = clock(taken * (total - done) / (done - timer.first))
            click.echo(f"{stage}: {amount(stage, done, total)}, {left} left", err=True)


def whole(draw: Progress, seconds: Mapping[str, float]) -> Progress:
    """Return a callback that also draws the whole: a running stage by its own pace, those to come as expected.

    Args:
        draw: told of each stage, and of the whole in tenths of seconds, those gone and those expected in all.
        seconds: what each stage is expected to take.
    """
    began = time.monotonic()
    left = dict(seconds)
    timers: dict[str, tuple[float, int]] = {}  # when a stage began, and how far it was then
    draw(WHOLE, 0, max(1, round(10 * sum(left.values()))))

    def both(stage: str, done: int, total: int) -> None:
        draw(stage, done, total)
        if stage not in left:
            return
        now = time.monotonic()
        if done == 0 or stage not in timers:
            timers[stage] = now, done
        started, first = timers[stage]
        if first < done < total:
            left[stage] = (now - started) * (total - done) / (done - first)
        elif done == total:
            left[stage] = 0.0
        gone, rest = max(1, round(10 * (now - began))), sum(left.values())  # not 0, which would begin it anew
        draw(WHOLE, gone, gone + (max(1, round(10 * rest)) if rest else 0))

    return both


def amount(stage: str, done: int, total: int) -> str:
    """Return how far a stage is, as in `3 of 10`; the whole in percent."""
    return f"{done / total:.0%}" if stage == WHOLE else f"{done} of {total}"


def clock(seconds: float) -> str:
    """Return minutes and seconds, as in `3:05`."""
    return "{}:{:02}".format(*divmod(round(seconds), 60))
