"""`hellods build`: an archive from real images and a teacher."""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.toml import read_text
from hellods.errors import OptionError, SourceError
from hellods.format.archive import Archive
from hellods.format.files import check_target
from hellods.labels.config import needs_base

from .defaults import choose_recipe, note, outdated
from .inspect import parts, title
from .loop import loop
from .malloc import reuse_memory
from .options import only, options_of, with_names_of_options
from .progress import clock, progress, whole
from .text import facts, row

if TYPE_CHECKING:
    from hellods.distill.build import Report
    from hellods.forecast import Cost

logger = logging.getLogger("hellods")


@with_names_of_options
@click.command()
@click.argument("data")
@click.option("--out", metavar="FILE", help="The `.hello` file to write; --plan needs none.")
@options_of(Inputs, but=("data", "descriptions"))
@click.option(
    "--class-names", metavar="FILE", help="A text for each class folder: lines `folder: text`, or a JSON object."
)
@click.option(
    "--recipe",
    metavar="TOML",
    is_eager=True,
    callback=choose_recipe,
    help="File of options, as `hellods inspect --recipe` prints them; options on the command line override it, and "
    "defaults that depend on an overridden value are worked out anew.",
)
@options_of(Recipe)
@click.option(
    "--plan", "only_plan", is_flag=True, help="Estimate time and memory of each stage from a few steps, and stop."
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    data: str, out: str | None, class_names: str | None, only_plan: bool, overwrite: bool, quiet: bool, **knobs: Any
) -> None:
    """Make a `.hello` file from the real images in DATA.

    DATA is a folder with train/ and val/ (or test/), each with a folder of images for every class; or a folder of
    class folders, of which a fifth is held out; or `digits`, real handwritten ones.

    What a long build has done is kept in a folder `.FILE.build` beside FILE until it ends: after an interruption, the
    same command goes on from there.
    """
    context = click.get_current_context()
    if not only_plan:
        if out is None:
            raise click.UsageError("Missing option '--out'.")
        check_target(out, overwrite)  # before seconds go into torch
    anew = outdated(context)
    recipe = Recipe(**only(Recipe, knobs | dict.fromkeys(anew)))
    descriptions = read_names(Path(class_names)) if class_names else None
    inputs = Inputs(data=data, descriptions=descriptions, **only(Inputs, knobs))
    with progress(quiet) as draw:
        if anew:
            logger.warning(note(knobs["recipe"], anew))
        reuse_memory()
        draw("Load torch", 0, 1)
        from hellods.distill.arrange import prepare
        from hellods.distill.build import carry_out
        from hellods.distill.plan import plan
        from hellods.distill.resume import Work

        draw("Load torch", 1, 1)
        if only_plan:
            click.echo(table(plan(prepare(inputs, recipe, draw), draw)))
            return
        assert out is not None
        with Work(out) as kept:
            setting = prepare(inputs, recipe, draw)
            if not quiet:
                with suppress(SourceError):  # of an image, say: the build names all such, not only the first
                    draw = whole(draw, {cost.stage: cost.seconds for cost in plan(setting, draw)})
            report = carry_out(setting, kept, overwrite=overwrite, progress=draw)
    click.echo(made(report, inputs.base))


def table(costs: Sequence["Cost"]) -> str:
    """Return a line for each stage and one for all: steps, time, and memory in millions of bytes."""
    held = max((cost.memory for cost in costs), default=0)
    rows = [("", "steps", "time", "memory")]
    rows += [(cost.stage, f"{cost.steps:,}", clock(cost.seconds), megabytes(cost.memory)) for cost in costs]
    rows += [("in all", "", clock(sum(cost.seconds for cost in costs)), megabytes(held))]
    return "\n".join(f"{stage:14}{steps:>10}{time:>9}{memory:>12}" for stage, steps, time, memory in rows)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def made(report: "Report", base: str | None) -> str:
    """Return what a build says at its end: the file's bytes and accuracies, the seconds, and the loop to paste."""
    with Archive.open(report.path) as archive:
        header = archive.header
        size = report.path.stat().st_size
        heading = title(archive, size)
    assert header.projector
    lines = [
        *heading,
        *parts(header, size),
        "",
        row("teacher", facts(header.teacher)),
        row("projector", facts(header.metrics)),
        row("took", [f"{stage} {clock(seconds)}" for stage, seconds in report.seconds.items()]),
        "\nTrain from it:\n",
        loop(str(report.path), header.images.height, base if needs_base(header.projector) else None),
    ]
    return "\n".join(lines)


def read_names(path: Path) -> dict[str, str]:
    """Return class folder -> text from a JSON object, or from lines `folder: text`.

    Raises:
        OptionError: the file is missing, or of neither form.
    """
    try:
        text = read_text(path)
    except OSError as cause:
        raise OptionError(f"{path}: class names cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise OptionError(f"{path}: class names are not text in UTF-8 or UTF-16") from cause
    return names_of_json(path, text) if text.lstrip().startswith("{") else names_of_lines(path, text)


def names_of_json(path: Path, text: str) -> dict[str, str]:
    try:
        names: dict[str, Any] = json.loads(text)
    except ValueError as cause:
        raise OptionError(f"{path}: not a JSON object: {cause}") from cause
    for folder, name in names.items():
        if not isinstance(name, str):
            raise OptionError(f"{path}: {folder!r} needs a text, found {name!r}")
    return names


def names_of_lines(path: Path, text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        folder, _, name = (part.strip() for part in line.partition(":"))
        if folder in names:
            raise OptionError(f"{path}:{number}: {folder!r} appears twice")
        if folder and name:
            names[folder] = name
        elif line.strip():
            raise OptionError(f"{path}:{number}: found {line!r}, expected `folder: text`")
    return names
