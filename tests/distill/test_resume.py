"""A build that was killed goes on where it was, to the same bytes; what cannot be trusted is made anew."""

import logging
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hellods.distill import resume
from hellods.distill.build import build
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.resume import Work
from hellods.errors import HelloError
from hellods.progress import Progress

RECIPE = Recipe(
    images_per_class=2, candidates=15, teacher_epochs=2, teacher_stages=(1, 2), fit_views=512, fit_batch_size=16
)
MOMENTS = (
    ("Teacher", 7),
    ("Teacher", 18),
    ("Images", 4),
    ("Images", 10),
    ("Encode", 5),
    ("Projector", 1),
    ("Projector", 30),
    ("Quantize", 1),  # of two steps
)
SCRIPT = """
import os, signal, sys
import torch
from hellods import Inputs, Recipe, build
from hellods.distill import measure, resume

data, out, moment, recipe = sys.argv[1:]
resume.INTERVAL = 0.0
measure.SAMPLE = 200  # as in the other tests
torch.set_num_threads(1)

def die(stage, done, total):
    if f"{stage} {done}" == moment:
        os.kill(os.getpid(), signal.SIGKILL)

build(Inputs(data=data, allow_weak_teacher=True), eval(recipe), out=out, progress=die)
"""


@pytest.fixture(scope="module")
def whole(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive of a build that nothing stopped."""
    path = tmp_path_factory.mktemp("whole") / "x.hello"
    build(Inputs(data=str(few_digits), allow_weak_teacher=True), RECIPE, out=path)
    return path.read_bytes()


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state of every step, as a long stage keeps one now and then."""
    monkeypatch.setattr(resume, "INTERVAL", 0.0)


class StopError(Exception):
    pass


def until(stage: str, done: int, seen: dict[str, int] | None = None) -> Progress:
    """Return a callback that stops the build there, and notes the first report of every stage."""

    def stop(*report: str | int) -> None:
        if seen is not None:
            seen.setdefault(str(report[0]), int(report[1]))
        if report[:2] == (stage, done):
            raise StopError

    return stop


@pytest.mark.usefixtures("always")
def test_stopped_build_goes_on_where_it_was_and_ends_in_the_same_bytes(
    whole: bytes, few_digits: Path, tmp_path: Path
) -> None:
    inputs, out = Inputs(data=str(few_digits), allow_weak_teacher=True), tmp_path / "x.hello"
    began = []
    for moment in MOMENTS:
        began.append(dict[str, int]())
        with pytest.raises(StopError):
            build(inputs, RECIPE, out=out, progress=until(*moment, began[-1]))
        assert not out.exists()
    last = dict[str, int]()
    build(inputs, RECIPE, out=out, progress=until("never", 0, last))
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["x.hello"]
    assert [first["Teacher"] for first in began] == [0, 7, 18, 18, 18, 18, 18, 18]
    assert [first["Images"] for first in began[2:]] == [0, 4, 10, 10, 10, 10]
    assert [first["Projector"] for first in began[5:]] == [0, 1, 30]
    assert (last["Images"], last["Projector"], last["Quantize"]) == (10, 32, 1)


def run_and_kill(data: Path, out: Path, moment: str, seconds: float | None = None) -> int:
    command = [sys.executable, "-c", SCRIPT, str(data), str(out), moment, repr(RECIPE)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def test_killed_build_goes_on_to_the_same_bytes(whole: bytes, few_digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.hello"
    for moment in ("Teacher 11", "Projector 2", "Quantize 1"):
        assert run_and_kill(few_digits, out, moment) == -signal.SIGKILL
    build(Inputs(data=str(few_digits), allow_weak_teacher=True), RECIPE, out=out)
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["x.hello"]


@pytest.mark.slow
def test_build_killed_at_any_time_goes_on_to_the_same_bytes(whole: bytes, few_digits: Path, tmp_path: Path) -> None:
    out, chance = tmp_path / "x.hello", random.Random(0)
    seconds = 2.0
    while run_and_kill(few_digits, out, "never", seconds) != 0:
        seconds += chance.random()
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["x.hello"]


@pytest.mark.usefixtures("always")
def test_another_recipe_or_another_code_of_the_teacher_begins_anew(tmp_path: Path, few_digits: Path) -> None:
    code = "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), Head())\n"
    head = "class Head(torch.nn.Module):\n    def forward(self, x):\n        return x[:, :10] * {}\n"
    inputs = Inputs(data=str(few_digits), teacher=f"{tmp_path / 'net.py'}:net", allow_weak_teacher=True)
    recipe = replace(RECIPE, fit_views=128, assistant="none", teacher_stages=None, teacher_epochs=Recipe.teacher_epochs)

    def both(gain: int, recipe: Recipe) -> None:
        (tmp_path / "net.py").write_text(code + head.format(gain))
        again = build(inputs, recipe, out=tmp_path / "x.hello", overwrite=True)
        fresh = build(inputs, recipe, out=tmp_path / "fresh.hello", overwrite=True)
        assert again.content_id == fresh.content_id

    (tmp_path / "net.py").write_text(code + head.format(1))
    for gain, other in ((2, recipe), (2, replace(recipe, seed=1))):
        with pytest.raises(StopError):
            build(inputs, recipe, out=tmp_path / "x.hello", overwrite=True, progress=until("Images", 10))
        both(gain, other)


@pytest.mark.usefixtures("always")
def test_stopped_assistant_goes_on_where_it_was(few_digits: Path, tmp_path: Path) -> None:
    code = "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
    (tmp_path / "net.py").write_text(code.replace("    return", "    torch.manual_seed(0)\n    return"))
    inputs = Inputs(data=str(few_digits), teacher=f"{tmp_path / 'net.py'}:net", allow_weak_teacher=True)
    first = dict[str, int]()
    for moment in (("Assistant", 7), ("Images", 10)):
        with pytest.raises(StopError):
            build(inputs, RECIPE, out=tmp_path / "x.hello", progress=until(*moment))
    stopped = build(inputs, RECIPE, out=tmp_path / "x.hello", progress=until("never", 0, first))
    assert first["Assistant"] == 18
    assert sorted(path.name for path in tmp_path.glob("*hello*")) == ["x.hello"]
    assert stopped.content_id == build(inputs, RECIPE, out=tmp_path / "whole.hello").content_id


def state() -> dict[str, Tensor]:
    return {"done": torch.tensor(3), "weight": torch.arange(6.0).view(2, 3), "empty": torch.zeros(0)}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder where a stage was kept."""
    Work(tmp_path / "x.hello", {"seed": 0}).stage("teacher").save(3, 3, state)
    return tmp_path


def test_stage_gives_back_what_it_kept(kept: Path) -> None:
    stage = Work(kept / "x.hello", {"seed": 0}).stage("teacher")
    assert stage.done == 3
    assert all(torch.equal(stage.state[name], value) for name, value in state().items())


def test_stage_of_other_facts_begins_anew_and_says_which(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hellods")
    work = Work(kept / "x.hello", {"seed": 1}).given(taught="by")
    assert (work.stage("teacher").state, work.stage("teacher").done) == ({}, 0)
    assert "safetensors: of another build (seed, taught), so this stage begins anew" in caplog.text
    work.stage("teacher").save(1, 1, state)
    assert Work(kept / "x.hello", {"seed": 0}).stage("teacher").done == 3  # it lost nothing


def bent(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("damage", [bent, lambda content: content[:-1], lambda content: b"", lambda content: b"x" * 99])
def test_damaged_stage_begins_anew_and_says_so(
    kept: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hellods")
    (file,) = (kept / ".x.hello.build").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert Work(kept / "x.hello", {"seed": 0}).stage("teacher").state == {}
    assert "damaged, so this stage begins anew" in caplog.text


def test_stage_is_written_at_its_end_and_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stage, written = Work(tmp_path / "x.hello", {}).stage("projector"), []
    for done in range(1, 101):
        now += 1
        stage.save(done, 100, state)
        if stage.file.exists():
            written.append(done)
            stage.file.unlink()
    assert written == [30, 60, 90, 100]


def test_stage_that_cannot_be_written_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".x.hello.build").write_text("mine")
    Work(tmp_path / "x.hello", {}).stage("teacher").save(1, 1, state)
    assert "the next begins this stage anew" in caplog.text


def test_builds_to_one_archive_wait_for_each_other_or_have_other_names(few_digits: Path, tmp_path: Path) -> None:
    inputs, out = Inputs(data=str(few_digits), allow_weak_teacher=True), tmp_path / "x.hello"
    refused = []

    def second(stage: str, done: int, total: int) -> None:
        if (stage, done) in (("Base model", 0), ("Projector", 1)):
            with pytest.raises(HelloError, match=r"x\.hello: another build is at work on it") as found:
                build(inputs, replace(RECIPE, seed=1), out=out)
            refused.append(found)

    build(inputs, RECIPE, out=out, progress=second)
    assert len(refused) == 2
    build(inputs, RECIPE, out=out, overwrite=True)  # nobody is at work any more
    assert [path.name for path in tmp_path.iterdir()] == ["x.hello"]


def test_name_that_leaves_no_room_for_what_is_kept_is_refused(few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(HelloError, match="cannot be made: File name too long: give another name"):
        build(Inputs(data=str(few_digits)), RECIPE, out=tmp_path / f"{'x' * 244}.hello")


def test_what_a_build_that_fails_keeps_is_said_and_what_another_one_did_is_not(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(seed: int, steps: int) -> None:
        with Work(kept / "x.hello", {"seed": seed}) as work:
            for part, name in ((work, "teacher"), (work.given(taught="by"), "images")):
                stage = part.stage(name)
                if steps:
                    stage.save(steps, steps, state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(1, 0)
    assert not caplog.messages
    with pytest.raises(KeyboardInterrupt):
        fail(1, 1)
    folder = kept / ".x.hello.build"
    assert caplog.messages == [
        f"{folder} keeps what was done (teacher, images; 0 MB): the same build goes on from there. Delete it where "
        "that is not wanted"
    ]


def test_nothing_of_the_users_is_removed(kept: Path) -> None:
    folder = kept / ".x.hello.build"
    (folder / "notes.txt").write_text("mine")
    (folder / ".0123456789abcdef.tmp").write_text("what a kill left")
    Work(kept / "x.hello", {}).remove()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
