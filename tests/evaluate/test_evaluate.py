"""A whole evaluation: every number follows from kept runs, none is made twice, and what does not fit is refused."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hellods.distill.sources import open_source
from hellods.errors import FormatError, HelloError, RecipeError, SourceError
from hellods.evaluate import bench, evaluate, report, runs, subject
from hellods.evaluate.arms import ARMS
from hellods.evaluate.evaluate import forecast, prepare
from hellods.evaluate.presets import Protocol
from hellods.evaluate.question import Question
from hellods.format.archive import Archive, image_sections, write
from hellods.format.codecs import encode

from .conftest import answered, ask, rewritten


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


def shared_folder(few_digits: Path, to: Path, *, leave: str = "") -> Path:
    """Copy the digits, but for one class."""
    return Path(shutil.copytree(few_digits, to, ignore=shutil.ignore_patterns(leave) if leave else None))


# The report.


def test_every_arm_runs(read: dict[str, Any]) -> None:
    (archive,) = read["archives"]
    assert (list(archive["arms"]), archive["not_run"]) == (list(ARMS), {})


def test_report_knows_its_archive_and_its_question(read: dict[str, Any], digits_archive: Path) -> None:
    (archive,) = read["archives"]
    with Archive.open(digits_archive) as opened:
        assert archive["content_id"] == opened.content_id
    facts = ("file", "images", "images_per_class", "side", "steps", "same_data", "same_teacher", "student_parameters")
    assert [archive[name] for name in facts] == ["digits.hello", 20, 2, 32, 4, True, True, 320_010]
    assert (read["seeds"], read["precision"], read["device"]) == ([0, 1], "fp32", "cpu")
    assert (read["data"]["images"], read["data"]["held_out"]["images"]) == (150, 50)
    assert read["teacher"] == archive["teacher"]
    assert read["teacher"]["architecture"] == "convnet3"
    assert read["command"] == "hellods evaluate …"
    assert set(read["versions"]) == {"hellods", "torch", "torchvision", "open_clip_torch", "timm"}


def test_every_number_of_an_arm_follows_from_the_kept_runs(
    read: dict[str, Any], whole: Path, digits_archive: Path, everything: Question
) -> None:
    plan = prepare([str(digits_archive)], everything, whole)
    for name, arm in read["archives"][0]["arms"].items():
        values = [json.loads(run.file.read_text()) for run in plan.runs if run.name == name]
        outcomes = [value["outcome"] for value in values]
        assert len(outcomes) == 2
        last = [o["accuracy"] for o in outcomes]
        best = [max(o["curve"]) for o in outcomes]
        assert arm["accuracy"]["last"] == {
            "mean": pytest.approx(mean(last), abs=1e-6), "std": pytest.approx(stdev(last), abs=1e-6), "values": last,
        }  # fmt: skip
        assert arm["accuracy"]["best"]["values"] == best
        for o, epoch in zip(outcomes, arm["accuracy"]["best"]["epochs"], strict=True):
            assert dict(zip(o["epochs"], o["curve"], strict=True))[epoch] == max(o["curve"])
        assert arm["per_class"] == pytest.approx(
            [mean(pair) for pair in zip(*(o["per_class"] for o in outcomes), strict=True)], abs=1e-6
        )
        assert [c["accuracy"] for c in arm["curves"]] == [o["curve"] for o in outcomes]
        assert [c["loss"] for c in arm["curves"]] == [o["losses"] for o in outcomes]
        assert arm["bytes"] == {
            part: round(mean(v["bytes"][part] for v in values)) for part in ("images", "labels", "rest")
        }
        for part in ("views", "student"):
            assert arm["seconds_per_epoch"][part] == pytest.approx(
                mean(o["seconds"][part] for o in outcomes) / 2, abs=1e-6
            )
        assert arm["flops_per_epoch"]["student"] == outcomes[0]["flops"]["student"] * 20
        if outcomes[0]["fidelity"] is None:
            assert arm["fidelity"] is None
        else:
            for fact in ("agreement", "entropy", "calibration_error"):
                assert arm["fidelity"][fact] == pytest.approx(mean(o["fidelity"][fact] for o in outcomes), abs=1e-6)
            assert arm["fidelity"]["kl"]["4"] == pytest.approx(
                mean(o["fidelity"]["kl"]["4"] for o in outcomes), abs=1e-6
            )


def test_the_teachers_own_labels_agree_with_it(read: dict[str, Any]) -> None:
    arms = read["archives"][0]["arms"]
    assert arms["teacher"]["fidelity"]["agreement"] == arms["random-teacher"]["fidelity"]["agreement"] == 1.0
    assert arms["hard"]["fidelity"] is arms["full"]["fidelity"] is None


def test_a_student_that_is_sent_its_labels_makes_none(read: dict[str, Any]) -> None:
    arms = read["archives"][0]["arms"]
    for name, arm in arms.items():
        makes = ARMS[name].labels != "truth" and not ARMS[name].stored
        assert (arm["seconds_per_epoch"]["labels"] > 0, arm["flops_per_epoch"]["labels"] > 0) == (makes, makes)


def test_only_the_archives_labels_need_the_public_base_model(read: dict[str, Any]) -> None:
    (archive,) = read["archives"]
    assert {name for name, arm in archive["arms"].items() if arm["needs_base"]} == {"hello", "random-hello"}
    assert (archive["base"]["name"], archive["base"]["bytes"] > 2_000_000) == ("hello-tiny", True)


def test_scores_are_differences_of_the_arms(read: dict[str, Any]) -> None:
    (archive,) = read["archives"]
    pairs = {
        "hlr": ("full", "hard"),
        "ior_hello": ("hello", "random-hello"),
        "ior_teacher": ("teacher", "random-teacher"),
    }
    for score, (first, second) in pairs.items():
        a, b = (archive["arms"][name]["accuracy"]["last"]["mean"] for name in (first, second))
        assert archive["scores"][score]["mean"] == pytest.approx(a - b, abs=2e-6)


def arm(*values: float) -> dict[str, Any]:
    return {"accuracy": {"last": report.spread(values)}}


def test_scores_pair_the_seeds() -> None:
    arms = {"full": arm(0.8, 0.6), "hard": arm(0.5, 0.4), "hello": arm(0.5, 0.5), "random-hello": arm(0.7, 0.3)}
    found = report.scores(arms)
    assert found["hlr"] == {"mean": 0.25, "std": pytest.approx(stdev([0.3, 0.2]), abs=1e-6)}
    assert found["ior_hello"] == {"mean": 0.0, "std": pytest.approx(stdev([-0.2, 0.2]), abs=1e-6)}
    assert found["ior_teacher"] is None


def test_one_seed_has_no_spread() -> None:
    assert report.spread([0.5]) == {"mean": 0.5, "std": None, "values": [0.5]}


def test_report_is_plain_json(whole: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((whole / "report.json").read_text(), parse_constant=refuse)


def test_page_is_written_beside_it(whole: Path) -> None:
    assert (whole / "report.html").read_text() == "<p>1 archives"


def test_without_matplotlib_the_numbers_are_written_and_a_note_says_what_lacks(
    whole: Path, read: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "hellods.evaluate.page", None)
    evaluate.write(read, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert 'pip install "hellods[report]"' in caplog.text


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
    def refuse(*arguments: object) -> None:
        raise AssertionError("the teacher is trained again")

    monkeypatch.setattr(bench, "get_teacher", refuse)
    plan = prepare([str(digits_archive)], everything, whole)
    assert plan.missing == []
    assert plan.subjects[0].teacher is not None
    assert plan.subjects[0].teacher.provenance()["sha256"] == read["teacher"]["sha256"]


def test_another_teacher_is_another_one(whole: Path, digits_archive: Path, everything: Question) -> None:
    dark = replace(everything, teacher_mean=(0.0, 0.0, 0.0), arms=("teacher", "hard"))
    plan = prepare([str(digits_archive)], dark, whole)
    assert [run.name for run in plan.missing] == ["teacher", "teacher"]


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
    with pytest.raises(FormatError, match=rf"{file.name}: not the outcome of this run .*take it away to make it anew"):
        answered([bare_archive], question, tmp_path / "out")


def test_progress_counts_the_views_of_all_students(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    question = ask(few_digits, arms=("hard", "full"))
    answered([bare_archive], question, tmp_path, progress=lambda *call: calls.append(call))
    done = [call for call in calls if call[0] == "Students"]
    assert (done[0], done[-1]) == (("Students", 0, 80), ("Students", 80, 80))
    assert done == sorted(done)


# What cannot be run is left out, and said.


def test_without_a_teacher_its_arms_are_left_out_and_the_rest_runs(
    digits_archive: Path, few_digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    question = ask(few_digits, arms=("hello", "teacher", "shipped", "stored", "hard"))
    (archive,) = answered([digits_archive], question, tmp_path)["archives"]
    assert list(archive["arms"]) == ["hello", "hard"]
    assert set(archive["not_run"]) == {name for name in ARMS if name.startswith(("teacher", "shipped", "stored"))}
    assert archive["not_run"]["teacher"] == "needs the teacher: give --teacher (the archive was made with 'convnet3')"
    assert "digits.hello: arm teacher is left out: needs the teacher" in caplog.text
    assert (archive["teacher"], archive["same_teacher"]) == (None, None)
    fidelity = archive["arms"]["hello"]["fidelity"]
    assert (fidelity["agreement"], fidelity["kl"]) == (None, None)
    assert fidelity["entropy"] > 0


def test_without_a_label_maker_its_arms_are_left_out(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    plan = prepare([str(bare_archive)], ask(few_digits), tmp_path)
    lacking = plan.not_run[0]
    assert {name for name, why in lacking.items() if why == "the archive holds no label maker"} == {
        "hello", "random-hello",
    }  # fmt: skip
    assert [run.name for run in plan.runs] == ["hard", "full"]


def test_without_its_base_model_the_label_maker_is_left_out_and_says_how_to_bring_it(
    digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    with Archive.open(digits_archive) as archive:
        projector = dict(archive.header.projector or {}) | {"base": "given:mine"}
    path = rewritten(digits_archive, tmp_path / "given.hello", projector=projector)
    plan = prepare([str(path)], ask(few_digits, arms=("hello", "hard")), tmp_path)
    assert "give it as --base local-dir:FOLDER" in plan.not_run[0]["hello"]
    assert [run.name for run in plan.runs] == ["hard"]


def test_with_too_few_real_images_random_ones_are_left_out(
    digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    data = shared_folder(few_digits, tmp_path / "data")
    for file in sorted((data / "train" / "3").iterdir())[1:]:
        file.unlink()
    plan = prepare([str(digits_archive)], ask(data, arms=("hello", "random-hello", "full")), tmp_path / "out")
    assert plan.not_run == [{"random-hello": "class '3' has 1 real images, and 2 are needed"}]


def test_when_nothing_can_be_run_the_arms_are_named(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"bare\.hello: none of the arms hello, teacher can be run"):
        prepare([str(bare_archive)], ask(few_digits, arms=("hello", "teacher")), tmp_path)


# What does not fit is refused.


def refused(archive: Path, data: Path | str, out: Path, **knobs: Any) -> str:
    with pytest.raises(HelloError) as error:
        prepare([str(archive)], ask(data, **({"arms": ("hard",)} | knobs)), out)
    assert not out.exists()
    return str(error.value)


def test_missing_and_unknown_classes_are_named(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    data = shared_folder(few_digits, tmp_path / "data", leave="7")
    assert f"data: no images of 7, classes of {bare_archive}" in refused(bare_archive, data, tmp_path / "out")
    more = shared_folder(few_digits, tmp_path / "more")
    for split in ("train", "val"):
        shutil.copytree(more / split / "1", more / split / "ten")
    assert f"more: classes that {bare_archive} does not know: ten" in refused(bare_archive, more, tmp_path / "out")


def test_a_class_that_only_one_split_has_is_named(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    data = shared_folder(few_digits, tmp_path / "data")
    shutil.rmtree(data / "val" / "4")
    assert "val: lacks 4 of " in refused(bare_archive, data, tmp_path / "out")


def test_classes_in_another_order_are_refused(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    path = rewritten(bare_archive, tmp_path / "other.hello", classes=tuple("1023456789"))
    message = refused(path, few_digits, tmp_path / "out")
    assert message.startswith(f"few_digits: class 0 is '0', in {path} it is '1'; rename the folders")


def knowing(data: Path) -> Callable[..., Any]:
    """Return what stands for reading an archive's label maker: one that knows every one of these images."""
    source, held_out = open_source(str(data))
    classes = {
        part.image(i).numpy().tobytes(): int(part.targets[i]) for part in (source, held_out) for i in range(len(part))
    }

    def maker(images: Tensor) -> Tensor:
        return F.one_hot(torch.tensor([classes[image.numpy().tobytes()] for image in images]), 10).float()

    return lambda *arguments: (maker, None)


