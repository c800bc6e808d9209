"""What is in the folder of a report already: may it be replaced by the answer to this question?"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hellods.errors import HelloError
from hellods.evaluate.arms import choose
from hellods.evaluate.presets import Protocol
from hellods.evaluate.question import Question
from hellods.evaluate.report import FORMAT, teacher_of
from hellods.evaluate.subject import Subject
from hellods.record import to_json

REPORT: Final = "report.json"
PAGE: Final = "report.html"
TEXT: Final = "report.md"


def check_folder(out: Path) -> None:
    """Check that a report may be written to `out`.

    Raises:
        HelloError: it is no folder, or cannot be written.
    """
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if os.path.lexists(folder))
    if not place.is_dir():
        raise HelloError(f"{place}: is not a folder: give another `out`")
    if not os.access(place, os.W_OK | os.X_OK):
        raise HelloError(f"{place}: this folder is not writable: give another `out`")


def earlier(out: Path) -> dict[str, Any] | None:
    """Return the report that is in `out`.

    Raises:
        HelloError: its report.json is no report, or one of another format; or there is a page or text without it.
    """
    try:
        report: dict[str, Any] = json.loads((out / REPORT).read_text())
        if report["format"] != FORMAT:
            raise ValueError("another format")
    except FileNotFoundError:
        for file in (out / PAGE, out / TEXT):
            if file.exists():
                raise HelloError(
                    f"{file}: exists already, without {REPORT} beside it: give another `out`, or `overwrite=True`"
                ) from None
        return None
    except (ValueError, KeyError, TypeError):
        raise another(out) from None
    return report


def check_asked(
    report: Mapping[str, Any],
    out: Path,
    question: Question,
    asked_now: Sequence[tuple[str, Protocol]],
    precision: str,
) -> None:
    """Check that a report in `out` is on these content ids and protocols, in this precision, and loses no arm, no seed.

    Raises:
        HelloError: it is on others, or would lose some.
    """
    known = [(archive["content_id"], archive["protocol"]) for archive in report["archives"]]
    if known != [(content_id, to_json(protocol)) for content_id, protocol in asked_now]:
        raise another(out)
    if report["precision"] != precision:
        raise another(out, f", in {report['precision']}")
    if lost := {arm for archive in report["archives"] for arm in archive["arms"]} - set(choose(question.arms)):
        raise another(out, f", with the arms {', '.join(sorted(lost))}")
    if len(report["seeds"]) > question.seeds:
        raise another(out, ", with more seeds")


def check_alike_to(report: Mapping[str, Any], out: Path, subject: Subject) -> None:
    """Check that a report in `out` is on the same real images and teacher.

    Raises:
        HelloError: it is on others.
    """
    now = subject.source.provenance()["sha256"], subject.held_out.provenance()["sha256"]
    if (report["data"]["sha256"], report["data"]["held_out"]["sha256"]) != now:
        raise another(out, ", on other real images")
    known, teacher = (dict(facts or {}) for facts in (report["teacher"], teacher_of(subject)))
    before, accuracy = (facts.pop("held_out_accuracy", 0.0) for facts in (known, teacher))
    if before is not None and accuracy is not None and known and known != teacher:  # None: it is not trained yet
        raise another(out, ", with another teacher")


def check_arms(report: Mapping[str, Any], out: Path, possible: Sequence[Collection[str]]) -> None:
    """Check that a report in `out` has no arm that is not possible any more; these are of each archive.

    Raises:
        HelloError: it has.
    """
    for archive, arms in zip(report["archives"], possible, strict=True):
        if lost := archive["arms"].keys() - set(arms):
            raise another(out, f", with the arms {', '.join(sorted(lost))}, which cannot be run now")


def another(out: Path, how: str = "") -> HelloError:
    file = out / REPORT
    return HelloError(
        f"{file}: exists already and answers another question{how}: give another `out`, or `overwrite=True`"
    )
