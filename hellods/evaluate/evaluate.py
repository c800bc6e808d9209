"""evaluate(): the same students, under an archive's labels and under everything that competes with them."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from hellods.device import float32_on_cpu, get_device, training_dtype
from hellods.display.markdown import markdown
from hellods.errors import OptionError
from hellods.evaluate.arms import choose
from hellods.evaluate.bench import Bench
from hellods.evaluate.earlier import PAGE, REPORT, TEXT, check_alike_to, check_arms, check_asked, check_folder, earlier
from hellods.evaluate.question import Question
from hellods.evaluate.report import about, heading
from hellods.evaluate.runs import Run, expected_seconds, finish, kept, runs_of
from hellods.evaluate.subject import Subject, open_subject, read_archive
from hellods.format.archive import Archive
from hellods.format.files import replacing
from hellods.progress import Progress, silent, track

logger = logging.getLogger("hellods")

PACKAGES: Final = ("hellods", "torch", "torchvision", "open_clip_torch", "timm")  # whose versions a report states
PRECISIONS: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a question needs: students that are to be trained or are kept, and arms that cannot be run."""

    runs: list[Run]
    not_run: list[dict[str, str]]  # for each archive: arm -> why
    subjects: list[Subject]
    bench: Bench
    device: torch.device
    precision: str

    @property
    def missing(self) -> list[Run]:
        """The runs that are not kept, each once."""
        return [run for run in {run.file: run for run in self.runs}.values() if kept(run) is None]