@pytest.fixture(scope="module")
def more_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few_digits, with 60 of each class held out."""
    from sklearn.datasets import load_digits

    folder, data = tmp_path_factory.mktemp("more") / "more_digits", load_digits()
    for label in range(10):
        for number, pixels in enumerate(data.images[data.target == label][:65]):
            file = folder / ("train" if number < 5 else "val") / str(label) / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255 / 16).astype("uint8")).resize((32, 32)).save(file)
    return folder


def swap(folder: Path, first: str, second: str) -> None:
    (folder / first).rename(folder / "kept")
    (folder / second).rename(folder / first)
    (folder / "kept").rename(folder / second)


def test_images_of_two_classes_swapped_are_noticed(
    digits_archive: Path, more_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "get_maker", knowing(more_digits))
    data = Path(shutil.copytree(more_digits, tmp_path / "data"))
    prepare([str(digits_archive)], ask(data, arms=("hello",)), tmp_path / "out")
    swap(data / "val", "3", "5")
    message = refused(digits_archive, data, tmp_path / "out", arms=("hello",))
    assert message.startswith("data: label maker and data have their classes in different orders: '3' is called '5'")


def test_real_images_help_where_few_are_held_out(
    digits_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "get_maker", knowing(few_digits))
    data = shared_folder(few_digits, tmp_path / "data")
    for split in ("train", "val"):
        swap(data / split, "3", "5")
    assert "different orders" in refused(digits_archive, data, tmp_path / "out", arms=("hello",))


def test_a_folder_without_val_that_was_not_distilled_is_refused(
    bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    message = refused(bare_archive, few_digits / "train", tmp_path / "out")
    assert message.startswith(f"train: has no val/ or test/, and is not what {bare_archive} was made from")


def test_digits_that_were_not_distilled_are_refused_too(bare_archive: Path, tmp_path: Path) -> None:
    assert "is not what" in refused(bare_archive, "digits", tmp_path / "out")


def distilled(archive: Path, to: Path, data: Path, seed: int = 0) -> Path:
    """Return an archive that says it was made from this folder with this seed."""
    source, _ = open_source(str(data), seed=seed)
    with Archive.open(archive) as opened:
        recipe = opened.header.recipe | {"seed": seed}
    return rewritten(archive, to, source=source.provenance(), recipe=recipe)


def test_the_folder_that_was_distilled_needs_no_val(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    path = distilled(bare_archive, tmp_path / "own.hello", few_digits / "train", seed=3)
    plan = prepare([str(path)], ask(few_digits / "train", arms=("hard",)), tmp_path / "out")
    assert (len(plan.subjects[0].source), len(plan.subjects[0].held_out)) == (120, 30)


def test_a_class_without_held_out_images_is_refused(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(few_digits / "train", tmp_path / "data"))
    for file in sorted((data / "6").iterdir())[1:]:
        file.unlink()
    path = distilled(bare_archive, tmp_path / "own.hello", data)
    assert "data: class '6' has one image, and none to measure on" in refused(path, data, tmp_path / "out")


def test_archives_that_are_judged_by_different_images_are_not_compared(
    bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    data = few_digits / "train"
    paths = [str(distilled(bare_archive, tmp_path / f"{seed}.hello", data, seed)) for seed in (0, 1)]
    with pytest.raises(RecipeError, match="were made with different seeds, which hold out different images"):
        prepare(paths, ask(data, arms=("hard",)), tmp_path / "out")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"student": "convnet6"}, "convnet6 halves images 6 times: 32 px is too small"),
        ({"student": "convnot"}, "network 'convnot' is unknown"),
        ({"shuffle": 3}, "image side 32 is not divisible by shuffle 3"),
    ],
)
def test_a_protocol_that_does_not_suit_the_images_is_refused_before_any_work(
    knobs: dict[str, Any], message: str, bare_archive: Path, tmp_path: Path
) -> None:
    assert message in refused(bare_archive, tmp_path / "no such folder", tmp_path / "out", protocol=Protocol(**knobs))


def test_images_that_are_not_square_are_refused(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    with Archive.open(bare_archive) as archive:
        images = replace(archive.header.images, count=1, height=2, width=4, codec="png")
        header = replace(archive.header, images=images)
    stream = encode(torch.zeros(2, 4, 3, dtype=torch.uint8).numpy(), "png", None)
    write(tmp_path / "wide.hello", header, image_sections([stream]) | {"targets": bytes(4)})
    assert "images of 2 × 4 px: students need squares" in refused(tmp_path / "wide.hello", few_digits, tmp_path / "out")


@pytest.mark.parametrize("recipe", [{}, {"images_per_class": 0}, {"seed": "many"}, {"seed": -1}])
def test_a_recipe_that_is_not_ours_does_not_matter(
    recipe: dict[str, Any], bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    path = rewritten(bare_archive, tmp_path / "foreign.hello", recipe=recipe)
    assert prepare([str(path)], ask(few_digits, arms=("hard",)), tmp_path / "out").missing


def test_weights_for_a_teacher_that_is_trained_are_refused_before_any_work(bare_archive: Path, tmp_path: Path) -> None:
    knobs = {"teacher": "train:convnet3", "teacher_weights": "w.safetensors"}
    assert "weights without a network" in refused(bare_archive, tmp_path / "none", tmp_path / "out", **knobs)


@pytest.mark.parametrize("knobs", [{"seeds": 0}, {"teacher_weights": "w.safetensors"}])
def test_a_question_that_makes_no_sense_is_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        ask("digits", **knobs)


def test_a_weak_teacher_is_refused_unless_allowed(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import torch\ndef t():\n    n = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
        "    torch.nn.init.zeros_(n[1].weight)\n    return n\n"
    )
    knobs = {"arms": ("teacher",), "teacher": f"{tmp_path / 't.py'}:t"}
    with pytest.raises(SourceError, match=r"near chance .*--allow-weak-teacher"):
        prepare([str(bare_archive)], ask(few_digits, **knobs), tmp_path / "out")
    assert prepare([str(bare_archive)], ask(few_digits, allow_weak_teacher=True, **knobs), tmp_path / "out").missing


# Where the report goes.


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["archives"][0].update(content_id="0"),
        lambda value: value["archives"][0]["protocol"].update(student="resnet18"),
        lambda value: value["archives"][0]["protocol"].update(epochs=3),
        lambda value: value["archives"].append(value["archives"][0]),
        lambda value: value.update(format="hellods-report 9"),
        lambda value: value.clear(),
    ],
    ids=["archive", "student", "epochs", "archives", "format", "not ours"],
)
def test_the_report_of_another_question_is_not_replaced_unless_told_to(
    change: Callable[[dict[str, Any]], None], read: dict[str, Any], bare_archive: Path, digits_archive: Path,
    few_digits: Path, tmp_path: Path,
) -> None:  # fmt: skip
    change(read)
    (tmp_path / "report.json").write_text(json.dumps(read))
    with pytest.raises(HelloError, match=r"report\.json: exists already and answers another question: .*--overwrite"):
        prepare([str(digits_archive)], ask("no such folder"), tmp_path)
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
        with pytest.raises(HelloError, match="file: is not a folder: give another --out"):
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
    assert len(taught) == 3  # all real images are learnt once
    assert len(opened) == 1
    first, second = (archive["arms"]["full"]["accuracy"] for archive in found["archives"])
    assert first == second


def test_a_plan_trains_and_writes_nothing(
    bare_archive: Path, few_digits: Path, taught: list[int], tmp_path: Path
) -> None:
    question = ask(few_digits, arms=("hard", "teacher"), seeds=2, teacher="train:convnet3", allow_weak_teacher=True)
    plan = prepare([str(bare_archive)], question, tmp_path / "out")
    assert [(run.name, run.seed) for run in plan.missing] == [("teacher", 0), ("teacher", 1), ("hard", 0), ("hard", 1)]
    seconds = forecast(plan)
    assert set(seconds) == {(str(bare_archive), "teacher"), (str(bare_archive), "hard")}
    assert min(seconds.values()) > 0
    assert taught == []
    assert not (tmp_path / "out").exists()


def test_what_is_kept_is_not_forecast(whole: Path, digits_archive: Path, everything: Question) -> None:
    plan = prepare([str(digits_archive)], replace(everything, seeds=3, arms=("hard", "full")), whole)
    assert [(run.name, run.seed) for run in plan.missing] == [("hard", 2), ("full", 2)]
    longer = prepare([str(digits_archive)], replace(everything, arms=("hard",)), whole)
    assert forecast(longer) == {}


def test_results_are_said_as_they_come(
    bare_archive: Path, few_digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hellods")
    answered([bare_archive], ask(few_digits, arms=("hard",)), tmp_path)
    assert any(message.startswith("bare.hello: hard, seed 0: ") for message in caplog.messages)
