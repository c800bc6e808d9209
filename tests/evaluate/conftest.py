"""A small archive, questions about it, and one whole evaluation."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hellods.evaluate import runs
from hellods.evaluate.bench import Bench
from hellods.evaluate.evaluate import evaluate
from hellods.evaluate.presets import Protocol
from hellods.evaluate.question import Question
from hellods.evaluate.subject import Subject, open_subject
from hellods.format.archive import Archive, write
from hellods.progress import silent


def rewritten(archive: Path, to: Path, *, without: tuple[str, ...] = (), **changes: Any) -> Path:
    """Write an archive like another one, with some sections left out and some of its header changed."""
    with Archive.open(archive) as old:
        kept = [section.name for section in old.header.sections if section.name not in without]
        write(to, replace(old.header, **changes), {name: old.read(name) for name in kept}, overwrite=True)
    return to


def ask(data: Path | str, **knobs: Any) -> Question:
    """Return a question that is answered soon."""
    return Question(data=str(data), **({"protocol": Protocol(epochs=2), "seeds": 1, "precision": "fp32"} | knobs))


def answered(paths: list[Path], question: Question, out: Path, **options: Any) -> dict[str, Any]:
    """Return the report of an evaluation, its page without plots."""
    page = SimpleNamespace(page=lambda report: f"<p>{len(report['archives'])} archives")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "hellods.display.page", page)
        return evaluate([str(path) for path in paths], question, out, **options)


@pytest.fixture(scope="session")
def bare_archive(digits_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images without a label maker, which is quick to open."""
    path = tmp_path_factory.mktemp("bare") / "bare.hello"
    return rewritten(digits_archive, path, without=("projector", "probe"), projector=None)


@pytest.fixture(scope="session")
def everything(few_digits: Path) -> Question:
    """All arms, two seeds."""
    return ask(few_digits, seeds=2, teacher="train:convnet3", allow_weak_teacher=True)


@pytest.fixture(scope="session")
def whole(digits_archive: Path, everything: Question, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the answer to it."""
    out = tmp_path_factory.mktemp("whole") / "report"
    answered([digits_archive], everything, out, command="hellods evaluate …")
    return out


@pytest.fixture(scope="session")
def subject(digits_archive: Path, everything: Question, whole: Path) -> Subject:
    bench = Bench(everything, torch.device("cpu"), whole / "runs", silent)
    return open_subject(str(digits_archive), everything, bench)


@pytest.fixture
def read(whole: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((whole / "report.json").read_text())
    return value


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the students that are trained from now on."""
    seeds: list[int] = []
    original = runs.learn

    def learn(lesson: Any, seed: int, *others: Any) -> Any:
        seeds.append(seed)
        return original(lesson, seed, *others)

    monkeypatch.setattr(runs, "learn", learn)
    return seeds
