"""`hellods evaluate`: is an archive any good?"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from hellods.display.notes import notes
from hellods.display.text import percent, summary, total_bytes
from hellods.evaluate.arms import ARMS
from hellods.evaluate.presets import PRESETS, Protocol
from hellods.evaluate.question import Question
from hellods.format.archive import Archive

from .malloc import reuse_memory
from .options import only, options_of, with_names_of_options
from .progress import clock, progress
from .text import WIDTH, escape, message

if TYPE_CHECKING:
    from hellods.evaluate.evaluate import Plan


@with_names_of_options
@click.command(short_help="Train the same student on files and on what competes with them.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--data", required=True, help="Real images: a folder with train/ and val/ (or test/), or `digits`.")
@click.option(
    "--arms",
    default=",".join(dict.fromkeys(name.partition("-")[0] for name in ARMS)),
    show_default=True,
    help="Arms to compare, with commas between; `random` means all random-…",
)
@options_of(Question, but=("data", "arms", "protocol"))
@click.option(
    "--preset",
    type=click.Choice([*PRESETS]),
    default="rded",
    show_default=True,
    help="Recipe of students: RDED's (300 epochs of AdamW at 0.001, KL at T = 20), SRe2L's, or HeLlO's loss in RDED's, "
    "for the rest of it is not published.",
)
@options_of(Protocol, default="the preset's")
@click.option(
    "--out", default="report", show_default=True, help="Folder for the report; finished students are kept there."
)
@click.option("--plan", "planned", is_flag=True, help="Estimate the time of each arm, and stop.")
@click.option("--overwrite", is_flag=True, help="Replace the report of another question.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    files: tuple[str, ...],
    arms: str,
    preset: str,
    out: str,
    planned: bool,
    overwrite: bool,
    quiet: bool,
    **knobs: Any,
) -> None:
    """Train the same student on each FILE and on what competes with it.

    Arms: the archive's labels (hello), the teacher itself (teacher), classes alone (hard), random real images
    (random-…), the teacher shipped in few bits (shipped-…), its labels stored (stored-…), all real images (full).
    Held-out images judge. The folder --out gets report.html, report.json, report.md (cards and accuracies, for where
    you share a FILE) and one file for each student, so that an interrupted evaluation goes on where it was.
    """
    chosen = {field.name: knobs[field.name] for field in fields(Protocol) if knobs[field.name] is not None}
    question = Question(
        arms=tuple(name for part in arms.split(",") if (name := part.strip())),
        protocol=replace(PRESETS[preset], **chosen),
        **only(Question, knobs),
    )
    for file in files:
        Archive.open(file).close()  # what is none is refused before seconds go into torch
    with progress(quiet) as draw:
        reuse_memory()
        draw("Load torch", 0, 1)
        from hellods.evaluate.evaluate import evaluate, forecast, prepare

        draw("Load torch", 1, 1)
        if planned:
            plan = prepare(files, question, out, overwrite=overwrite, train=False, progress=draw)
            text = foreseen(plan, forecast(plan, draw), plan.bench.training())
        else:
            call = shlex.join(["hellods", *sys.argv[1:]])
            report = evaluate(files, question, out, overwrite=overwrite, command=call, progress=draw)
            text = "\n\n".join(table(archive, notes(archive, report)) for archive in report["archives"])
            text += f"\n\nThe whole report is in {escape(out)}"
    click.echo(text)


def table(archive: Mapping[str, Any], remarks: Sequence[str] = ()) -> str:
    """Return the results of one archive, an arm a line, and remarks on them."""
    student = f"{archive['protocol']['student']}, {archive['protocol']['epochs']} epochs"
    lines = [
        f"{escape(archive['file'])}: {archive['images']:,} images of {archive['side']} px; {student}",
        "",
        f"{'accuracy in %':16}{'last epoch':>12}{'best':>8}{'bytes':>14}{'agreement':>11}  with the teacher",
    ]
    for name, arm in archive["arms"].items():
        fidelity = arm["fidelity"] or {}
        agreement = fidelity.get("agreement")
        last, best = summary(arm["accuracy"]["last"]), percent(arm["accuracy"]["best"]["mean"])
        said = "" if agreement is None else percent(agreement)
        lines.append(f"{name:16}{last:>12}{best:>8}{total_bytes(arm):>14,}{said:>11}".rstrip())
    scores = {"HLR": "hlr", "IOR": "ior_hello", "IOR of the teacher's labels": "ior_teacher"}
    found = [f"{name} {summary(archive['scores'][key])}" for name, key in scores.items() if archive["scores"][key]]
    base = archive["base"]
    beside = f"beside it the base model {escape(base['name'])}, its image tower {base['bytes']:,} bytes" if base else ""
    lines += ["", *[line for line in ("; ".join(found), beside) if line]]
    lines += [line for remark in remarks for line in ["", *wrap(remark, WIDTH)]]
    return "\n".join(lines).rstrip()


def foreseen(plan: "Plan", seconds: Mapping[tuple[str, str], float], teachers: Sequence[float]) -> str:
    """Return what a plan would train, teachers first, an arm a line, and how long that takes."""
    missing = plan.missing
    files = {run.file for run in missing}
    lines, total = [], sum(teachers)
    if teachers:
        name, count = escape(plan.bench.question.teacher or ""), f"{len(teachers)} to train, the teacher"
        lines += [f"{name:15} {count:24}{clock(total):>8}", ""]
    for subject, lacking in zip(plan.subjects, plan.not_run, strict=True):
        name = subject.shown
        facts = (
            f"{subject.protocol.student}, {subject.protocol.epochs} epochs, batches of {subject.protocol.batch_size}"
        )
        lines += [f"{escape(name)}: {facts}", ""]
        for arm in dict.fromkeys(run.name for run in plan.runs if run.subject is subject):
            left = [run for run in missing if run.subject is subject and run.name == arm]
            taken = len(left) * seconds.get((str(subject.path), arm), 0.0)
            total += taken
            mine = [run for run in plan.runs if run.subject is subject and run.name == arm]
            done = sum(run.file not in files for run in mine)
            shared = len(mine) - len(left) - done  # with another arm
            facts = f"{len(left)} to train" + f", {done} at hand" * bool(done) + f", {shared} shared" * bool(shared)
            lines.append(f"{arm:16}{facts:24}{clock(taken):>8}")
        lines += [f"{arm:16}left out: {message(why, command)}"[: 2 * WIDTH] for arm, why in lacking.items()] + [""]
    return "\n".join([*lines, f"in all {clock(total)}"])
