"""page(): a report as one HTML file that needs nothing else to be read. Needs matplotlib."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from math import isfinite
from statistics import stdev
from typing import Any, Final

from hellods.evaluate import plots

Json = Mapping[str, Any]
Columns = dict[str, Callable[[Json], str]]  # title: what it shows of an arm; both HTML

AGAINST: Final = {  # what the archive's own labels are held against
    "teacher": "the teacher's own labels for the same images",
    "hard": "the same images with their classes alone",
    "random-hello": "as many random real images under the archive's labels",
    "random-teacher": "as many random real images under the teacher's labels",
}
SCORES: Final = {
    "hlr": (
        "HLR",
        "What all real images reach with hard labels, minus what the archive's images reach with hard labels: the "
        "information lost, without the help of soft labels. Lower is better. Real images are learnt for as many steps "
        "as the archive's, which is too few for all that they could teach.",
    ),
    "ior_hello": (
        "IOR under the archive's labels",
        "What the archive's images reach, minus what as many random real images reach under the same labels: what "
        "the distilled images add. Higher is better; below zero, random images are better.",
    ),
    "ior_teacher": ("IOR under the teacher's labels", "The same difference, with labels of the teacher."),
}
NONE: Final = "&ndash;"


def page(report: dict[str, Any]) -> str:
    """Return the HTML of a report; light or dark, for screens from 390 pixels wide, and for paper."""
    report = _printable(report)
    archives = report["archives"]
    several = len(archives) > 1
    title = escape(f"hellods evaluate {' '.join(archive['file'] for archive in archives)}")
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
        f"<style>{CSS}</style></head>\n<body><main>\n{''.join(parts)}</main></body></html>\n"
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
        _tile(archive["file"], arm, f"{_si(_total(arm))}B, {archive['images']:,} images", "own") for archive, arm in own
    ]
    arms = dict.fromkeys(arm for archive in archives for arm in archive["arms"])
    rows = [[_code(arm), *(_last(archive["arms"].get(arm)) for archive in archives)] for arm in arms]
    points = [_point(archive["file"], archive, arm) for archive, arm in own]
    return _section(
        "Side by side",
        f"<p>Accuracy of a student under each archive's own labels.</p><div class=tiles>{''.join(tiles)}</div>",
        _figure(plots.accuracy("all", archives), ACCURACY),
        _table(["accuracy, %", *(_code(archive["file"]) for archive in archives)], rows),
        _figure(plots.against_bytes("all-bytes", points), BYTES) if own else "",
        level=2,
    )


def _archive(name: str, archive: Json, report: Json) -> str:
    classes, images = len(archive["classes"]), archive["images"]
    facts = f"{classes:,} classes · {images:,} images of {archive['side']} px, {archive['images_per_class']:,} a class"
    return _section(
        escape(archive["file"]),
        f"<p class=muted>{escape(archive['name'])} · {facts}</p>",
        _answer(archive, report),
        _notes(archive, report),
        _measured(name, archive) if archive["arms"] else "",
        _not_run(archive["not_run"]),
        _recipe(archive),
        level=2,
    )


def _measured(name: str, archive: Json) -> str:
    arms = archive["arms"]
    return (
        _accuracy(name, archive)
        + _bytes(name, archive)
        + _fidelity(arms)
        + _classes(name, archive)
        + _curves(name, arms)
        + _scores(archive["scores"])
        + _cost(arms)
    )


def _answer(archive: Json, report: Json) -> str:
    arms = archive["arms"]
    if "hello" not in arms:
        return f"<p class=answer>The arm {_code('hello')}, the archive under its own labels, was not run.</p>"
    own = arms["hello"]
    others = {arm: says for arm, says in AGAINST.items() if arm in arms}
    gaps = [f"<b>{_apart(own, arms[arm])}</b> {says}" for arm, says in others.items()]
    student = escape(str(archive["protocol"]["student"]))
    sentence = (
        f"A {student} that learns from {archive['images']:,} images under the archive's own labels gets "
        f"<b>{_last(own)} %</b> of {report['data']['held_out']['images']:,} held-out images right"
        f"{': ' if gaps else ''}{', '.join(gaps)}."
    )
    tiles = [_tile("hello", own, "the archive as it is", "own")]
    tiles += [_tile(arm, arms[arm], f"{_code('hello')} is {_apart(own, arms[arm])}") for arm in others]
    return f"<p class=answer>{sentence}</p><div class=tiles>{''.join(tiles)}</div>"


def _notes(archive: Json, report: Json) -> str:
    notes = []
    if not archive["same_data"]:
        notes.append("The archive was not made from this data: this measures how it transfers.")
    if archive["same_teacher"] is False:
        notes.append("The archive was not made with this teacher: the gap between them is also one of teachers.")
    if len(report["seeds"]) == 1:
        notes.append("One seed: how much the numbers vary from seed to seed is unknown.")
    return "".join(f"<p class=note>{note}</p>" for note in notes)


def _accuracy(name: str, archive: Json) -> str:
    arms, own = archive["arms"], archive["arms"].get("hello")
    columns: Columns = {
        "last epoch, %": _last,
        "best epoch, %": lambda arm: _summary(arm["accuracy"]["best"]),
        "best epochs": lambda arm: ", ".join(map(str, arm["accuracy"]["best"]["epochs"])),
        "each seed, last epoch": lambda arm: " ".join(map(_percent, arm["accuracy"]["last"]["values"])),
    }
    if own:
        columns[f"{_code('hello')} leads by"] = lambda arm: NONE if arm is own else _apart(own, arm, signed=True)
    return _section(
        "Accuracy",
        _figure(plots.accuracy(f"{name}-accuracy", [archive]), ACCURACY),
        _arms(arms, columns, says=True),
        "<p><small>Every arm has the same student, recipe, views and seeds. ± is one standard deviation over the "
        "seeds; of a difference, over its seeds in pairs. The last epoch counts. The best one is chosen with "
        "hindsight, on a sample of the held-out images.</small></p>",
    )


def _bytes(name: str, archive: Json) -> str:
    arms, base = archive["arms"], archive["base"]
    columns: Columns = {
        "images": lambda arm: f"{arm['bytes']['images']:,}",
        "labels": lambda arm: f"{arm['bytes']['labels']:,}",
        "rest": lambda arm: f"{arm['bytes']['rest']:,}",
        "total": lambda arm: f"{_total(arm):,}",
        "with what is assumed": lambda arm: f"{_total(arm) + _assumed(archive, arm):,}",
    }
    assumed = []
    if base:
        title = (
            f"assumed at hand, not in the total: {_code(base['name'])}, image tower in fp16; "
            "its text tower reads the class names once"
        )
        assumed = [[title, *[""] * 4, f"{base['bytes']:,}"]]
    return _section(
        "Accuracy against bytes",
        _figure(plots.against_bytes(f"{name}-bytes", [_point(arm, archive, arms[arm]) for arm in arms]), BYTES),
        _arms(arms, columns, more=assumed),
    )


def _fidelity(arms: Json) -> str:
    measured = {name: arm for name, arm in arms.items() if arm["fidelity"]}
    columns: Columns = {
        "views": lambda arm: f"{arm['fidelity']['views']:,}",
        "agreement, %": lambda arm: _percent(arm["fidelity"]["agreement"]),
        "calibration error, %": lambda arm: _percent(arm["fidelity"]["calibration_error"]),
        "entropy": lambda arm: _number(arm["fidelity"]["entropy"]),
        "margin": lambda arm: _number(arm["fidelity"]["margin"]),
    }
    for t in dict.fromkeys(t for arm in measured.values() for t in arm["fidelity"]["kl"] or ()):
        columns[f"KL, T = {escape(t)}"] = partial(_divergence, t)
    return _section(
        "Label fidelity",
        _arms(measured, columns) if measured else "<p>Not measured.</p>",
        "<p><small>On views that the student saw. Agreement: the most likely class is the teacher's. Calibration "
        "error: how far confidence is from being right. Entropy, in nats; margin, between the two most likely "
        "classes. KL of the teacher's labels from these, in nats, both softened by T.</small></p>",
    )


def _divergence(temperature: str, arm: Json) -> str:
    return _number((arm["fidelity"]["kl"] or {}).get(temperature))


def _classes(name: str, archive: Json) -> str:
    arms, classes = archive["arms"], archive["classes"]
    chosen = [arm for arm in ("hello", "teacher", "hard") if arm in arms] or list(arms)[:3]
    key = " · ".join(f"{mark} {_code(arm)}" for mark, arm in zip(MARKS, chosen, strict=False))
    rows = [
        [escape(label), *(_percent(arm["per_class"][k]) for arm in arms.values())] for k, label in enumerate(classes)
    ]
    return _section(
        "Accuracy of every class",
        _figure(
            plots.per_class(f"{name}-classes", classes, [arms[arm]["per_class"] for arm in chosen]),
            f"{key}. Mean over seeds, last epoch, %; ordered by {_code(chosen[0])}.",
        ),
        f"<details><summary>All classes and arms</summary>{_table(['%', *map(_code, arms)], rows)}</details>",
    )


def _curves(name: str, arms: Json) -> str:
    drawn = ""
    for what, key, scale in (("accuracy, %", "accuracy", 100), ("training loss", "loss", 1)):
        values = {arm: _by_epoch(value["curves"], key, scale) for arm, value in arms.items()}
        if values := {arm: epochs for arm, epochs in values.items() if epochs}:
            drawn += plots.curves(f"{name}-{key}-curves", what, values)
    caption = (
        "Mean and range of the seeds. Accuracy on a sample of the held-out images; losses compare only where the "
        "labels are alike."
    )
    return _section("Training curves", _figure(drawn, caption, kind="pair")) if drawn else ""


def _by_epoch(curves: Sequence[Json], key: str, scale: int) -> dict[int, list[float]]:
    """Return every seed's value by epoch, without those of a student that diverged."""
    found: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve["epochs"], curve[key], strict=True):
            if value is not None and isfinite(value):
                found.setdefault(epoch, []).append(scale * value)
    return dict(sorted(found.items()))


