"""page(): a report as one HTML file that needs nothing else to be read. Needs matplotlib."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from hellods.evaluate import plots
from hellods.evaluate.drawing import PALETTE
from hellods.evaluate.markup import Json, apart, code, facts, figure, last, section, si, table, tile, total
from hellods.evaluate.report import notes
from hellods.evaluate.sections import ACCURACY, BYTES, measured, point

STYLES: Final = Path(__file__).with_name("page.css")
AGAINST: Final = {  # what the archive's own labels are held against
    "teacher": "the teacher's own labels for the same images",
    "hard": "the same images with their classes alone",
    "random-hello": "as many random real images under the archive's labels",
    "random-teacher": "as many random real images under the teacher's labels",
}


def page(report: dict[str, Any]) -> str:
    """Return the HTML of a report; light or dark, for screens from 390 pixels wide, and for paper."""
    report = _printable(report)
    archives = report["archives"]
    several = len(archives) > 1
    title = escape(f"hellods evaluate {' '.join(archive['file'] for archive in archives)}")
    light = "".join(f"--{name}: {color}; " for name, color in PALETTE.items())
    parts = [
        f"<header><p class=muted>hellods evaluate · {escape(report['date'])}</p>",
        f"<h1>{'Are these archives' if several else 'Is this archive'} any good?</h1></header>",
        _comparison(archives) if several else "",
        *(_archive(str(number), archive, report) for number, archive in enumerate(archives)),
        _provenance(report),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n:root {{ color-scheme: light dark; {light}}}\n{STYLES.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )


def _printable(value: Any) -> Any:
    """Return a JSON value whose texts cannot steer a browser: no control characters, no change of direction."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list) else value


def _comparison(archives: Sequence[Json]) -> str:
    own = [(archive, archive["arms"]["hello"]) for archive in archives if "hello" in archive["arms"]]
    tiles = [
        tile(archive["file"], arm, f"{si(total(arm))}B, {archive['images']:,} images", "own") for archive, arm in own
    ]
    arms = dict.fromkeys(arm for archive in archives for arm in archive["arms"])
    rows = [[code(arm), *(last(archive["arms"].get(arm)) for archive in archives)] for arm in arms]
    points = [point(archive["file"], archive, arm) for archive, arm in own]
    return section(
        "Side by side",
        f"<p>Accuracy of a student under each archive's own labels.</p><div class=tiles>{''.join(tiles)}</div>",
        figure(plots.accuracy("all", archives), ACCURACY),
        table(["accuracy, %", *(code(archive["file"]) for archive in archives)], rows),
        figure(plots.against_bytes("all-bytes", points), BYTES) if own else "",
        level=2,
    )


def _archive(name: str, archive: Json, report: Json) -> str:
    classes, images = len(archive["classes"]), archive["images"]
    size = f"{classes:,} classes · {images:,} images of {archive['side']} px, {archive['images_per_class']:,} a class"
    return section(
        escape(archive["file"]),
        f"<p class=muted>{escape(archive['name'])} · {size}</p>",
        _answer(archive, report),
        "".join(f"<p class=note>{note}</p>" for note in notes(archive, report)),
        measured(name, archive) if archive["arms"] else "",
        _not_run(archive["not_run"]),
        _recipe(archive),
        level=2,
    )


def _answer(archive: Json, report: Json) -> str:
    arms = archive["arms"]
    if "hello" not in arms:
        return f"<p class=answer>The arm {code('hello')}, the archive under its own labels, was not run.</p>"
    own = arms["hello"]
    others = {arm: says for arm, says in AGAINST.items() if arm in arms}
    gaps = [f"<b>{apart(own, arms[arm])}</b> {says}" for arm, says in others.items()]
    student = escape(str(archive["protocol"]["student"]))
    sentence = (
        f"A {student} that learns from {archive['images']:,} images under the archive's own labels gets "
        f"<b>{last(own)} %</b> of {report['data']['held_out']['images']:,} held-out images right"
        f"{': ' if gaps else ''}{', '.join(gaps)}."
    )
    tiles = [tile("hello", own, "the archive as it is", "own")]
    tiles += [tile(arm, arms[arm], f"{code('hello')} is {apart(own, arms[arm])}") for arm in others]
    return f"<p class=answer>{sentence}</p><div class=tiles>{''.join(tiles)}</div>"


def _not_run(reasons: Json) -> str:
    rows = [f"<dt>{code(arm)}</dt><dd>{escape(reason)}</dd>" for arm, reason in reasons.items()]
    return section("Not run", f"<dl>{''.join(rows)}</dl>") if rows else ""


def _recipe(archive: Json) -> str:
    known = {
        **archive["protocol"],
        "steps": archive["steps"],
        "student parameters": archive["student_parameters"],
        "views": archive["views"],
        "content id": archive["content_id"],
        "base": archive["base"],
        "teacher": archive["teacher"],
        "assistant": archive["assistant"],
    }
    return section("Recipe", facts(known))


def _provenance(report: Json) -> str:
    names = ("date", "hardware", "device", "precision", "seeds", "versions", "data")
    command = f"<pre>{escape(report['command'])}</pre>"
    return section("To do it again", command, facts({name: report[name] for name in names}), level=2)
