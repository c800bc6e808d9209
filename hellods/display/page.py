"""page(): a report as one HTML file that needs nothing else to be read. Needs matplotlib and Jinja2."""

from collections.abc import Sequence
from math import isfinite
from statistics import stdev
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hellods.display import plots
from hellods.display.drawing import PALETTE
from hellods.display.notes import notes
from hellods.display.text import Json, number, percent, printable, si, summary, thousands, total_bytes

TEMPLATES: Final = Environment(
    loader=PackageLoader("hellods.display", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update({to.__name__: to for to in (number, percent, si, summary, thousands, total_bytes)})


def page(report: Json) -> str:
    """Return the HTML of a report; light or dark, for screens from 390 pixels wide, and for paper."""
    report = _printable(report)
    archives = report["archives"]
    return TEMPLATES.get_template("page.html.j2").render(
        report=report,
        archives=[_prepared(str(place), archive, report) for place, archive in enumerate(archives)],
        side_by_side=_side_by_side(archives) if len(archives) > 1 else None,
        palette=PALETTE,
    )


def _printable(value: Any) -> Any:
    """Return a JSON value whose texts cannot steer a browser."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list) else value


def _side_by_side(archives: Sequence[Json]) -> Json:
    """Return the arms of all archives, and their figures."""
    own = [_point(archive["file"], archive, "hello") for archive in archives if "hello" in archive["arms"]]
    return {
        "arms": dict.fromkeys(arm for archive in archives for arm in archive["arms"]),
        "accuracy": plots.accuracy("all", archives),
        "bytes": plots.against_bytes("all-bytes", own) if own else None,
    }


def _prepared(place: str, archive: Json, report: Json) -> Json:
    """Return an archive with what the template cannot work out; `place` keeps its figures apart from others'."""
    arms, own = archive["arms"], archive["arms"].get("hello")
    labelled = {name: arm for name, arm in arms.items() if arm["fidelity"]}
    compared = [name for name in ("hello", "teacher", "hard") if name in arms] or list(arms)[:3]
    points = {name: _point(name, archive, name) for name in arms}
    prepared = {
        **archive,
        "notes": notes(archive, report),
        "gaps": {name: _gap(own, arm) for name, arm in arms.items() if own and arm is not own},
        "points": points,
        "labelled": labelled,
        "divergences": {f"KL, T = {t}": t for arm in labelled.values() for t in arm["fidelity"]["kl"] or ()},
        "compared": compared,
    }
    if arms:
        values = [arms[name]["per_class"] for name in compared]
        prepared["figures"] = {
            "accuracy": plots.accuracy(f"{place}-accuracy", [archive]),
            "bytes": plots.against_bytes(f"{place}-bytes", [*points.values()]),
            "classes": plots.per_class(f"{place}-classes", archive["classes"], values),
            "curves": _curves(place, arms),
        }
    return prepared


def _gap(own: Json, other: Json) -> Json:
    """Return how far one arm is above another, with the spread over pairs of one seed; all shares."""
    ours, theirs = (arm["accuracy"]["last"] for arm in (own, other))
    pairs = [a - b for a, b in zip(ours["values"], theirs["values"], strict=True)]
    return {"mean": ours["mean"] - theirs["mean"], "std": stdev(pairs) if len(pairs) > 1 else None}


def _point(label: str, archive: Json, name: str) -> plots.Point:
    """Return where an arm stands among accuracies and bytes."""
    arm, base = archive["arms"][name], archive["base"]
    assumed = base["bytes"] if base and arm["needs_base"] else 0
    return plots.Point(label, total_bytes(arm), assumed, arm["accuracy"]["last"], name == "hello")


def _curves(place: str, arms: Json) -> Markup:
    """Return figures of accuracy and of loss by epoch, as far as they were measured."""
    drawn = Markup()
    for what, key, scale in (("accuracy, %", "accuracy", 100), ("training loss", "loss", 1)):
        values = {name: _by_epoch(arm["curves"], key, scale) for name, arm in arms.items()}
        if values := {name: epochs for name, epochs in values.items() if epochs}:
            drawn += plots.curves(f"{place}-{key}-curves", what, values)
    return drawn


def _by_epoch(curves: Sequence[Json], key: str, scale: int) -> dict[int, list[float]]:
    """Return every seed's value by epoch, without those of a student that diverged."""
    found: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve["epochs"], curve[key], strict=True):
            if value is not None and isfinite(value):
                found.setdefault(epoch, []).append(scale * value)
    return dict(sorted(found.items()))