@float32_on_cpu()
def evaluate(
    paths: Sequence[str],
    question: Question,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Return the report that is written to `out`: report.json, .html and .md, and runs/ with each student's outcome.

    A student whose outcome is kept in `out` is not trained again, so an interrupted evaluation goes on where it was.
    On a CPU with the same number of threads, the same question has the same answer.

    Args:
        paths: The archives, compared side by side.
        question: What is asked of each.
        out: The folder of the report, made if it is missing.
        overwrite: Whether to replace the report of another question.
        command: How the question was put, for the report.
        progress: A callback that is told of every step of every student.

    Raises:
        HelloError: an archive, the real images, the teacher or the student cannot be used, or do not fit each other; or
            `out` holds the report of another question.
    """
    plan = prepare(paths, question, out, overwrite=overwrite, progress=progress)
    missing = plan.missing
    total, done = sum(run.views for run in missing), 0
    for run in missing:

        def draw(stage: str, step: int, steps: int, run: Run = run, done: int = done) -> None:
            progress("Students", done + run.views * step // steps, total)

        # Another process may have finished it meanwhile.
        try:
            result = kept(run) or finish(run, plan.device, PRECISIONS[plan.precision], draw)
        except OptionError as cause:
            raise OptionError(
                f"{run.subject.shown}: arm {run.name}, seed {run.seed}: {cause}; or leave this arm out of `arms`"
            ) from cause
        done += run.views
        accuracy = result["outcome"]["accuracy"]
        logger.info("%s: %s, seed %d: %.1f %%", run.subject.shown, run.name, run.seed, 100 * accuracy)
    report = assembled(plan, question, command)
    write(report, [card_of(subject.path) for subject in plan.subjects], Path(out))
    return report


def prepare(
    paths: Sequence[str],
    question: Question,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    train: bool = True,
    progress: Progress = silent,
) -> Plan:
    """Return the plan that `evaluate` carries out; no student is trained, and nothing written but a teacher.

    With `train=False` no teacher is trained either: such a plan says how long all would take, but cannot be carried
    out.

    Raises:
        HelloError: as `evaluate`.
    """
    device = get_device(question.device)
    precision = question.precision or ("bf16" if training_dtype(device) == torch.bfloat16 else "fp32")
    arms = choose(question.arms)
    folder = Path(out)
    check_folder(folder)
    bench = Bench(question, device, folder / "runs", progress, train=train)
    if isinstance(paths, str) or not paths:
        raise OptionError(f"paths is {paths!r}, expected one archive or more in a list")
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise OptionError(f"{', '.join(map(str, paths))}: an archive is named twice: name each once")
    facts = [read_archive(path, question) for path in paths]
    old = None if overwrite else earlier(folder)
    if old:
        check_asked(old, folder, question, [(content_id, protocol) for _, content_id, protocol, _ in facts], precision)
    subjects = [open_subject(path, question, bench) for path in paths]
    names = [subject.shown for subject in subjects]
    subjects = [s if names.count(s.shown) == 1 else replace(s, shown=str(s.path)) for s in subjects]
    check_alike(subjects)
    if old:
        check_alike_to(old, folder, subjects[0])
    runs: list[Run] = []
    not_run = [{name: why for name, arm in arms.items() if (why := subject.lacking(arm))} for subject in subjects]
    if old:
        check_arms(old, folder, [arms.keys() - lacking.keys() for lacking in not_run])
    for subject, lacking in zip(subjects, not_run, strict=True):
        possible = [(name, arm) for name, arm in arms.items() if name not in lacking]
        for name, why in lacking.items():
            logger.warning("%s: arm %s is left out: %s", subject.shown, name, why)
        if not possible:
            raise OptionError(f"{subject.path}: none of the arms {', '.join(arms)} can be run")
        runs += runs_of(subject, possible, question.seeds, precision, bench.folder)
    plan = Plan(runs=runs, not_run=not_run, subjects=subjects, bench=bench, device=device, precision=precision)
    if plan.missing:
        for subject in subjects:
            bench.decode(subject.recipe.seed)
    return plan


def forecast(plan: Plan, progress: Progress = silent) -> dict[tuple[str, str], float]:
    """Return (path of the archive, arm) -> the seconds that each of its missing students takes, from a few steps."""
    first = {(str(run.subject.path), run.name): run for run in reversed(plan.missing)}
    names = list(first)[::-1]
    return {
        name: expected_seconds(first[name], plan.device, PRECISIONS[plan.precision])
        for name in track(names, len(names), "Measure", progress)
    }


def check_alike(subjects: Sequence[Subject]) -> None:
    """Check that all archives are judged by the same images.

    Raises:
        OptionError: where no images are set apart, archives with different seeds hold out different ones.
    """
    parts = {tuple(part.provenance()["sha256"] for part in (s.source, s.held_out)) for s in subjects}
    if len(parts) > 1:
        raise OptionError(
            f"{subjects[0].source.name}: has no val/ or test/, and the archives were made with different seeds, which "
            "hold out different images: put some into val/, beside train/, or evaluate the archives one by one"
        )


def assembled(plan: Plan, question: Question, command: str) -> dict[str, Any]:
    """Return the report of a plan whose students are all kept."""
    results = [(run, kept(run) or {}) for run in plan.runs]
    facts = {
        "command": command,
        "date": date.today().isoformat(),
        "hardware": "; ".join(dict.fromkeys(value["hardware"] for _, value in results)),
        "device": str(plan.device),
        "precision": plan.precision,
        "versions": {package: version(package) for package in PACKAGES},
    }
    archives = [
        about(subject, [(run, value) for run, value in results if run.subject is subject], lacking)
        for subject, lacking in zip(plan.subjects, plan.not_run, strict=True)
    ]
    return heading(question, plan.subjects, facts) | {"archives": archives}


def card_of(path: Path) -> str:
    """Return the card that an archive holds, Markdown; empty if it holds none."""
    with Archive.open(path) as archive:
        return archive.read("card").decode() if "card" in archive else ""


def write(report: dict[str, Any], cards: Sequence[str], out: Path) -> None:
    """Write `report.json`, the same as text for where archives are shared and, with the extra `report`, a page."""
    write_text(out / REPORT, json.dumps(report, indent=1) + "\n")
    write_text(out / TEXT, markdown(report, cards))
    try:
        from hellods.display.page import page
    except ImportError:
        (out / PAGE).unlink(missing_ok=True)  # which would show another report
        logger.warning('no %s: it needs matplotlib and Jinja2; install them with: pip install "hellods[report]"', PAGE)
        return
    write_text(out / PAGE, page(report))


def write_text(file: Path, text: str) -> None:
    """Write a file whole."""
    with replacing(file, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
