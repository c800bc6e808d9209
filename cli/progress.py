"""How far along, on stderr: bars on a terminal, now and then a line elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hellods.progress import Progress, silent

from .text import escape

PATIENCE = 2.0  # seconds that a stage may take before it is shown
INTERVAL = 15.0  # seconds between two plain lines


class Notes(logging.Handler):
    """Show what the library has to say, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"Note: {escape(record.getMessage())}", err=True)


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
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Slow(*columns, console=Console(stderr=True), refresh_per_second=4) as screen:
        tasks: dict[str, rich.TaskID] = {}

        def draw(stage: str, done: int, total: int) -> None:
            if done == 0 or stage not in tasks:
                tasks[stage] = screen.add_task(stage, total=total)
            screen.update(tasks[stage], completed=done, total=total)

        yield draw


class Lines:
    """Write a line when a stage has taken a while, and one when it has ended."""

    def __init__(self) -> None:
        self.stage = ""
        self.started = self.spoken = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0 or stage != self.stage:
            self.stage, self.started, self.spoken = stage, now, now + PATIENCE - INTERVAL
        taken = now - self.started
        if done == total and taken > PATIENCE:
            click.echo(f"{stage}: done in {clock(taken)}", err=True)
        elif 0 < done < total and now > self.spoken + INTERVAL:
            self.spoken = now
            click.echo(f"{stage}: {done} of {total}, {clock(taken * (total - done) / done)} left", err=True)


def clock(seconds: float) -> str:
    """Return minutes and seconds, as in `3:05`."""
    return "{}:{:02}".format(*divmod(round(seconds), 60))
