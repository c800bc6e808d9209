"""A whole evaluation: no student is trained twice, reports are not lost, archives stand side by side."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hellods.distill.recipe import Recipe
from hellods.errors import HelloError, LabelError, OptionError, SourceError
from hellods.evaluate import bench, evaluate, runs, student
from hellods.evaluate.evaluate import card_of, forecast, prepare
from hellods.evaluate.question import Question
from hellods.progress import silent
from hellods.sources import source as sources

from .conftest import answered, ask, rewritten

# None is trained twice.


def test_what_is_finished_is_not_done_again(
    whole: Path, digits_archive: Path, everything: Question, read: dict[str, Any], taught: list[int], tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "copy")
    again = answered([digits_archive], everything, tmp_path / "copy", command="hellods evaluate …")
    assert (taught, again) == ([], read | {"date": again["date"]})


def test_a_teacher_that_was_trained_is_kept_for_the_next_time(
    whole: Path, digits_archive: Path, everything: Question, read: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the teacher is trained again")

    monkeypatch.setattr(bench, "train_teacher", refuse)
    plan = prepare([str(digits_archive)], everything, whole)
    assert plan.missing == []
    assert plan.subjects[0].teacher is not None
    assert plan.subjects[0].teacher.provenance()["sha256"] == read["teacher"]["sha256"]


def test_teacher_is_trained_to_the_end_where_the_stages_are_those_of_an_assistant(
    everything: Question, whole: Path
) -> None:
    at_hand = bench.Bench(everything, torch.device("cpu"), whole / "runs", silent, train=False)
    assisted = Recipe(assistant="convnet3", teacher_epochs=2, teacher_stages=(1,))
    assert at_hand.teacher(assisted, 32) is at_hand.teacher(Recipe(teacher_epochs=2), 32)


def test_teacher_that_sees_images_mirrored_is_another_one(everything: Question, whole: Path) -> None:
    at_hand = bench.Bench(everything, torch.device("cpu"), whole / "runs", silent, train=False)
    as_they_are, mirrored = (at_hand.teacher(Recipe(teacher_epochs=2, flip=flip), 32) for flip in (False, True))
    assert as_they_are is not mirrored


def test_archives_whose_training_is_the_same_have_one_teacher(everything: Question, whole: Path) -> None:
    at_hand = bench.Bench(everything, torch.device("cpu"), whole / "runs", silent, train=False)
    old, new, early = (Recipe(teacher_epochs=2, teacher_stages=stages) for stages in (None, (2,), (1, 2)))
    assert at_hand.teacher(old, 32) is at_hand.teacher(new, 32)
    average = at_hand.teacher(early, 32)
    assert average is not None
    assert average[0].provenance()["networks"] == 2


def test_no_image_is_decoded_where_every_student_is_at_hand(
    bare_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(few_digits, arms=("hard", "full"))
    first = answered([bare_archive], question, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.delattr(sources, "decode")
        again = answered([bare_archive], question, tmp_path / "out")
    assert again == first | {"date": again["date"]}


def test_an_image_that_broke_since_is_named_before_a_student_is_trained_on(
    bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(few_digits, tmp_path / "data"))
    answered([bare_archive], ask(data, arms=("hard",)), tmp_path / "out")
    (data / "train" / "3" / "00.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"train/3/00\.png"):
        answered([bare_archive], ask(data, arms=("full",)), tmp_path / "out", overwrite=True)
    (data / "val" / "3" / "03.png").write_bytes(b"no image")  # what students are judged by
    with pytest.raises(SourceError, match=r"/3/0[03]\.png"):
        answered([bare_archive], ask(data, arms=("hard",)), tmp_path / "out", overwrite=True)


def test_what_was_refused_is_refused_where_students_are_kept(
    bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(few_digits, tmp_path / "data"))
    question = ask(data, arms=("hard",))
    answered([bare_archive], question, tmp_path / "out")
    with pytest.raises(SourceError, match=r"is not what .* was made from"):
        answered([bare_archive], replace(question, data=str(data / "train")), tmp_path / "out")
    (data / "train" / "9").rename(data / "train" / "nine")
    (data / "val" / "9").rename(data / "val" / "nine")
    with pytest.raises(SourceError, match="no images of 9"):
        answered([bare_archive], question, tmp_path / "out")


def test_students_learn_on_a_device_whatever_torch_s_default(
    accelerator: str, digits_archive: Path, everything: Question, tmp_path: Path
) -> None:
    few = replace(everything, arms=("hello", "teacher", "stored-1x"), seeds=1, device=accelerator)
    with torch.device("meta"):
        report = answered([digits_archive], few, tmp_path / "report")
    assert set(report["archives"][0]["arms"]) == {"hello", "teacher", "stored-1x"}


def test_another_teacher_is_another_one(whole: Path, digits_archive: Path, everything: Question) -> None:
    dark = replace(everything, teacher_mean=(0.0, 0.0, 0.0), arms=("teacher", "hard"))
    with pytest.raises(HelloError, match="answers another question, with another teacher: "):
        prepare([str(digits_archive)], replace(dark, arms=everything.arms), whole)
    plan = prepare([str(digits_archive)], dark, whole, overwrite=True)
    assert [run.name for run in plan.missing] == ["teacher", "teacher"]


def test_a_student_that_does_not_learn_is_named_by_its_arm(
    bare_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "criterion", lambda protocol, logits, *others: logits.sum() * float("nan"))
    question = ask(few_digits, arms=("hard",))
    with pytest.raises(OptionError, match=r"^bare\.hello: arm hard, seed 0: .* the loss is .*or leave this arm out"):
        answered([bare_archive], question, tmp_path / "out")


def test_students_of_two_machines_are_told_apart(
    bare_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(few_digits, seeds=3, arms=("hard",))
    for seeds, machine in ((1, "abacus"), (3, "slide rule")):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "processor", lambda machine=machine: machine)
            found = answered([bare_archive], replace(question, seeds=seeds), tmp_path / "out", overwrite=True)
    assert [part.partition(",")[0] for part in found["hardware"].split("; ")] == ["abacus", "slide rule"]


def test_an_interrupted_evaluation_goes_on_and_ends_alike(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(few_digits, seeds=2, arms=("hard", "full"))
    reference = answered([bare_archive], question, tmp_path / "reference")
    assert taught == [0, 1, 0, 1]
    finish = evaluate.finish
    with monkeypatch.context() as patch:

        def interrupted(*arguments: Any) -> Any:
            if len(taught) == 6:
                raise KeyboardInterrupt
            return finish(*arguments)

        patch.setattr(evaluate, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            answered([bare_archive], question, tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
    found = answered([bare_archive], question, tmp_path / "out")
    assert taught[6:] == [0, 1]
    for name, value in reference["archives"][0]["arms"].items():
        assert found["archives"][0]["arms"][name]["accuracy"] == value["accuracy"]
        assert found["archives"][0]["arms"][name]["curves"] == value["curves"]


def test_students_and_teachers_of_another_code_are_not_taken(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(few_digits, arms=("teacher",), teacher="train:convnet3", allow_weak_teacher=True)
    answered([bare_archive], question, tmp_path)
    for module in ("runs", "bench"):
        monkeypatch.setattr(f"hellods.evaluate.{module}.software", lambda: {"hellods": "another"})
    answered([bare_archive], question, tmp_path)
    assert taught == [0, 0]
    assert len(list((tmp_path / "runs").glob("teacher-*.safetensors"))) == 2


def test_students_of_a_teacher_whose_code_imports_another_are_not_taken(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NET)
    question = ask(few_digits, arms=("teacher",), teacher=f"{tmp_path / 'net.py'}:net", allow_weak_teacher=True)
    for sign in (1.0, -1.0):
        (tmp_path / "hellods_test_sign.py").write_text(f"SIGN = {sign}\n")
        answered([bare_archive], question, tmp_path / "out", overwrite=True)
    assert taught == [0, 0]
    (tmp_path / "hellods_test_sign.py").write_text("SIGN = 1.0\n")
    with pytest.raises(HelloError, match="answers another question, with another teacher: "):
        answered([bare_archive], question, tmp_path / "out")


NET = """
import torch
from hellods_test_sign import SIGN

