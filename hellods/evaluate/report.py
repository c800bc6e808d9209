"""From the outcomes of all students to one report, as JSON holds it."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, Final

from hellods.evaluate.question import Question
from hellods.evaluate.runs import PARTS, Run, steps_of
from hellods.evaluate.sizes import rest_bytes
from hellods.evaluate.subject import Subject
from hellods.record import to_json

FORMAT: Final = "hellods-report 1"

Result = tuple[Run, dict[str, Any]]  # a run, and what `runs.finish` returned for it


def about(subject: Subject, results: Sequence[Result], not_run: Mapping[str, str]) -> dict[str, Any]:
    """Return what a report says of one archive.

    Args:
        subject: the archive.
        results: of all its runs.
        not_run: arm -> why it was left out.
    """
    header, source = subject.header, subject.source.provenance()
    names = dict.fromkeys(run.name for run, _ in results)
    arms = {name: arm_of([(run, kept) for run, kept in results if run.name == name]) for name in names}
    teacher = subject.teacher.provenance()["sha256"] if subject.teacher else None
    return {
        "file": subject.shown,
        "name": header.name,
        "content_id": subject.content_id,
        "classes": list(header.classes),
        "images": len(subject.images),
        "images_per_class": max(subject.counts),
        "side": header.images.height,
        "protocol": to_json(subject.protocol),
        "views": to_json(subject.views),
        "steps": steps_of(subject) * subject.protocol.epochs,
        "student_parameters": results[0][1]["outcome"]["parameters"],
        "same_data": source["sha256"] == header.source.get("sha256"),
        "same_teacher": teacher and teacher == header.teacher.get("sha256"),
        "teacher": teacher_of(subject),
        "assistant": header.teacher.get("assistant"),
        "base": subject.base,
        "arms": arms,
        "not_run": dict(not_run),
        "scores": scores(arms),
    }


def arm_of(results: Sequence[Result]) -> dict[str, Any]:
    """Return what became of the students of one arm, one for each seed."""
    run, outcomes = results[0][0], [kept["outcome"] for _, kept in results]
    best = [max(zip(outcome["curve"], outcome["epochs"], strict=True)) for outcome in outcomes]
    # The curve is measured on a sample: what the best point has before the last one there is added to the last on all.
    highest = [min(1.0, o["accuracy"] + value - o["curve"][-1]) for o, (value, _) in zip(outcomes, best, strict=True)]
    epochs = run.subject.protocol.epochs
    seen = sum(outcome["views"] for outcome in outcomes)
    # A student that is sent its labels makes none.
    idle = ["labels"] if run.arm.stored else []
    return {
        "says": run.arm.says,
        # Random images differ from seed to seed, and so do their bytes.
        "bytes": {part: round(mean(kept["bytes"][part] for _, kept in results)) for part in PARTS}
        | {"rest": rest_bytes(run.subject, run.arm)},
        "needs_base": run.arm.labels == "hello",
        "accuracy": {
            "last": spread([outcome["accuracy"] for outcome in outcomes]),
            "best": spread([round(value, 6) for value in highest]) | {"epochs": [epoch for _, epoch in best]},
        },
        "per_class": [round(mean(values), 6) for values in zip(*(o["per_class"] for o in outcomes), strict=True)],
        "curves": [
            {"seed": run.seed, "epochs": o["epochs"], "accuracy": o["curve"], "loss": o["losses"]}
            for (run, _), o in zip(results, outcomes, strict=True)
        ],
        "fidelity": averaged([outcome["fidelity"] for outcome in outcomes]),
        "seconds_per_epoch": {
            part: 0.0 if part in idle else round(mean(outcome["seconds"][part] for outcome in outcomes) / epochs, 6)
            for part in ("views", "labels", "student")
        },
        "flops_per_epoch": {
            part: 0 if part in idle else round(outcomes[0]["flops"][part] * seen / len(outcomes) / epochs)
            for part in ("labels", "student")
        },
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (of a sample; None of one value) and the values."""
    deviation = round(stdev(values), 6) if len(values) > 1 else None
    return {"mean": round(mean(values), 6), "std": deviation, "values": list(values)}


def averaged(parts: Sequence[Any]) -> Any:
    """Return the mean of each number in equal JSON objects; None where one is None."""
    if None in parts:
        return None
    if isinstance(parts[0], dict):
        return {key: averaged([part[key] for part in parts]) for key in parts[0]}
    return round(mean(parts), 6) if isinstance(parts[0], float) else parts[0]


def scores(arms: Mapping[str, Any]) -> dict[str, Any]:
    """Return DD-Ranking's scores (Li et al. 2025, arXiv 2505.13300), None where an arm is missing.

    `hlr`, hard label recovery: accuracy with all real data less that with the archive's images, both with hard labels.
    `ior_hello`, `ior_teacher`, improvement over random: accuracy with the archive's images less that with as many
    random real images, under the same label maker.
    """

    def less(first: str, second: str) -> dict[str, Any] | None:
        if first not in arms or second not in arms:
            return None
        ours, theirs = (arms[name]["accuracy"]["last"]["values"] for name in (first, second))
        difference = spread([a - b for a, b in zip(ours, theirs, strict=True)])  # seed by seed
        return {"mean": difference["mean"], "std": difference["std"]}

    return {
        "hlr": less("full", "hard"),
        "ior_hello": less("hello", "random-hello"),
        "ior_teacher": less("teacher", "random-teacher"),
    }


def heading(question: Question, subjects: Sequence[Subject], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report says of the question: data, teacher, seeds; then `facts` of the machine and the call."""
    subject = subjects[0]
    source, held_out = subject.source.provenance(), subject.held_out.provenance()
    return {
        "format": FORMAT,
        **facts,
        "data": source | {"held_out": {"images": held_out["images"], "sha256": held_out["sha256"]}},
        "teacher": teacher_of(subject),
        "seeds": list(range(question.seeds)),
    }


def teacher_of(subject: Subject) -> dict[str, Any] | None:
    """Return what a report says of an archive's teacher; one that is trained depends on the archive's recipe."""
    if subject.teacher is None:
        return None
    return subject.teacher.provenance() | {"held_out_accuracy": subject.teacher_accuracy}