def _scores(scores: Json) -> str:
    rows = []
    for key, (name, meaning) in SCORES.items():
        value = f"{_summary(scores[key])} points" if scores[key] else "not measured"
        rows.append(f"<dt>{name}</dt><dd><b>{value}</b><br><small>{meaning}</small></dd>")
    return _section("DD-Ranking's scores", f"<dl>{''.join(rows)}</dl>")


def _cost(arms: Json) -> str:
    columns: Columns = {
        "views, s": lambda arm: _number(arm["seconds_per_epoch"]["views"]),
        "labels, s": lambda arm: _number(arm["seconds_per_epoch"]["labels"]),
        "student, s": lambda arm: _number(arm["seconds_per_epoch"]["student"]),
        "labels, FLOPs": lambda arm: _si(arm["flops_per_epoch"]["labels"]),
        "student, FLOPs": lambda arm: _si(arm["flops_per_epoch"]["student"]),
    }
    return _section("Cost of an epoch", _arms(arms, columns))


def _not_run(reasons: Json) -> str:
    rows = [f"<dt>{_code(arm)}</dt><dd>{escape(reason)}</dd>" for arm, reason in reasons.items()]
    return _section("Not run", f"<dl>{''.join(rows)}</dl>") if rows else ""


def _recipe(archive: Json) -> str:
    facts = {
        **archive["protocol"],
        "steps": archive["steps"],
        "student parameters": archive["student_parameters"],
        "views": archive["views"],
        "content id": archive["content_id"],
        "base": archive["base"],
    }
    return _section("Recipe", _facts(facts))


