"""A run learns from what its arm says, is kept under all that decides it, and is counted to the byte."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hellods.device import Clock
from hellods.distill.initialize import Layout, initialize
from hellods.errors import HelloError
from hellods.evaluate import runs
from hellods.evaluate.arms import ARMS
from hellods.evaluate.feed import Feed
from hellods.evaluate.makers import ship
from hellods.evaluate.presets import ResolvedProtocol
from hellods.evaluate.runs import Run, kept, lesson_of, run_key, runs_of, steps_of
from hellods.evaluate.sizes import image_bytes
from hellods.evaluate.student import Outcome, learn
from hellods.evaluate.subject import Subject
from hellods.format.header import Codec
from hellods.sources.source import squares

CPU = torch.device("cpu")


def run_of(subject: Subject, arm: str, folder: Path = Path(), seed: int = 0) -> Run:
    return runs_of(subject, [(arm, ARMS[arm])], seed + 1, "fp32", folder)[seed]


def key(subject: Subject, arm: str, seed: int = 0, precision: str = "fp32") -> str:
    return run_key(subject, ARMS[arm], seed, precision)


def taught(subject: Subject, arm: str) -> Outcome:
    lesson, _ = lesson_of(run_of(subject, arm))
    return replace(learn(lesson, 0, CPU, torch.float32), seconds={})


def test_the_teacher_as_the_archives_label_maker_gives_the_teacher_arm_exactly(subject: Subject) -> None:
    assert taught(replace(subject, label_maker=subject.teacher), "hello") == taught(subject, "teacher")


def test_arms_take_the_labels_they_are_named_for(subject: Subject) -> None:
    makers = {name: lesson_of(run_of(subject, name))[0].labels for name in ARMS}
    assert makers["hello"] is makers["random-hello"] is subject.label_maker
    assert makers["teacher"] is makers["random-teacher"] is subject.teacher
    assert makers["hard"] is makers["full"] is None


def test_arms_take_the_images_they_are_named_for(subject: Subject) -> None:
    everything = torch.arange(20)
    for name, arm in ARMS.items():
        lesson, _ = lesson_of(run_of(subject, name))
        assert len(lesson.targets) == (150 if arm.images == "all" else 20)
        same = torch.equal(lesson.pixels(everything), subject.images)
        assert same == (arm.images == "archive")


def test_steps_views_and_held_out_images_are_the_same_for_every_arm(subject: Subject) -> None:
    lessons = [lesson_of(run_of(subject, name))[0] for name in ARMS]
    assert {(lesson.steps, lesson.protocol, lesson.views) for lesson in lessons} == {
        (2, subject.protocol, subject.views)
    }
    assert all(lesson.held_out is subject.held_out for lesson in lessons)


@pytest.mark.parametrize(("batch_size", "steps"), [(10, 2), (19, 1), (18, 2), (6, 4), (20, 1)])
def test_steps_are_those_that_the_images_are_fed_in(batch_size: int, steps: int, subject: Subject) -> None:
    other = replace(subject, protocol=replace(subject.protocol, batch_size=batch_size))
    lesson, _ = lesson_of(run_of(other, "hard"))
    assert (steps_of(other), len(Feed(lesson, 0, CPU, Clock(CPU)).sizes)) == (steps, steps)


def test_real_images_are_whole_so_their_strips_stay(subject: Subject) -> None:
    shuffled = replace(subject, views=replace(subject.views, shuffle=2))
    strips = {name: lesson_of(run_of(shuffled, name))[0].views.shuffle for name in ("hard", "random-hello", "full")}
    assert strips == {"hard": 2, "random-hello": 1, "full": 1}


def stored(subject: Subject, codec: Codec, quality: int | None) -> Subject:
    """Return the archive as if its images were stored otherwise."""
    recipe, header = replace(subject.recipe, quality=quality), subject.header
    return replace(subject, recipe=recipe, header=replace(header, images=replace(header.images, codec=codec)))


def test_random_images_are_real_as_many_of_each_class_and_others_for_another_seed(subject: Subject) -> None:
    exact = stored(subject, "png", None)
    first, second = (lesson_of(run_of(exact, "random-hello", seed=seed))[0] for seed in (0, 1))
    real = {image.numpy().tobytes() for image in squares(subject.source, torch.arange(150), 32)}
    pixels = first.pixels(torch.arange(20))
    assert {image.numpy().tobytes() for image in pixels} <= real
    assert Counter(first.targets.tolist()) == dict.fromkeys(range(10), 2)
    assert not torch.equal(pixels, second.pixels(torch.arange(20)))


@pytest.mark.parametrize("seed", [0, 1])
def test_random_images_are_not_those_of_a_build_by_random_images_with_that_seed(seed: int, subject: Subject) -> None:
    layout = Layout(images_per_class=2, side=32, factor=1, candidates=1, crops=1)
    assert subject.teacher is not None
    made = initialize("real", subject.source, subject.teacher, layout, seed)
    exact = stored(subject, "png", None)
    drawn = lesson_of(run_of(exact, "random-hello", seed=seed))[0].pixels(torch.arange(20))
    same = {image.numpy().tobytes() for image in made} & {image.numpy().tobytes() for image in drawn}
    assert len(same) < 10


def test_random_images_are_the_same_under_every_label_maker(subject: Subject) -> None:
    pair = [lesson_of(run_of(subject, name))[0].pixels(torch.arange(20)) for name in ("random-hello", "random-teacher")]
    assert torch.equal(*pair)


def test_other_arms_on_its_images_differ_by_their_labels_alone(subject: Subject) -> None:
    assert subject.teacher is not None
    sizes = {name: lesson_of(run_of(subject, name))[1] for name, arm in ARMS.items() if arm.images == "archive"}
    assert {size["images"] for size in sizes.values()} == {sum(image_bytes(subject))}
    expected = {"hello": subject.label_bytes, "hard": 0, "teacher": ship(subject.teacher, 16)[1]}
    expected |= {"shipped-int8": ship(subject.teacher, 8)[1]}
    expected |= {"stored-1x": subject.storage(ARMS["stored-1x"]).bytes}
    assert {name: sizes[name]["labels"] for name in expected} == expected


def test_bytes_of_random_images_are_those_of_files_in_the_archives_codec(subject: Subject) -> None:
    lesson, size = lesson_of(run_of(stored(subject, "png", None), "random-teacher"))
    total = 0
    for image in lesson.pixels(torch.arange(20)):
        file = BytesIO()
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(file, "png")
        total += len(file.getvalue())
    index = next(s.length for s in subject.header.sections if s.name == "images.index")
    assert size["images"] == pytest.approx(total + index, rel=0.1)  # other effort of the encoder


def test_random_images_are_seen_as_a_reader_of_the_archive_would_have_them(subject: Subject) -> None:
    ways = stored(subject, "jpeg", 5), stored(subject, "png", None)
    (coarse, small), (exact, whole) = (lesson_of(run_of(way, "random-hello")) for way in ways)
    pixels, real = (lesson.pixels(torch.arange(20)) for lesson in (coarse, exact))
    for image, found in zip(real, pixels, strict=True):
        file = BytesIO()
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(file, "jpeg", quality=5)
        decoded = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert (decoded.float() - found.float()).abs().mean() < 0.5 * (decoded.float() - image.float()).abs().mean()
    assert small["images"] < whole["images"]


def test_bytes_of_all_images_are_those_of_their_files(subject: Subject, few_digits: Path) -> None:
    _, size = lesson_of(run_of(subject, "full"))
    files = sum(file.stat().st_size for file in (few_digits / "train").rglob("*.png"))
    assert size == {"images": files, "labels": 0}


def test_stored_labels_come_again_after_as_many_views_as_were_stored(subject: Subject) -> None:
    long = replace(subject, protocol=replace(subject.protocol, epochs=100_000))
    storage = long.storage(ARMS["stored-1x"])
    assert 1 < storage.views < 100_000
    assert storage.bytes <= subject.label_bytes
    assert lesson_of(run_of(long, "stored-1x"))[0].repeat == storage.views


Change = Callable[[Subject], Subject]


class Renamed:
    """A source or teacher that says something else of itself."""

    def __init__(self, original: Any, **facts: Any) -> None:
        self._original, self._facts = original, facts

    def provenance(self) -> dict[str, Any]:
        return self._original.provenance() | self._facts


CHANGES: dict[str, Change] = {
    "protocol": lambda s: replace(s, protocol=replace(s.protocol, learning_rate=0.5)),
    "views": lambda s: replace(s, views=replace(s.views, flip=not s.views.flip)),
    "archive": lambda s: replace(s, content_id="0" * 64),
    "normalization": lambda s: replace(
        s, header=replace(s.header, images=replace(s.header.images, mean=(0.1, 0.2, 0.3)))
    ),
    "side": lambda s: replace(s, header=replace(s.header, images=replace(s.header.images, height=16))),
    "steps": lambda s: replace(s, images=s.images[:9]),
    "held-out images": lambda s: replace(s, held_out=Renamed(s.held_out, sha256="1")),  # type: ignore[arg-type]
    "real images": lambda s: replace(s, source=Renamed(s.source, sha256="2")),  # type: ignore[arg-type]
    "teacher's weights": lambda s: replace(s, teacher=Renamed(s.teacher, sha256="3")),  # type: ignore[arg-type]
    "teacher's mean": lambda s: replace(s, teacher=Renamed(s.teacher, mean=["0", "0", "0"])),  # type: ignore[arg-type]
    "teacher's side": lambda s: replace(s, teacher=Renamed(s.teacher, side=64)),  # type: ignore[arg-type]
    "teacher's code": lambda s: replace(s, teacher=Renamed(s.teacher, code="4")),  # type: ignore[arg-type]
    "no teacher": lambda s: replace(s, teacher=None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_the_outcome_changes_the_key(what: str, subject: Subject) -> None:
    assert key(CHANGES[what](subject), "random-teacher") != key(subject, "random-teacher")


def test_seed_precision_and_arm_change_the_key(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(subject, "random-teacher")
    others = [key(subject, "random-teacher", seed=1), key(subject, "random-teacher", precision="bf16")]
    others += [key(subject, name) for name in ARMS if name != "random-teacher" and not name.startswith("stored")]
    monkeypatch.setattr(runs, "software", lambda: {"hellods": "another"})
    assert len({before, *others, key(subject, "random-teacher")}) == len(others) + 2


@pytest.mark.parametrize("what", ["archive", "teacher's weights"])
def test_all_real_images_are_learned_once_for_all_archives_and_teachers(what: str, subject: Subject) -> None:
    assert key(CHANGES[what](subject), "full") == key(subject, "full")


def test_images_of_the_archive_do_not_depend_on_the_real_ones(subject: Subject) -> None:
    assert key(CHANGES["real images"](subject), "hard") == key(subject, "hard")


def test_labels_that_fit_every_budget_are_learned_once(subject: Subject) -> None:
    assert len({run_of(subject, f"stored-{times}x").file for times in (1, 10, 100)}) == 1


def test_a_run_that_was_not_finished_is_not_kept(subject: Subject, tmp_path: Path) -> None:
    assert kept(run_of(subject, "hard", tmp_path)) is None


@pytest.fixture
def finished(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, dict[str, Any]]:
    """A run whose student was not really trained."""
    outcome = Outcome(
        accuracy=0.5, per_class=(0.5,), epochs=(1,), curve=(0.5,), losses=(1.0,), views=1, seconds={}, flops={},
        fidelity=None, parameters=1,
    )  # fmt: skip
    monkeypatch.setattr(runs, "learn", lambda *arguments: outcome)
    run = run_of(subject, "hard", tmp_path)
    return run, runs.finish(run, CPU, torch.float32, lambda *call: None)


def test_a_finished_run_is_kept_as_it_was(finished: tuple[Run, dict[str, Any]]) -> None:
    run, value = finished
    assert kept(run) == json.loads(json.dumps(value))


def test_an_outcome_that_was_kept_with_more_bytes_is_kept(finished: tuple[Run, dict[str, Any]]) -> None:
    run, value = finished
    run.file.write_text(json.dumps(value | {"bytes": value["bytes"] | {"rest": 3620}}))
    assert kept(run) is not None


def without(*path: str) -> Callable[[dict[str, Any]], str]:
    def change(value: dict[str, Any]) -> str:
        inner = value
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]
        return json.dumps(value)

    return change


DAMAGE: dict[str, Callable[[dict[str, Any]], str]] = {
    "empty": lambda value: "",
    "cut off": lambda value: json.dumps(value)[:50],
    "a list": lambda value: "[]",
    "a number": lambda value: "1",
    "of another run": lambda value: json.dumps(value | {"key": "0"}),
    "without key": without("key"),
    "without outcome": without("outcome"),
    "without accuracy": without("outcome", "accuracy"),
    "without bytes": without("bytes"),
    "without bytes of labels": without("bytes", "labels"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_outcome_is_named_with_what_to_do(what: str, finished: tuple[Run, dict[str, Any]]) -> None:
    run, value = finished
    run.file.write_text(DAMAGE[what](json.loads(json.dumps(value))))
    with pytest.raises(
        HelloError, match=rf"{run.file.name}: not the outcome of this run .*delete it to train this student again"
    ):
        kept(run)


def test_a_failing_student_leaves_nothing(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "learn", fail)
    with pytest.raises(KeyboardInterrupt):
        runs.finish(run_of(subject, "hard", tmp_path), CPU, torch.float32, lambda *call: None)
    assert list(tmp_path.iterdir()) == []


def test_protocols_of_the_subject_are_resolved(subject: Subject) -> None:
    assert subject.protocol == ResolvedProtocol(
        student="convnet3", epochs=2, batch_size=10, learning_rate=1e-3, temperature=20.0, min_scale=1.0, shuffle=1,
        mix="cutmix",
    )  # fmt: skip
