"""What an arm lacks leaves it out and is said; an archive, data or teacher that do not fit each other are refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hellods.distill.recipe import Recipe
from hellods.errors import HelloError, OptionError, SourceError
from hellods.evaluate import bench, checks, subject
from hellods.evaluate.arms import ARMS
from hellods.evaluate.evaluate import prepare
from hellods.evaluate.presets import Protocol
from hellods.format.archive import Archive, write
from hellods.format.codecs import encode
from hellods.format.streams import image_sections
from hellods.sources.source import open_source

from .conftest import answered, ask, rewritten


def shared_folder(few_digits: Path, to: Path, *, leave: str = "") -> Path:
    """Copy the digits, but for one class."""
    return Path(shutil.copytree(few_digits, to, ignore=shutil.ignore_patterns(leave) if leave else None))


# What cannot be run is left out, and said.


def test_without_a_teacher_its_arms_are_left_out_and_the_rest_runs(
    digits_archive: Path, few_digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    question = ask(few_digits, arms=("hello", "teacher", "shipped", "stored", "hard"))
    (archive,) = answered([digits_archive], question, tmp_path)["archives"]
    assert list(archive["arms"]) == ["hello", "hard"]
    assert set(archive["not_run"]) == {name for name in ARMS if name.startswith(("teacher", "shipped", "stored"))}
    said = "needs the teacher: give `teacher` (the archive was made with 'convnet3')"
    assert archive["not_run"]["teacher"] == said
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
    assert "give it as `base='local-dir:FOLDER'`" in plan.not_run[0]["hello"]
    assert [run.name for run in plan.runs] == ["hard"]


def test_labels_that_cannot_be_stored_in_as_many_bytes_are_left_out(subject: subject.Subject) -> None:
    many = replace(subject, images=subject.images.repeat(1000, 1, 1, 1))
    assert many.lacking(ARMS["stored-1x"]) == "the labels of one view of each image take more bytes"
    assert subject.lacking(ARMS["stored-1x"]) is None


def test_base_model_of_one_archive_does_not_stand_in_the_way_of_another(
    embedded_archive: Path, digits_archive: Path, small_base: Path, few_digits: Path, tmp_path: Path
) -> None:
    with Archive.open(embedded_archive) as archive:
        projector = {key: value for key, value in (archive.header.projector or {}).items() if key != "tower"}
    needs = rewritten(
        embedded_archive,
        tmp_path / "needs.hello",
        without=("backbone",),
        projector=projector | {"tower": None, "base": "given:small"},
    )
    question = ask(few_digits, arms=("hello",), base=f"local-dir:{small_base}", allow_weak_teacher=True)
    plan = prepare([str(needs), str(digits_archive)], question, tmp_path)
    assert plan.not_run == [{}, {}]
    assert [(one.base or {})["name"] for one in plan.subjects] == ["small", "hello-convnet"]


def test_with_too_few_real_images_random_ones_are_left_out(
    digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    data = shared_folder(few_digits, tmp_path / "data")
    for file in sorted((data / "train" / "3").iterdir())[1:]:
        file.unlink()
    plan = prepare([str(digits_archive)], ask(data, arms=("hello", "random-hello", "full")), tmp_path / "out")
    assert plan.not_run == [{"random-hello": "class '3' has 1 real images, and 2 are needed"}]


def test_when_nothing_can_be_run_the_arms_are_named(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"bare\.hello: none of the arms hello, teacher can be run"):
        prepare([str(bare_archive)], ask(few_digits, arms=("hello", "teacher")), tmp_path)


# What is counted.


def test_base_model_in_the_file_counts_among_its_labels_and_none_is_assumed(
    embedded_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    plan = prepare([str(embedded_archive)], ask(few_digits, arms=("hello",)), tmp_path)
    (found,) = plan.subjects
    lengths = {section.name: section.length for section in found.header.sections}
    assert (found.label_bytes, found.base) == (lengths["projector"] + lengths["backbone"], None)


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
        return 2 * F.one_hot(torch.tensor([classes[image.numpy().tobytes()] for image in images]), 10).float()

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
    with pytest.raises(OptionError, match="were made with different seeds, which hold out different images"):
        prepare(paths, ask(data, arms=("hard",)), tmp_path / "out")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"student": "convnet6"}, "convnet6 halves images 6 times: 32 px is too small"),
        ({"student": "convnot"}, "network 'convnot' is unknown"),
        ({"student": "mobilenet_v2", "batch_size": 1}, "'mobilenet_v2' cannot learn from batches of one image"),
        ({"shuffle": 3}, "image side 32 is not divisible by shuffle 3"),
    ],
)
def test_a_protocol_that_does_not_suit_the_images_is_refused_before_they_are_decoded(
    knobs: dict[str, Any], message: str, bare_archive: Path, few_digits: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delattr(bench.Bench, "check")
    assert message in refused(bare_archive, few_digits, tmp_path / "out", protocol=Protocol(**knobs))


def test_images_that_are_not_square_are_refused(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    with Archive.open(bare_archive) as archive:
        images = replace(archive.header.images, count=1, height=2, width=4, codec="png")
        header = replace(archive.header, images=images)
    stream = encode(torch.zeros(2, 4, 3, dtype=torch.uint8).numpy(), "png", None)
    write(tmp_path / "wide.hello", header, image_sections([stream]) | {"targets": bytes(4)})
    assert "images of 2 × 4 px: students need squares" in refused(tmp_path / "wide.hello", few_digits, tmp_path / "out")


def test_views_far_larger_than_students_can_take_are_refused_before_a_student_is_made(
    bare_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(checks, "create")
    path = rewritten(bare_archive, tmp_path / "vast.hello", views={"size": 4096})
    message = f"{path}: views of 4096 px: students learn from 1024 px at most"
    assert refused(path, few_digits, tmp_path / "out") == message


def test_more_images_than_there_is_room_for_are_refused(
    bare_archive: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(bare_archive) as archive:
        facts = archive.header.images
    size = 3 * facts.count * facts.height * facts.width
    monkeypatch.setattr(subject, "room", lambda _: size - 1)
    message = f"{bare_archive}: {size:,} bytes of images are more than the {size - 1:,} that this machine has room for"
    assert refused(bare_archive, few_digits, tmp_path / "out") == message


@pytest.mark.parametrize("recipe", [{}, {"images_per_class": 0}, {"seed": "many"}, {"seed": -1}])
def test_a_recipe_that_is_not_ours_does_not_matter(
    recipe: dict[str, Any], bare_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    path = rewritten(bare_archive, tmp_path / "foreign.hello", recipe=recipe)
    assert prepare([str(path)], ask(few_digits, arms=("hard",)), tmp_path / "out").missing


def test_weights_for_a_teacher_that_is_trained_are_refused_before_any_work(bare_archive: Path, tmp_path: Path) -> None:
    knobs = {"teacher": "train:convnet3", "teacher_weights": "w.safetensors"}
    assert "`teacher_weights` beside 'train:convnet3'" in refused(
        bare_archive, tmp_path / "none", tmp_path / "out", **knobs
    )


@pytest.mark.parametrize("knobs", [{"seeds": 0}, {"teacher_weights": "w.safetensors"}])
def test_a_question_that_makes_no_sense_is_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ask("digits", **knobs)


def test_a_weak_teacher_is_refused_unless_allowed(bare_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import torch\ndef t():\n    n = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
        "    torch.nn.init.zeros_(n[1].weight)\n    return n\n"
    )
    knobs = {"arms": ("teacher",), "teacher": f"{tmp_path / 't.py'}:t"}
    with pytest.raises(SourceError, match=r"near chance .*`allow_weak_teacher=True`"):
        prepare([str(bare_archive)], ask(few_digits, **knobs), tmp_path / "out")
    assert prepare([str(bare_archive)], ask(few_digits, allow_weak_teacher=True, **knobs), tmp_path / "out").missing


def test_recipe_that_cannot_be_read_is_said_and_the_default_taken(
    digits_archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Archive.open(digits_archive) as archive:
        header = archive.header
    odd = replace(header, recipe=header.recipe | {"hard_weight": 1})
    assert subject.recipe_of(odd, "x.hello") == Recipe()
    assert caplog.messages == [
        "x.hello: header.recipe.hard_weight: found 1, expected a decimal string: so the default recipe says what is "
        "held out, and how a teacher is trained"
    ]
    assert subject.recipe_of(replace(header, recipe={}), "x.hello") == Recipe()
    assert len(caplog.messages) == 1