def _provenance(report: Json) -> str:
    facts = {key: report[key] for key in ("hardware", "device", "precision", "seeds", "versions", "data", "teacher")}
    command = f"<pre>{escape(report['command'])}</pre>"
    return _section("To do it again", command, _facts({"date": report["date"], **facts}), level=2)


def _section(title: str, *parts: str, level: int = 3) -> str:
    return f"<section><h{level}>{title}</h{level}>\n{''.join(parts)}</section>\n"


def _figure(svg: str, caption: str, kind: str = "") -> str:
    return f'<figure class="{kind}">{svg}<figcaption>{caption}</figcaption></figure>\n'


def _tile(name: str, arm: Json, says: str, kind: str = "") -> str:
    return f'<div class="{kind}"><span>{_code(name)}</span><strong>{_last(arm)}</strong><small>{says}</small></div>'


def _arms(arms: Json, columns: Columns, *, says: bool = False, more: Sequence[Sequence[str]] = ()) -> str:
    """Return a table with a row for every arm."""
    names = {
        arm: _code(arm) + (f"<br><small>{escape(value['says'])}</small>" if says else "") for arm, value in arms.items()
    }
    rows = [[names[arm], *(cell(value) for cell in columns.values())] for arm, value in arms.items()]
    return _table(["", *columns], [*rows, *more])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of HTML cells whose first column names the rows."""
    columns = "".join(f"<th scope=col>{cell}</th>" for cell in head)
    lines = (f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{c}</td>' for c in row[1:])}</tr>\n" for row in rows)
    table = f"<table><thead><tr>{columns}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table>"
    return f"<div class=table tabindex=0>{table}</div>\n"


def _facts(values: Json) -> str:
    """Return names and values of a JSON object, inner names after a dot."""
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in _flat(values))}</dl>"


def _flat(values: Json) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", text) for inner, text in _flat(value))
        elif isinstance(value, list):
            yield key, ", ".join(map(str, value))
        elif isinstance(value, bool):
            yield key, "yes" if value else "no"
        else:
            yield key, "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _last(arm: Json | None) -> str:
    return _summary(arm["accuracy"]["last"]) if arm else NONE


def _summary(value: Json) -> str:
    """Return mean and spread of shares in percent."""
    return _percent(value["mean"]) + (f" ± {_percent(value['std'])}" if value["std"] is not None else "")


def _apart(own: Json, other: Json, signed: bool = False) -> str:
    """Return how far one arm is above or below another, in points, with the spread over pairs of one seed."""
    ours, theirs = (arm["accuracy"]["last"] for arm in (own, other))
    distance = 100 * (ours["mean"] - theirs["mean"])
    pairs = [100 * (a - b) for a, b in zip(ours["values"], theirs["values"], strict=True)]
    spread = f" ± {stdev(pairs):.1f}" if len(pairs) > 1 else ""
    if signed:
        return f"{'&minus;' if distance < 0 else '+'}{abs(distance):.1f}{spread}"
    return f"{abs(distance):.1f}{spread} points {'below' if distance < 0 else 'above'}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{'&minus;' if share < 0 else ''}{abs(100 * share):.1f}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _si(value: float | None) -> str:
    """Return a count with three digits and a prefix: 1.2 G."""
    if value is None:
        return NONE
    power = next((power for power in (5, 4, 3, 2, 1) if value >= 1000**power), 0)
    return f"{value / 1000**power:.3g} {' kMGTP'[power].strip()}"


def _total(arm: Json) -> int:
    return sum(arm["bytes"].values())


def _assumed(archive: Json, arm: Json) -> int:
    return archive["base"]["bytes"] if arm["needs_base"] and archive["base"] else 0


def _point(label: str, archive: Json, arm: Json) -> plots.Point:
    own = arm is archive["arms"].get("hello")
    return plots.Point(label, _total(arm), _assumed(archive, arm), arm["accuracy"]["last"], own)


ACCURACY: Final = (
    "Bars: the mean over seeds at the last epoch. ● one seed · line: ± one standard deviation · ◇ best epoch, chosen "
    "with hindsight · upright line: chance."
)
BYTES: Final = (
    "● what has to be sent, images and labels and all · ○ the same with the public assets that are assumed at hand. "
    "Upright lines: ± one standard deviation."
)
MARKS: Final = ("<b class=accent>●</b>", "○", "<b class=muted>|</b>")
CSS: Final = f"""
:root {{ color-scheme: light dark; {"".join(f"--{name}: {color}; " for name, color in plots.PALETTE.items())}}}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14171a; --ink: #e8eaed; --muted: #9aa4ae; --faint: #454e57; --line: #2a3036; --accent: #5aa9ff }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }}
main {{ max-width: 1048px; margin: 0 auto; padding: 24px 16px 64px }}
h1 {{ font-size: 34px; line-height: 1.15; margin: 0 0 40px; letter-spacing: -.02em }}
h2 {{ font-size: 25px; margin: 56px 0 4px; overflow-wrap: anywhere; letter-spacing: -.01em }}
h3 {{ font-size: 18px; margin: 48px 0 12px }}
p {{ margin: 0 0 12px; max-width: 46em }}
code, pre {{ font: .92em ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }}
pre {{ padding: 12px 16px; background: var(--line); border-radius: 6px }}
small, figcaption, .muted {{ color: var(--muted) }}
small, figcaption {{ font-size: 14px; line-height: 1.4 }}
.accent {{ color: var(--accent) }}
.answer {{ font-size: 20px; line-height: 1.45; margin: 20px 0 24px }}
.answer b {{ white-space: nowrap }}
.note {{ border-left: 3px solid var(--accent); padding-left: 12px }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 16px 24px }}
.tiles {{ margin-bottom: 24px }}
.tiles div {{ border-top: 2px solid var(--faint); padding-top: 8px }}
.tiles .own {{ border-color: var(--accent) }}
.tiles .own strong {{ color: var(--accent) }}
.tiles span, .tiles strong, .tiles small {{ display: block }}
.tiles strong {{ font-size: 28px; line-height: 1.3; font-variant-numeric: tabular-nums }}
figure {{ margin: 0 0 24px }}
figcaption {{ margin-top: 4px }}
svg {{ display: block; width: 100%; height: auto; stroke-linejoin: round }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0 24px }}
.pair figcaption {{ grid-column: 1 / -1 }}
.narrow {{ display: none }}
.table {{ overflow-x: auto; margin-bottom: 12px }}
table {{ border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; min-width: 100% }}
th, td {{ padding: 6px 0 6px 20px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line) }}
td {{ white-space: nowrap }}
thead th {{ color: var(--muted); font-weight: 400; vertical-align: bottom; border-color: var(--faint) }}
th:first-child {{ text-align: left; font-weight: 400; padding-left: 0; min-width: 9em; overflow-wrap: anywhere }}
th:first-child {{ position: sticky; left: 0; background: var(--paper) }}
dl {{ display: grid; grid-template-columns: minmax(8em, auto) 1fr; gap: 6px 24px; margin: 0; font-size: 14px }}
dt {{ color: var(--muted) }}
dd {{ margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }}
@media (max-width: 720px) {{
  h1 {{ font-size: 28px }}
  .wide {{ display: none }}
  .narrow {{ display: block }}
  .pair, dl {{ display: block }}
  dd {{ margin-bottom: 8px }}
}}
@media print {{
  main {{ max-width: none; padding: 0 }}
  figure, tr, .tiles {{ break-inside: avoid }}
  h2, h3 {{ break-after: avoid }}
}}
"""
