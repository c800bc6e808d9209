"""What was measured of an archive, a section of the page for each measure. Needs matplotlib."""

from collections.abc import Sequence
from functools import partial
from html import escape
from math import isfinite
from typing import Final

from hellods.evaluate import plots
from hellods.evaluate.markup import (
    NONE,
    Columns,
    Json,
    apart,
    code,
    figure,
    last,
    number,
    percent,
    section,
    si,
    summary,
    table,
    table_of_arms,
    total,
)

ACCURACY: Final = (
    "Bars: the mean over seeds at the last epoch. ● one seed · line: ± one standard deviation · ◇ best epoch, chosen "
    "with hindsight · upright line: chance."
)
BYTES: Final = (
    "● what has to be sent, images and labels and all · ○ the same with the public assets that are assumed at hand. "
    "Upright lines: ± one standard deviation."
)
MARKS: Final = ("<b class=accent>●</b>", "○", "<b class=muted>|</b>")
SCORES: Final = {
    "hlr": (
        "HLR",
        "What all real images reach with hard labels, minus what the archive's images reach with hard labels: the "
        "information lost, without the help of soft labels. Lower is better. Real images are learned for as many steps "
        "as the archive's, which is too few for all that they could teach.",
    ),
    "ior_hello": (
        "IOR under the archive's labels",
        "What the archive's images reach, minus what as many random real images reach under the same labels: what "
        "the distilled images add, and what a label maker that was fitted on them alone (fit_on is own) knows better "
        "of them. Higher is better; below zero, random images are better.",
    ),
    "ior_teacher": ("IOR under the teacher's labels", "The same difference, with labels of the teacher."),
}


def measured(name: str, archive: Json) -> str:
    """Return the sections of an archive that has an arm at least; `name` keeps its drawings apart from others'."""
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


def _accuracy(name: str, archive: Json) -> str:
    arms, own = archive["arms"], archive["arms"].get("hello")
    columns: Columns = {
        "last epoch, %": last,
        "best epoch, %": lambda arm: summary(arm["accuracy"]["best"]),
        "best epochs": lambda arm: ", ".join(map(str, arm["accuracy"]["best"]["epochs"])),
        "each seed, last epoch": lambda arm: " ".join(map(percent, arm["accuracy"]["last"]["values"])),
    }
    if own:
        columns[f"{code('hello')} leads by"] = lambda arm: NONE if arm is own else apart(own, arm, signed=True)
    return section(
        "Accuracy",
        figure(plots.accuracy(f"{name}-accuracy", [archive]), ACCURACY),
        table_of_arms(arms, columns, says=True),
        "<p><small>Every arm has the same student, recipe and seeds, and views by one rule, but that strips of real "
        "images stay in their places. ± is one standard deviation over the "
        "seeds; of a difference, over its seeds in pairs. The last epoch counts. The best one is chosen with "
        "hindsight, on a sample of the held-out images.</small></p>",
    )


def _bytes(name: str, archive: Json) -> str:
    arms, base = archive["arms"], archive["base"]
    columns: Columns = {
        "images": lambda arm: f"{arm['bytes']['images']:,}",
        "labels": lambda arm: f"{arm['bytes']['labels']:,}",
        "rest": lambda arm: f"{arm['bytes']['rest']:,}",
        "total": lambda arm: f"{total(arm):,}",
        "with what is assumed": lambda arm: f"{total(arm) + _assumed(archive, arm):,}",
    }
    assumed = []
    if base:
        title = (
            f"assumed at hand, not in the total: {code(base['name'])}, image tower in fp16; "
            "its text tower reads the class names once"
        )
        assumed = [[title, *[""] * 4, f"{base['bytes']:,}"]]
    return section(
        "Accuracy against bytes",
        figure(plots.against_bytes(f"{name}-bytes", [point(arm, archive, arms[arm]) for arm in arms]), BYTES),
        table_of_arms(arms, columns, more=assumed),
        "<p><small>Rest: of the archive's file, what is neither images nor labels. What only its label maker needs, "
        "its probe and its description, is counted where its labels are learned.</small></p>",
    )


def _fidelity(arms: Json) -> str:
    labelled = {name: arm for name, arm in arms.items() if arm["fidelity"]}
    columns: Columns = {
        "views": lambda arm: f"{arm['fidelity']['views']:,}",
        "agreement, %": lambda arm: percent(arm["fidelity"]["agreement"]),
        "calibration error, %": lambda arm: percent(arm["fidelity"]["calibration_error"]),
        "entropy": lambda arm: number(arm["fidelity"]["entropy"]),
        "margin": lambda arm: number(arm["fidelity"]["margin"]),
    }
    for t in dict.fromkeys(t for arm in labelled.values() for t in arm["fidelity"]["kl"] or ()):
        columns[f"KL, T = {escape(t)}"] = partial(_divergence, t)
    return section(
        "Label fidelity",
        table_of_arms(labelled, columns) if labelled else "<p>Not measured.</p>",
        "<p><small>On views that the student saw. Agreement: the most likely class is the teacher's. Calibration "
        "error: how far confidence is from being right. Entropy, in nats; margin, between the two most likely "
        "classes. KL of the teacher's labels from these, in nats, both softened by T.</small></p>",
    )


def _divergence(temperature: str, arm: Json) -> str:
    return number((arm["fidelity"]["kl"] or {}).get(temperature))


def _classes(name: str, archive: Json) -> str:
    arms, classes = archive["arms"], archive["classes"]
    chosen = [arm for arm in ("hello", "teacher", "hard") if arm in arms] or list(arms)[:3]
    key = " · ".join(f"{mark} {code(arm)}" for mark, arm in zip(MARKS, chosen, strict=False))
    rows = [
        [escape(label), *(percent(arm["per_class"][k]) for arm in arms.values())] for k, label in enumerate(classes)
    ]
    return section(
        "Accuracy of every class",
        figure(
            plots.per_class(f"{name}-classes", classes, [arms[arm]["per_class"] for arm in chosen]),
            f"{key}. Mean over seeds, last epoch, %; ordered by {code(chosen[0])}.",
        ),
        f"<details><summary>All classes and arms</summary>{table(['%', *map(code, arms)], rows)}</details>",
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
    return section("Training curves", figure(drawn, caption, kind="pair")) if drawn else ""


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
        value = f"{summary(scores[key])} points" if scores[key] else "not measured"
        rows.append(f"<dt>{name}</dt><dd><b>{value}</b><br><small>{meaning}</small></dd>")
    return section("DD-Ranking's scores", f"<dl>{''.join(rows)}</dl>")


def _cost(arms: Json) -> str:
    columns: Columns = {
        "views, s": lambda arm: number(arm["seconds_per_epoch"]["views"]),
        "labels, s": lambda arm: number(arm["seconds_per_epoch"]["labels"]),
        "student, s": lambda arm: number(arm["seconds_per_epoch"]["student"]),
        "labels, FLOPs": lambda arm: si(arm["flops_per_epoch"]["labels"]),
        "student, FLOPs": lambda arm: si(arm["flops_per_epoch"]["student"]),
    }
    return section("Cost of an epoch", table_of_arms(arms, columns))


def _assumed(archive: Json, arm: Json) -> int:
    return archive["base"]["bytes"] if arm["needs_base"] and archive["base"] else 0


def point(label: str, archive: Json, arm: Json) -> plots.Point:
    """Return where an arm of the archive stands among accuracies and bytes."""
    own = arm is archive["arms"].get("hello")
    return plots.Point(label, total(arm), _assumed(archive, arm), arm["accuracy"]["last"], own)
