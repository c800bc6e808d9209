"""`hellods inspect`: what an archive says of itself."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hellods.distill.recipe import NO_ASSISTANT, Recipe
from hellods.distill.toml import to_toml
from hellods.format.archive import Archive
from hellods.format.header import Header
from hellods.labels.config import OWN, needs_base
from hellods.record import decimal, from_json, to_json
from hellods.teachers.scale import MEAN, STD

from .text import INDENT, escape, facts, row, scalar


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="The header as JSON, with the content id and the file's bytes.")
@click.option("--recipe", "as_recipe", is_flag=True, help="Its recipe as TOML, which `hellods build --recipe` takes.")
@click.option("--card", "as_card", is_flag=True, help="Its card, a README in Markdown.")
def command(file: str, as_json: bool, as_recipe: bool, as_card: bool) -> None:
    """Show what FILE says of itself.

    Only its header and its card are read: `hellods verify` checks the rest.
    """
    if as_json + as_recipe + as_card > 1:
        raise click.UsageError("--json, --recipe and --card: choose one")
    with Archive.open(file) as archive:
        size = Path(file).stat().st_size
        if as_recipe:
            click.echo(recipe(archive), nl=False)
        elif as_card:
            click.echo(card(archive), nl=False)
        elif as_json:
            whole = {"content_id": archive.content_id, "bytes": size, "header": to_json(archive.header)}
            click.echo(json.dumps(whole, indent=2))
        else:
            click.echo("\n".join([*title(archive, size), *overview(archive.header, size)]))


def card(archive: Archive) -> str:
    """Return the card that a file holds, which cannot steer a terminal."""
    if "card" not in archive:
        raise click.ClickException(f"{escape(archive.name)}: holds no card")
    return "".join(f"{escape(line)}\n" for line in archive.read("card").decode().splitlines())


def recipe(archive: Archive) -> str:
    """Return the knobs that a file holds, and its base model, as TOML; comments name what it lacks or cannot name."""
    held = archive.header.recipe
    knobs = asdict(from_json(Recipe, held, f"{archive.name}: header.recipe", lenient=archive.header.newer))
    notes = {
        "not in the file": [name for name in knobs if name not in held],
        "not known to this version": [name for name in held if name not in knobs],
    }
    comments = [f"# {note}: {escape(', '.join(names))}\n" for note, names in notes.items() if names]
    header, projector = archive.header, archive.header.projector or {}
    teacher, base, classes = header.teacher.get("architecture"), projector.get("base"), list(header.classes)
    plain = projector.get("descriptions") in (None, classes, [name.replace("_", " ") for name in classes])
    scale = header.images.mean, header.images.std
    if teacher and knobs["assistant"] == NO_ASSISTANT and knobs["teacher_stages"]:
        teacher = f"train:{teacher}"
    public = base and not needs_base(projector)
    made_from = {
        "base model": not public and base and str(base).removeprefix("given:"),
        "teacher": teacher,
        "its mean and std": scale != (MEAN, STD) and "; ".join(",".join(map(decimal, three)) for three in scale),
        "texts of the classes": not plain and "see inspect --json",
    }
    comments += [f"# {what}, which no recipe names: {escape(str(name))}\n" for what, name in made_from.items() if name]
    named = {"base": base} if public else {}
    return to_toml(named | {name: value for name, value in knobs.items() if name in held}) + "".join(comments)


def title(archive: Archive, size: int) -> list[str]:
    """Return the lines that name a file."""
    return [f"{escape(archive.name)}: {archive.header.format}, {size:,} bytes", "", row("id", [archive.content_id])]


def overview(header: Header, size: int) -> list[str]:
    """Return the lines that describe an archive; a file may say anything, so no key is relied upon."""
    images, count = header.images, len(header.classes)
    unstated = " (no license is stated: ask before you share it)" if header.license == "NOASSERTION" else ""
    return [
        row("name", [header.name]),
        row("license", [header.license + unstated]),
        row("made by", [header.created_by]),
        row("source", facts(header.source)),
        row("classes", [f"{count:,}: {header.classes[0]}", *header.classes[1:]], lines=2),
        row("images", [f"{images.count:,} of {images.height} × {images.width} px", images.codec]),
        row("views", facts(header.views)),
        row("teacher", facts(header.teacher)),
        row("labels", labels(header.projector)),
        "",
        *parts(header, size),
        "",
        row("recipe", facts(header.recipe)),
        *claims(header.metrics),
    ]


def labels(projector: dict[str, Any] | None) -> list[str]:
    """Return what makes the labels; what is long stands in `--json`."""
    if projector is None:
        return ["hard labels alone: the file holds no projector"]
    return facts({key: value for key, value in projector.items() if key not in ("descriptions", "preprocess", "tower")})


def parts(header: Header, size: int) -> list[str]:
    """Return the bytes of each section, of the rest, and of the whole; then what is needed beside the file."""
    sections = sorted(header.sections, key=lambda section: -section.length)
    named = {
        section.name: (section.length, f"zstd, {section.raw_length:,} unpacked" if section.encoding == "zstd" else "")
        for section in sections
    }
    rest = size - sum(section.length for section in sections)
    table = named | {"header, padding": (rest, ""), "whole file": (size, "")}
    lines = [f"{'':{INDENT}}{escape(name):16}{count:>13,}  {note}".rstrip() for name, (count, note) in table.items()]
    lines[0] = f"{'bytes':{INDENT}}{lines[0][INDENT:]}"
    if header.projector is not None:
        base = scalar(header.projector.get("base", "a base model"))
        given = "not in the file: give it with --base"
        home = "in this package" if base in OWN else given if ":" in base else "public weights of open_clip"
        held = "nothing: the file holds its base model, " if "backbone" in named else ""
        base = base.removeprefix("given:")
        lines.append(row("beside it", [f"{held}{base}" if held else f"{base} ({home})"]))
    return lines


def claims(metrics: dict[str, Any]) -> list[str]:
    """Return the author's measurements, marked as what they are."""
    return [row("claims", facts(metrics)), f"{'':{INDENT}}(the author's own, not checked)"] if metrics else []