class Net(torch.nn.Module):
    def forward(self, images):
        return SIGN * images.mean((1, 2, 3))[:, None] * torch.arange(10)

def net():
    return Net()
"""


def test_arm_that_cannot_be_run_any_more_is_not_lost(
    digits_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(few_digits, arms=("hello", "hard"), allow_weak_teacher=True)
    answered([digits_archive], question, tmp_path)

    def missing(*arguments: object) -> None:
        raise LabelError("its base model is missing")

    monkeypatch.setattr("hellods.evaluate.subject.get_maker", missing)
    with pytest.raises(HelloError, match="with the arms hello, which cannot be run now: "):
        answered([digits_archive], question, tmp_path)


def test_more_arms_and_seeds_are_added_to_a_report(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path
) -> None:
    answered([bare_archive], ask(few_digits, arms=("hard",)), tmp_path / "out")
    found = answered([bare_archive], ask(few_digits, arms=("hard", "full"), seeds=2), tmp_path / "out")
    assert sorted(taught) == [0, 0, 1, 1]
    assert list(found["archives"][0]["arms"]) == ["hard", "full"]


def test_a_run_that_another_process_finished_meanwhile_is_not_redone(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(few_digits, seeds=2, arms=("hard",))
    finish = evaluate.finish

    def both(run: Any, *others: Any) -> Any:
        other = replace(run, seed=1 - run.seed)  # stands for what the other process does
        (other,) = [one for one in prepare([str(bare_archive)], question, tmp_path / "out").runs if one.seed == 1]
        finish(other, *others)
        return finish(run, *others)

    monkeypatch.setattr(evaluate, "finish", both)
    answered([bare_archive], question, tmp_path / "out")
    assert sorted(taught) == [0, 1]


def test_a_damaged_run_is_named(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    question = ask(few_digits, arms=("hard",))
    answered([bare_archive], question, tmp_path / "out")
    (file,) = (tmp_path / "out" / "runs").iterdir()
    file.write_text("{")
    with pytest.raises(HelloError, match=rf"{file.name}: not the outcome of this run .*delete it to train"):
        answered([bare_archive], question, tmp_path / "out")


def test_progress_counts_the_views_of_all_students(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    question = ask(few_digits, arms=("hard", "full"))
    answered([bare_archive], question, tmp_path, progress=lambda *call: calls.append(call))
    done = [call for call in calls if call[0] == "Students"]
    assert (done[0], done[-1]) == (("Students", 0, 80), ("Students", 80, 80))
    assert done == sorted(done)


# Where the report goes.


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["archives"][0].update(content_id="0"),
        lambda value: value["archives"][0]["protocol"].update(student="resnet18"),
        lambda value: value["archives"][0]["protocol"].update(epochs=3),
        lambda value: value["archives"].append(value["archives"][0]),
        lambda value: value["archives"][0]["arms"].update(more={}),
        lambda value: value.update(seeds=[0, 1]),
        lambda value: value.update(precision="bf16"),
        lambda value: value.update(format="hellods-report 9"),
        lambda value: value.clear(),
    ],
    ids=["archive", "student", "epochs", "archives", "an arm more", "a seed more", "precision", "format", "not ours"],
)
def test_the_report_of_another_question_is_not_replaced_unless_told_to(
    change: Callable[[dict[str, Any]], None], read: dict[str, Any], bare_archive: Path, digits_archive: Path,
    few_digits: Path, tmp_path: Path,
) -> None:  # fmt: skip
    change(read)
    (tmp_path / "report.json").write_text(json.dumps(read))
    with pytest.raises(
        HelloError, match=r"report\.json: exists already and answers another question.*: .*`overwrite=True`"
    ):
        prepare([str(digits_archive)], ask("no such folder"), tmp_path)
    prepare([str(bare_archive)], ask(few_digits, arms=("hard",)), tmp_path, overwrite=True)


@pytest.mark.parametrize("paths", ["x.hello", []])
def test_archives_are_named_in_a_list(paths: Any, few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected one archive or more in a list"):
        prepare(paths, ask(few_digits, arms=("hard",)), tmp_path)


def test_an_archive_is_named_once(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="an archive is named twice"):
        prepare([str(bare_archive), os.path.relpath(bare_archive)], ask(few_digits, arms=("hard",)), tmp_path)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_page_or_text_without_a_report_is_not_replaced_unless_told_to(
    name: str, bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        HelloError, match=rf"{name}: exists already, without report\.json beside it: .*`overwrite=True`"
    ):
        prepare([str(bare_archive)], ask(few_digits, arms=("hard",)), tmp_path)
    prepare([str(bare_archive)], ask(few_digits, arms=("hard",)), tmp_path, overwrite=True)


def test_a_report_is_replaced_when_told_to(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("mine")
    answered([bare_archive], ask(few_digits, arms=("hard",)), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "report.json").read_text())["archives"][0]["file"] == "bare.hello"


def test_a_target_that_is_no_folder_or_not_writable_is_refused_before_any_work(
    bare_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HelloError, match="file: is not a folder: give another `out`"):
            prepare([str(bare_archive)], ask("no such folder"), out)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(HelloError, match="this folder is not writable"):
        prepare([str(bare_archive)], ask("no such folder"), tmp_path / "new" / "report")


# Several archives, and plans.


def test_archives_stand_side_by_side_and_share_what_they_can(
    bare_archive: Path, digits_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    opened: list[str] = []
    original = bench.open_source
    monkeypatch.setattr(bench, "open_source", lambda where, seed: opened.append(where) or original(where, seed=seed))
    found = answered([bare_archive, digits_archive], ask(few_digits, arms=("hard", "full")), tmp_path)
    assert [archive["file"] for archive in found["archives"]] == ["bare.hello", "digits.hello"]
    assert len(taught) == 3  # all real images are learned once
    assert len(opened) == 1
    first, second = (archive["arms"]["full"]["accuracy"] for archive in found["archives"])
    assert first == second


def test_archives_of_one_name_are_told_apart_by_their_folders(
    bare_archive: Path, digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / "a" / "x.hello", tmp_path / "b" / "x.hello", tmp_path / "y.hello"]
    for path, archive in zip(paths, (bare_archive, digits_archive, bare_archive), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(archive.read_bytes())
    plan = prepare([*map(str, paths)], ask(few_digits, arms=("hard",)), tmp_path / "out")
    assert [subject.shown for subject in plan.subjects] == [str(paths[0]), str(paths[1]), "y.hello"]


def test_a_plan_trains_and_writes_nothing(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path
) -> None:
    stages: set[str] = set()
    question = ask(few_digits, arms=("hard", "teacher"), seeds=2, teacher="train:convnet3")
    plan = prepare(
        [str(bare_archive)], question, tmp_path / "out", train=False, progress=lambda *call: stages.add(call[0])
    )
    assert [(run.name, run.seed) for run in plan.missing] == [("teacher", 0), ("teacher", 1), ("hard", 0), ("hard", 1)]
    assert plan.subjects[0].teacher_accuracy is None
    assert "Teacher" not in stages
    seconds = forecast(plan)
    assert set(seconds) == {(str(bare_archive), "teacher"), (str(bare_archive), "hard")}
    assert min(seconds.values()) > 0
    assert [taken > 0 for taken in plan.bench.training()] == [True]
    assert taught == []
    assert not (tmp_path / "out").exists()


def test_a_plan_takes_the_teacher_that_is_kept(whole: Path, digits_archive: Path, everything: Question) -> None:
    plan = prepare(
        [str(digits_archive)], replace(everything, arms=("teacher",), seeds=3), whole, overwrite=True, train=False
    )
    assert [run.seed for run in plan.missing] == [2]
    assert plan.bench.training() == []


def test_what_is_kept_is_not_forecast(whole: Path, digits_archive: Path, everything: Question) -> None:
    plan = prepare([str(digits_archive)], replace(everything, seeds=3, arms=("hard", "full")), whole, overwrite=True)
    assert [(run.name, run.seed) for run in plan.missing] == [("hard", 2), ("full", 2)]
    longer = prepare([str(digits_archive)], replace(everything, arms=("hard",)), whole, overwrite=True)
    assert forecast(longer) == {}


def test_results_are_said_as_they_come(
    bare_archive: Path, few_digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hellods")
    answered([bare_archive], ask(few_digits, arms=("hard",)), tmp_path)
    assert any(message.startswith("bare.hello: hard, seed 0: ") for message in caplog.messages)


@pytest.mark.parametrize("without", [(), ("card",)])
def test_card_is_that_of_the_file_or_none(digits_archive: Path, without: tuple[str, ...], tmp_path: Path) -> None:
    path = rewritten(digits_archive, tmp_path / "one.hello", without=without)
    assert card_of(path).startswith("" if without else "# few")
    assert bool(card_of(path)) is not bool(without)
